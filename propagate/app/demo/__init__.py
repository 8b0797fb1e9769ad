"""`propagate demo`."""
