from __future__ import annotations

import torch

from propagate.features.compact.compact import CompactDiffusion
from propagate.features.diffusion.core import Noise, linear_alphas_cumprod
from training.noising import noise_like, noised, rearranged


def test_the_model_is_trained_on_what_it_is_used_on():
    """Pixels are rearranged and noised as by the extractor."""
    pixels = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    extractor, seen = CompactDiffusion(device="cpu", dtype="float32"), list[torch.Tensor]()
    extractor.networks[0].start.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for picture in pixels:  # one after the other: pictures of a batch are side by side in threads, in any order
        extractor(picture[None].float() / 255)
    clean = rearranged(pixels)
    kept = linear_alphas_cumprod()[51].expand(2)
    noise = Noise().draw(tuple(clean.shape[1:])).expand_as(clean)
    torch.testing.assert_close(noised(clean, noise, kept), torch.cat(seen))


def test_noise_is_that_of_the_generator():
    clean = torch.zeros(2, 48, 4, 4)
    draws = [noise_like(clean, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert abs(float(draws[0].std()) - 1) < 0.1
