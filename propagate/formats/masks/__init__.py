"""Mask pictures: indexed, black and white, flat colors, transparency."""
