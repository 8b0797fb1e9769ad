"""Codecs that reproduce published scripts to the digit."""
