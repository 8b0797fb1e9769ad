"""The output folder and the record of a run."""
