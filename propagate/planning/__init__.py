"""Estimate the memory of a run, and choose steps that fit. Imports features, propagation and settings."""
