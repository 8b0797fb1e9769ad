"""Vision transformers: DINO, DINOv2, DINOv3, OpenCLIP."""
