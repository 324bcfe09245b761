"""Tasks: data, victim and quality."""
