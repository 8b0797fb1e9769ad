"""The diffusion model that ships in the wheel, small enough for a CPU."""
