"""Comparison of several results for one clip."""
