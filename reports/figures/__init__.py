"""Figures of reports and papers."""
