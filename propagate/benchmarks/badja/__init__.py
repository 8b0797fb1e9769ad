"""BADJA: tree, clips, score."""
