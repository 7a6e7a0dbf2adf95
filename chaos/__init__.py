"""Kills, full disks, cut connections and lost pods by the hundred, and what became of the work: ``make chaos``."""
