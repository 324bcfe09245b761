"""What writes reports and figures to files."""
