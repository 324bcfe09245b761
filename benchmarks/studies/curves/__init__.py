"""What token reductions cost a real model, quality over FLOPs and tokens: ``python -m leakgauge.benchmarks.curves``."""
