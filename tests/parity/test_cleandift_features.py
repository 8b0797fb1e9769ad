"""CleanDIFT's own numbers: StableFeatureAligner.get_features on a tiny U-Net."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from propagate.features import build_extractor
from tests.places import PARITY_DATA

DATA = PARITY_DATA
PIPELINE = DATA / "sd_tiny_0" / "pipeline"
PROMPTS = {"null": "", "dog": "a photo of a dog"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cleandift")
    tensors = load_file(PIPELINE / "unet" / "diffusion_pytorch_model.safetensors")
    path = folder / "cleandift_unet.safetensors"
    save_file({name: value.float() * 0.9 for name, value in tensors.items()}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield path


@cache
def golden() -> dict[str, torch.Tensor]:
    with np.load(DATA / "cleandift_tiny_0" / "features.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    pixels = np.load(DATA / "sd_tiny_0" / "features.npz")["A_image_u8"]
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]


@pytest.mark.parametrize("block", range(3))
@pytest.mark.parametrize(("prompt", "timestep"), [("null", 261.0), ("dog", 261.0), ("null", 260.3125)])
def test_features(weights, image, prompt, timestep, block):
    extractor = build_extractor(
        "cleandift",
        weights=str(weights),
        base=str(PIPELINE),
        timestep=timestep,
        up_ft_index=block,
        prompt=PROMPTS[prompt],
        device="cpu",
    )
    told = str(timestep).removesuffix(".0").replace(".", "p")
    key = f"A_{prompt}_t{told}_us{3 * block + 3}"
    found, expected = extractor(image), golden()[key]
    assert found.shape == expected.shape
    assert (found - expected).norm() / expected.norm() < 1e-4


def test_all_of_the_decoder(weights, image):
    """The keys that are no up block's output: the same pass, looked at inside."""
    extractor = build_extractor("cleandift", weights=str(weights), base=str(PIPELINE), up_ft_index=3, device="cpu")
    unet = extractor.model.unet
    places = {"mid": unet.mid_block, "us1": unet.up_blocks[0].resnets[0], "us2": unet.up_blocks[0].resnets[1]}
    for key, block, place in [(4, 1, 0), (5, 1, 1), (7, 2, 0), (8, 2, 1), (10, 3, 0)]:
        places[f"us{key}"] = unet.up_blocks[block].attentions[place]
    found = {}
    for key, module in places.items():
        module.register_forward_hook(lambda _module, _inputs, output, key=key: found.update({key: output}))
    extractor(image)
    assert len(found) == 8
    for key, output in found.items():
        tensor = output[0] if isinstance(output, tuple) else output
        expected = golden()[f"A_null_t261_{key}"]
        assert (tensor - expected).norm() / expected.norm() < 1e-4, key
