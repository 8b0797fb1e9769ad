"""Labels read from Stable Diffusion's cross-attention to learned prompts."""
