"""Measures how much of an image an attacker can rebuild from the tokens that an edge device transmits."""

__all__ = ["__version__"]

__version__ = "0.2.0"
