"""`propagate match`."""
