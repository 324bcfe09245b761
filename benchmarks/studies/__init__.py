"""Benchmarks of the harness itself: speed, curves, races of searches, trials of the gate."""
