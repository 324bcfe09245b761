"""Speed of ragged token merging, as ratios against baselines in the same run: ``python -m benchmarks.speed``."""
