"""Several results for one clip, side by side."""
