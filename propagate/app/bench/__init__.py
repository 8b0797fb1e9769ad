"""`propagate bench`."""
