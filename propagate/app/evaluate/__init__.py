"""`propagate evaluate` and `propagate sweep`."""
