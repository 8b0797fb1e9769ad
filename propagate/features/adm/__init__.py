"""guided-diffusion's U-Net (ADM), on pixels."""
