"""JHMDB: tree, clips, score."""
