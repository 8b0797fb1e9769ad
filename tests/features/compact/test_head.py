from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from propagate.errors import UsageError, WeightsError
from propagate.features import build_extractor
from propagate.features.compact.compact import SPACE_TO_DEPTH, UNET_CONFIG
from propagate.features.compact.head import FILE, CompactHead, HeadConfig, save_head
from propagate.features.diffusion.core import Noise, linear_alphas_cumprod, tapped
from propagate.features.finer import both_maps
from propagate.planning.dry_run import dry_run

CHANNELS = {
    "up_blocks.0.resnets.1": 32,
    "up_blocks.1": 32,
    "up_blocks.2.resnets.0": 16,
    "up_blocks.2": 16,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The same network with few channels."""
    torch.manual_seed(0)
    config = {**UNET_CONFIG, "block_out_channels": (16, 16, 32, 32)}
    unet = UNet2DModel(**config)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps({"unet": config}), encoding="utf-8")
    save_file(unet.state_dict(), folder / "model.safetensors")
    return folder


def written(
    folder: Path, layers: dict[str, int] | None = None, timesteps: Sequence[int] = (51,), **changes: Any
) -> Path:
    """A head with weights of no training, whose layers and timesteps all weigh differently."""
    torch.manual_seed(1)
    config = {"layers": layers or CHANNELS, "timesteps": tuple(timesteps), "projection": 24, "norm_groups": 2}
    head = CompactHead(HeadConfig.model_validate({**config, **changes}))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
        head.network.mixing_weights.copy_(torch.linspace(-1, 1, len(head.network.mixing_weights)))
    save_head(head, folder / FILE)
    return folder / FILE


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def noise_for(images: torch.Tensor, draws: int = 1) -> torch.Tensor:
    side = SPACE_TO_DEPTH
    return Noise(draws).draw((3 * side**2, images.shape[-2] // side, images.shape[-1] // side))


def plainly(
    model: Path, file: Path, images: torch.Tensor, timesteps: Sequence[int], noise: torch.Tensor
) -> torch.Tensor:
    """The paper's formula, with diffusers' own network: sum over steps and layers of softmax(w) bottleneck(map)."""
    unet = UNet2DModel(**json.loads((model / "config.json").read_text(encoding="utf-8"))["unet"]).eval()
    unet.load_state_dict(load_file(model / "model.safetensors"))
    weights = {name: value.float() for name, value in load_file(file).items()}
    clean = F.pixel_unshuffle(images * 2 - 1, SPACE_TO_DEPTH)
    mixing = weights["mixing_weights"].softmax(0)

    def convolved(features: torch.Tensor, name: str) -> torch.Tensor:
        kernel = weights[f"{name}.weight"]
        found = F.conv2d(features, kernel, padding=kernel.shape[-1] // 2)
        return F.group_norm(found, 2, weights[f"{name}.norm.weight"], weights[f"{name}.norm.bias"])

    total = torch.zeros(len(images), 24, images.shape[-2] // 8, images.shape[-1] // 8)
    for step, timestep in enumerate(timesteps):
        kept = linear_alphas_cumprod()[timestep]
        maps: dict[int, torch.Tensor] = {}
        with torch.no_grad(), tapped([unet.get_submodule(name) for name in CHANNELS], maps.__setitem__):
            unet(kept.sqrt() * clean + (1 - kept).sqrt() * noise, timestep)
        for layer, outputs in maps.items():
            resized = F.interpolate(outputs, total.shape[-2:], mode="bilinear", align_corners=False)
            block = f"bottleneck_layers.{layer}.0"
            inner = convolved(resized, f"{block}.conv1").relu()
            inner = convolved(inner, f"{block}.conv2").relu()
            features = (convolved(inner, f"{block}.conv3") + convolved(resized, f"{block}.shortcut")).relu()
            total += mixing[step * len(CHANNELS) + layer] * features
    return total


@pytest.mark.parametrize("timesteps", [(51,), (261, 51)])
def test_features_are_the_weighted_sum_of_the_layers(model, images, timesteps, tmp_path):
    file = written(tmp_path, timesteps=timesteps)
    extractor = build_extractor("compact", weights=model, head=file, device="cpu", dtype="float32")
    assert (extractor.channels, extractor.stride) == (24, 8)
    found = extractor(images)
    torch.testing.assert_close(found, plainly(model, file, images, timesteps, noise_for(images)), rtol=1e-4, atol=1e-4)


def test_a_folder_is_taken_for_the_head_inside(model, images, tmp_path):
    options = {"weights": model, "device": "cpu"}
    by_file = build_extractor("compact", head=written(tmp_path), **options)
    assert torch.equal(build_extractor("compact", head=tmp_path, **options)(images), by_file(images))


def test_a_head_may_read_only_what_lies_before_the_block(model, images, tmp_path):
    file = written(tmp_path, {"up_blocks.0.resnets.1": 32, "up_blocks.1": 32})
    two, one = (build_extractor("compact", weights=model, head=file, block=block, device="cpu") for block in (2, 1))
    torch.testing.assert_close(two(images), one(images))
    early = build_extractor(
        "compact", weights=model, head=written(tmp_path, {"up_blocks.0": 32}), block=0, device="cpu"
    )
    assert early.stride == 8
    assert early(images).shape == (2, 24, 8, 12)


def test_draws_are_averaged_behind_the_head(model, images, tmp_path):
    file = written(tmp_path)
    extractor = build_extractor("compact", weights=model, head=file, ensemble_size=2, device="cpu", dtype="float32")
    single = [plainly(model, file, images, (51,), draw[None]) for draw in noise_for(images, 2)]
    torch.testing.assert_close(extractor(images), (single[0] + single[1]) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("timesteps", [(51,), (51, 261)])
def test_the_finer_map_stays_the_blocks(model, images, timesteps, tmp_path):
    """Where the head reads several timesteps, the mean over them."""
    options: dict[str, Any] = {"weights": model, "device": "cpu", "dtype": "float32"}
    headed = both_maps(build_extractor("compact", head=written(tmp_path, timesteps=timesteps), **options))
    blocks = [both_maps(build_extractor("compact", timestep=timestep, **options)) for timestep in timesteps]
    coarse, finer = headed.split(headed(images)[1])
    assert coarse.shape == (24, 8, 12)
    torch.testing.assert_close(
        coarse, build_extractor("compact", head=tmp_path, **options)(images)[1], rtol=1e-4, atol=1e-4
    )
    expected = torch.stack([block.split(block(images)[1])[1] for block in blocks]).mean(0)
    torch.testing.assert_close(finer, expected, rtol=1e-4, atol=1e-4)


def test_a_frame_does_not_depend_on_its_batch(model, images, tmp_path):
    file = written(tmp_path, timesteps=(51, 261))
    extractor = build_extractor("compact", weights=model, head=file, noise="fresh", device="cpu", dtype="float32")
    together = extractor(images, indices=[4, 9])
    for place, index in enumerate([4, 9]):
        alone = extractor(images[place : place + 1], indices=[index])
        torch.testing.assert_close(together[place : place + 1], alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(extractor(images, indices=[5, 9])[0], together[0], atol=1e-3)


def test_the_whole_network_is_compiled(model, monkeypatch, tmp_path):
    """Layer by layer the compiler would soon give up: they share their code."""
    given: list[torch.nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda forward: given.append(forward.__self__) or forward)
    file = written(tmp_path, timesteps=(51, 261))
    extractor = build_extractor("compact", weights=model, head=file, device="cpu", compile=True)
    assert given == extractor.networks


def test_memory_can_be_estimated(model, tmp_path):
    """A call with tensors without content keeps none of them."""
    extractor = build_extractor("compact", weights=model, head=written(tmp_path), device="cpu")
    taken = [dry_run(lambda n=n: extractor(torch.empty(n, 3, 64, 96))).created for n in (1, 2)]
    assert taken[1] > 1.5 * taken[0]


def test_bfloat16_stays_close(model, images, tmp_path):
    file = written(tmp_path)
    exact, rough = (
        build_extractor("compact", weights=model, head=file, device="cpu", dtype=dtype)(images)
        for dtype in ("float32", "bfloat16")
    )
    assert F.cosine_similarity(exact, rough, dim=1).min() > 0.99


def test_a_head_for_other_weights_is_refused(model, tmp_path):
    file = written(tmp_path, {**CHANNELS, "up_blocks.1": 48})
    with pytest.raises(WeightsError, match=r"made for other weights: its up_blocks\.1 has 48 channels, the model's 32"):
        build_extractor("compact", weights=model, head=file, device="cpu")


def test_a_head_of_other_timesteps_says_which(model, tmp_path):
    file = written(tmp_path, timesteps=(261, 101))
    with pytest.raises(
        UsageError, match=r"features\.timestep = 51: .* was trained at 261, 101.*features\.timestep=261"
    ):
        build_extractor("compact", weights=model, head=file, device="cpu")


@pytest.mark.parametrize("block", [0, 1])
def test_a_head_of_a_later_block_says_so(model, block, tmp_path):
    with pytest.raises(UsageError, match=rf"reads up_blocks\..* features\.block ends at up_blocks\.{block}"):
        build_extractor("compact", weights=model, head=written(tmp_path), block=block, device="cpu")


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_a_missing_head_says_where_and_what_to_do(model, place, tmp_path):
    """Also in a folder without one."""
    with pytest.raises(WeightsError, match=r"There is no .*(nowhere|head\.safetensors).*features\.head"):
        build_extractor("compact", weights=model, head=tmp_path / place, device="cpu")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "no head of the compact model"),
        ({"config": "{"}, "its config is not JSON"),
        ({"config": "[]"}, "no head of the compact model"),
        ({"config": json.dumps({"layers": CHANNELS, "timesteps": [51], "projection": 24})}, "norm_groups"),
        (
            {"config": json.dumps({"layers": CHANNELS, "timesteps": [51], "projection": 24, "norm_groups": 4})},
            "4 norm groups do not divide 24 / 4 channels",
        ),
        (
            {"config": json.dumps({"layers": CHANNELS, "timesteps": [51], "projection": 32, "norm_groups": 2})},
            "should have the shape",
        ),
    ],
)
def test_a_file_that_is_no_head_is_refused(model, metadata, words, tmp_path):
    tensors = load_file(written(tmp_path))
    save_file(tensors, tmp_path / "other.safetensors", metadata=metadata)
    with pytest.raises(WeightsError, match=words):
        build_extractor("compact", weights=model, head=tmp_path / "other.safetensors", device="cpu")


def test_a_damaged_head_is_refused(model, tmp_path):
    (tmp_path / FILE).write_bytes(b"not a head")
    with pytest.raises(WeightsError, match="no head of the compact model"):
        build_extractor("compact", weights=model, head=tmp_path, device="cpu")
