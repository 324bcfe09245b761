"""Several runs on one page: what they have in common, and how they differ, image by image."""
