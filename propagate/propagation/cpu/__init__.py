"""The transfer step on a CPU, in loops that numba compiles."""
