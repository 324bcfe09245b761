"""The gate: baselines, limits, checks, and what they leave behind."""
