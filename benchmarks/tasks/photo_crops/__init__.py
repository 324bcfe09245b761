"""Task ``photos``: crops of photographs that come with a library."""
