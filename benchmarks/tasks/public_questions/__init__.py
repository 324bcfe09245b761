"""Tasks ``gqa`` and ``scienceqa``: published questions on pictures, from files that a user has."""
