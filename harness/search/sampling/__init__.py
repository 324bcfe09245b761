"""How a search draws its next trial."""
