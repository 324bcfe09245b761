"""Speed of ragged token merging, as ratios to baselines in the same run: ``python -m leakgauge.benchmarks.speed``."""
