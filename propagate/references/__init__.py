"""The label of a frame from other pictures: search, crop, matching."""
