"""Searches Pareto-optimal operating points, and chooses among them at run time."""
