"""``leakgauge view``: the runs of a folder and their reports, served to this machine alone."""
