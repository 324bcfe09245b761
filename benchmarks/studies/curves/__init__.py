"""What token reductions cost a real model: ``python -m leakgauge.benchmarks.studies.curves``."""
