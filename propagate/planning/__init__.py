"""How much memory a run takes, and what fits."""
