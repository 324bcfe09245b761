"""Speed of ragged token merging, as ratios: ``python -m leakgauge.benchmarks.studies.speed``."""
