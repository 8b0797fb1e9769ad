"""The sample clips and how they were made. Works from a checkout only."""
