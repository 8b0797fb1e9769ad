"""The transfer step and the memory it reads: tensors in, tensors out. Imports no features, labels or files."""
