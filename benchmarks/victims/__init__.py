"""Shipped victims and the scripts that trained them."""
