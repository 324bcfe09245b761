"""Scores of reconstructions, quality, compute and bandwidth."""
