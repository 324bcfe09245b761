"""What is to be said of an operating point: whether its strongest attack shows what leaks, or the best known does."""
