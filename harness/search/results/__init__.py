"""What a search ends in: a front, measured again, and a choice among it."""
