"""Data sets and their official scores: read clips and truth, run methods, write tables and a report."""
