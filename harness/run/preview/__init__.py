"""What is said before a run begins: images, tokens kept, budgets, time."""
