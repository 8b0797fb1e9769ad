"""The transfer step, the memory bank and the propagator. Knows tensors, no files and no pictures."""
