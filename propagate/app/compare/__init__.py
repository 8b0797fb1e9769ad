"""`propagate compare`."""
