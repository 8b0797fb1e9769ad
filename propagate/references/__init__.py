"""Label a frame from other annotated pictures. Imports features, labels, planning and propagation, not the pipeline."""
