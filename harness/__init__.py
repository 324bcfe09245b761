"""Contracts, planning, running, scoring and storing; imports none of the other folders."""
