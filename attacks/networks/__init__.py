"""Networks, layouts and the training loop that several attacks share."""
