"""One module for each verb of ``mtft-launch``."""
