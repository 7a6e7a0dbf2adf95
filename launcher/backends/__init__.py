"""Where a job runs: one module for each place."""
