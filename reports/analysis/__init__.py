"""What reports compute from loaded runs."""
