"""Runs of suites: planned, carried out by workers, resumed, scored again."""
