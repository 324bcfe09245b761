"""Task ``imagefolder``: a user's own images and model."""
