"""The edge: transformer blocks on images of unequal token counts, and the merging between them."""
