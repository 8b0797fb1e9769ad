"""What all diffusion extractors share: noise, taps, the ensemble, the aggregation of layers."""
