"""``leakgauge export``: a run as experiment trackers keep it; one file a tracker, imported where it is asked for."""
