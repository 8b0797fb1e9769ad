"""SD+DINO's own numbers: the layers, PCA, fusion and windows of A Tale of Two Features."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from propagate import features
from propagate.features import build_extractor
from propagate.features.anchoring import PrincipalComponents, anchored, fit_principal_components
from propagate.features.stable_diffusion.layers import merge_windows, stacked, window_corners
from tests.places import PARITY_DATA

DATA = PARITY_DATA
PIPELINE = DATA / "sd_tiny_0" / "pipeline"
LAYERS = ("s5", "s4", "s3")  # the coarsest first
PUBLISHED = [[2, 1], [1, 1], [0, 1]]


@cache
def golden() -> dict[str, torch.Tensor]:
    with np.load(DATA / "sd_dino_tiny_0.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2."""
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def layers_extractor(**options):
    options = {"weights": PIPELINE, "layers": PUBLISHED, "noise_side": 16, "device": "cpu"} | options
    return build_extractor("sd_layers", **options)


def test_noise():
    extractor = layers_extractor()
    assert torch.equal(extractor.noise((16, 16)), golden()["shared_noise"])


def test_noisy_latents():
    extractor = layers_extractor()
    latents = torch.from_numpy(np.load(DATA / "sd_tiny_0" / "features.npz")["A_latents"])
    fed = []
    extractor.model.latents = lambda _images: latents
    extractor.model.unet.conv_in.register_forward_pre_hook(lambda _module, inputs: fed.append(inputs[0]))
    extractor.layers(torch.zeros(1, 3, 128, 192))
    assert distance(fed[0], golden()["A_noisy_t100"]) < 1e-5


@pytest.mark.parametrize("layers", [PUBLISHED, [[0, 1], [3, 1], [2, 1], [1, 1]]])
def test_layers(layers):
    extractor = layers_extractor(layers=layers, layer_pca=None)
    pixels = np.load(DATA / "sd_tiny_0" / "features.npz")["A_image_u8"]
    found = extractor.layers(torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None])
    names = ("s5", "s4", "s3", "s2")[: len(layers)]
    for name, layer in zip(names, found, strict=True):
        assert distance(layer, golden()[f"A_layer_{name}"]) < 1e-4, name


@pytest.mark.parametrize("image", ["image1", "image2"])
def test_projection_and_stacking(image):
    bases = {name: PrincipalComponents(golden()[f"mean_{name}"], golden()[f"basis_{name}"]) for name in LAYERS}
    projected = [bases[name].project(golden()[f"{image}_{name}"][None]) for name in LAYERS]
    assert distance(stacked(projected)[0], golden()[f"co_pca_{image}"]) < 1e-5


@pytest.mark.parametrize("name", LAYERS)
def test_joint_pca(name):
    """Signs are free: what is compared are the spectrum and the dot products of all cells with one another."""
    both = torch.stack([golden()[f"image1_{name}"], golden()[f"image2_{name}"]])
    found = fit_principal_components(both, 8)
    published = PrincipalComponents(golden()[f"mean_{name}"], golden()[f"basis_{name}"])
    assert distance(found.mean, published.mean) < 1e-5
    cells, expected = (part.project(both).transpose(0, 1).flatten(1) for part in (found, published))
    assert distance(cells.norm(dim=1), golden()[f"singular_{name}"]) < 1e-3
    assert distance(cells.T @ cells, expected.T @ expected) < 1e-3


class Stored:
    """An extractor that gives the maps of one of the two pictures: the one whose pixels have its number."""

    stride, multiple = 16, 16

    def __init__(self, maps: dict[int, torch.Tensor]) -> None:
        self.maps, self.channels = maps, maps[1].shape[0]

    def __call__(self, images, indices=None):
        return torch.stack([self.maps[int(image.max())] for image in images])


def picture(number: int) -> torch.Tensor:
    return torch.full((1, 3, 12 * 16, 12 * 16), float(number))


@pytest.mark.parametrize("weighted", [False, True])
def test_fusion(monkeypatch, weighted):
    """From the layers' maps to the nearest cells, with the basis of both pictures."""
    suffix = "_weighted" if weighted else ""
    *layer_weights, sd, dino = golden()[f"weights{suffix}"].tolist()
    extractor = layers_extractor(layers=PUBLISHED, layer_weights=layer_weights, layer_pca=8)
    maps = {number: [golden()[f"image{number}_{name}"] for name in LAYERS] for number in (1, 2)}
    extractor.layers = lambda images: [
        torch.stack([maps[int(image.max())][place] for image in images]) for place in range(3)
    ]
    tokens = {number: golden()[f"image{number}_dino"].T.reshape(20, 12, 12).contiguous() for number in (1, 2)}
    made = {"sd": extractor, "dino": Stored(tokens)}
    monkeypatch.setattr(features, "_builder", lambda name: (lambda: made[name], None))
    fusion = build_fusion([{"name": "sd", "weight": sd}, {"name": "dino", "weight": dino}])
    fusion = anchored(fusion, torch.cat([picture(1), picture(2)]))
    found = [fusion(picture(number))[0].flatten(1).T for number in (1, 2)]
    for cells, number in zip(found, (1, 2), strict=True):
        expected = golden()[f"fused_image{number}{suffix}"]
        assert distance(cells @ cells.T, expected @ expected.T) < 1e-3
        assert distance(cells[:, 24:], expected[:, 24:]) < 1e-5
    # unit parts: the published distance and the cosine order the cells alike
    cosine = cosine_similarity(found[0][:, None], found[1][None], dim=-1)
    best = golden()[f"similarity{suffix}"].topk(2, 1).values
    clear = best[:, 0] - best[:, 1] > 1e-4
    assert clear.sum() > 100
    assert torch.equal(cosine.argmax(1)[clear], golden()[f"nearest{suffix}"].long()[clear])


def build_fusion(parts):
    from propagate.features.fusion import Fusion

    return Fusion(parts=parts, device="cpu")


def test_windows():
    corners = window_corners((192, 320), 128)
    assert corners == [tuple(corner) for corner in golden()["windows_yx"].tolist()]
    for name, stride in zip(LAYERS, (64, 32, 16), strict=True):
        windows = list(golden()[f"window_{name}"][:, None])
        cells = [(y // stride, x // stride) for y, x in corners]
        merged = merge_windows(windows, cells, (192 // stride, 320 // stride))
        assert distance(merged[0], golden()[f"merged_{name}"]) < 1e-6
