"""The transfer step on a GPU, as a Triton kernel."""
