"""Tables of a report, as grids that every writer renders alike."""
