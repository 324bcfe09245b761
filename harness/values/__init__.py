"""What flows: images, tokens, observations, curves; and the columns of tables."""
