"""Suites of the lab, in YAML beside this file."""
