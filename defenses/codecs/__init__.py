"""Codecs: token values to bytes and back, one kind a file."""
