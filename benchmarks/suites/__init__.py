"""Shipped suites, one YAML file each."""
