"""What token reductions cost a real model, in quality over FLOPs and tokens: ``python -m benchmarks.curves``."""
