"""Weights that attacks may start from, with the record of their training; made by ``benchmarks.attackers``."""
