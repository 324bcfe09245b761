"""Model-inversion attacks, one file each."""
