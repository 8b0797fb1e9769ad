"""How long the stages of a run take."""
