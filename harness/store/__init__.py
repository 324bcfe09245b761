"""Run folders and caches on disk."""
