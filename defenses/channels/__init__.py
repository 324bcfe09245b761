"""Channels, analog (token values as symbols) and digital (packets of bytes)."""
