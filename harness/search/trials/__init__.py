"""One trial of a search: evaluated, kept in the database, recalled."""
