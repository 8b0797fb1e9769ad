"""Time and memory of the stages of a run."""
