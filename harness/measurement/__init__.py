"""One operating point measured, and one attack on it."""
