"""Extractors that run Stable Diffusion's U-Net."""
