"""Data sets, scored by their official rules: a tree becomes clips and truth, results become tables and a report."""
