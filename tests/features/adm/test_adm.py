from __future__ import annotations

import json
import math
import os
import pickle
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from propagate.errors import InputError, UsageError, WeightsError
from propagate.features import build_extractor
from propagate.features.adm.adm import cut_after, output_blocks
from propagate.features.adm.checkpoint import build_unet, convert_checkpoint, open_checkpoint, split_heads
from propagate.features.diffusion.core import linear_alphas_cumprod, run_until
from propagate.features.networks.loading import assign
from propagate.settings import load_settings
from tests.features.adm.guided_diffusion import Options, activations, random_state

TINY = Options(multipliers=(1, 1, 2), res_blocks=2, attention=(4,), head_channels=32)
# 256x256_diffusion_uncond.pt's options (guided-diffusion's README)
ADM_256 = {
    "out_channels": 6,
    "block_out_channels": (256, 256, 512, 512, 1024, 1024),
    "layers_per_block": 2,
    "down_block_types": ("ResnetDownsampleBlock2D",) * 3 + ("AttnDownBlock2D",) * 3,
    "up_block_types": ("AttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",) * 3,
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "attention_head_dim": 64,
    "norm_num_groups": 32,
    "attn_norm_num_groups": 32,
    "resnet_time_scale_shift": "scale_shift",
    "time_embedding_dim": 1024,
}


def save(folder: Path, options: Options = TINY, name: str = "model.pt") -> Path:
    torch.save(random_state(options), folder / name)
    return folder / name


def build(weights, options: Options = TINY, **changed):
    keywords = {"up_ft_index": 2, "ensemble_size": 1, "head_channels": options.head_channels, "device": "cpu"}
    return build_extractor("dift_adm", weights=str(weights), **{**keywords, **changed})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("adm"))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))


def check_every_block(path: Path, options: Options) -> None:
    noisy, timestep = torch.randn(1, 3, 16, 32, generator=torch.Generator().manual_seed(1)), 51
    wanted = activations(random_state(options), options, noisy, timestep)
    for index, expected in enumerate(wanted):
        unet, tensors = open_checkpoint(path, options.head_channels)
        blocks = output_blocks(unet)
        assert len(blocks) == len(wanted)
        assert (blocks[index].channels, 16 // blocks[index].stride) == expected.shape[1:3]
        tap = cut_after(unet, index)
        assign(unet, tensors, torch.float32, torch.device("cpu"))
        with torch.no_grad():
            found = run_until(tap, lambda unet=unet: unet(noisy, timestep))
        assert (found - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize(
    "options",
    [
        TINY,
        Options(base=64, multipliers=(1, 3), res_blocks=3, attention=(1,), head_channels=64),
        Options(multipliers=(1, 2, 2, 1), attention=(2, 8), head_channels=8, learn_sigma=False),
        Options(multipliers=(2, 1), head_channels=32, scale_shift=False),
        Options(multipliers=(1, 2, 1), attention=(1, 2), updown=False, res_blocks=2),
        Options(multipliers=(1, 2), attention=(), updown=False, scale_shift=False, learn_sigma=False),
        Options(base=64, multipliers=(0.5, 1), attention=(1, 2)),
        Options(multipliers=(2,), attention=(1,), res_blocks=2),
    ],
    ids=str,
)
def test_every_block_of_other_architectures_equals_the_slow_twin(options, tmp_path):
    check_every_block(save(tmp_path, options), options)


@settings(deadline=None, max_examples=8)
@given(
    options=st.builds(
        Options,
        multipliers=st.lists(st.sampled_from([1, 2, 3]), min_size=2, max_size=3).map(tuple),
        res_blocks=st.integers(1, 2),
        attention=st.sets(st.sampled_from([1, 2, 4])).map(tuple),
        head_channels=st.sampled_from([8, 16, 32]),
        scale_shift=st.booleans(),
        updown=st.booleans(),
        learn_sigma=st.booleans(),
    )
)
def test_any_architecture_equals_the_slow_twin(options, tmp_path_factory):
    check_every_block(save(tmp_path_factory.mktemp("any"), options), options)


def test_the_extractor_noises_and_averages(checkpoint, images):
    extractor = build(checkpoint, ensemble_size=2, timestep=261, seed=3, up_ft_index=4)
    kept = float(linear_alphas_cumprod()[261])
    total = torch.zeros(())
    for eps in torch.randn((2, 3, 24, 40), generator=torch.Generator().manual_seed(3)):
        noisy = math.sqrt(kept) * (2 * images[:1] - 1) + math.sqrt(1 - kept) * eps
        total = total + activations(random_state(TINY), TINY, noisy, 261)[4]
    found = extractor(images[:1])
    assert (found - total / 2).norm() / found.norm() < 1e-4


def test_a_frame_does_not_depend_on_its_batch(checkpoint, images):
    extractor = build(checkpoint, noise="fresh", ensemble_size=2)
    together = extractor(images, indices=[4, 7])
    torch.testing.assert_close(together[1:], extractor(images[1:], indices=[7]), atol=1e-4, rtol=1e-4)
    assert together.dtype == torch.float32
    assert not together.requires_grad


@pytest.mark.parametrize(
    "options",
    [{"timestep": 261}, {"seed": 1}, {"ensemble_size": 2}, {"noise": "antithetic", "ensemble_size": 2}],
    ids=str,
)
def test_every_option_changes_the_features(checkpoint, images, options):
    assert (build(checkpoint, **options)(images) - build(checkpoint)(images)).abs().max() > 1e-3


def test_bfloat16_stays_close(checkpoint, images):
    exact, rough = build(checkpoint)(images), build(checkpoint, dtype="bfloat16")(images)
    assert F.cosine_similarity(exact, rough, dim=1).mean() > 0.999


def test_safetensors_and_the_converted_folder_give_the_same(checkpoint, images, tmp_path):
    save_file(random_state(TINY), tmp_path / "model.safetensors")
    convert_checkpoint(checkpoint, tmp_path / "folder", TINY.head_channels)
    expected = build(checkpoint)(images)
    assert torch.equal(build(tmp_path / "model.safetensors")(images), expected)
    assert torch.equal(build(tmp_path / "folder", head_channels=None)(images), expected)
    # others can load it too
    assert UNet2DModel.from_pretrained(tmp_path / "folder").config.attention_head_dim == TINY.head_channels


@pytest.mark.parametrize("index", range(9))
def test_what_comes_after_the_block_is_neither_kept_nor_run(checkpoint, images, index):
    extractor = build(checkpoint, up_ft_index=index, ensemble_size=3)
    calls: list[str] = []
    for name, module in extractor.unet.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    extractor(images[:1])
    residual_blocks = [name for name in calls if re.fullmatch(r"up_blocks\.\d+\.resnets\.\d+", name)]
    assert len(residual_blocks) == 3 * (index + 1)  # once per draw of the noise
    kept = {name for name, module in extractor.unet.named_modules() if next(module.parameters(False), None) is not None}
    assert kept <= set(calls)  # nothing with weights is kept that did not run


def test_the_real_model_has_the_published_blocks_and_arithmetic():
    # guided-diffusion on the meta device: strides and channels, and floating-point operations of one pass at 480x832
    blocks = output_blocks(build_unet(ADM_256))
    assert [block.stride for block in blocks] == [32] * 2 + [16] * 3 + [8] * 3 + [4] * 3 + [2] * 3 + [1] * 4
    assert [block.channels for block in blocks] == [1024] * 6 + [512] * 6 + [256] * 6
    assert sum(parameter.numel() for parameter in build_unet(ADM_256).parameters()) == 552_814_086
    for index, gigaflop in [(4, 4065.0), (7, 4810.3), (8, 5233.6)]:
        unet = build_unet(ADM_256)
        tap = cut_after(unet, index)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            noisy, timestep = torch.empty(1, 3, 480, 832, device="meta"), torch.tensor([51], device="meta")
            run_until(tap, lambda unet=unet, noisy=noisy, timestep=timestep: unet(noisy, timestep))
        assert counter.get_total_flops() / 1e9 == pytest.approx(gigaflop, abs=0.06)


@pytest.mark.parametrize("preset", ["dift_adm_davis", "dift_adm_davis_compat", "dift_adm_jhmdb"])
def test_presets_name_options_that_there_are(preset, checkpoint):
    preset_settings = load_settings(preset)
    options = {**preset_settings.features.options, "up_ft_index": 2}  # the tiny model has fewer blocks
    extractor = build(checkpoint, **options)
    assert extractor.timestep == options["timestep"]
    assert preset_settings.features.name == "dift_adm"


@pytest.mark.parametrize("preset", ["dift_adm_davis", "dift_adm_davis_compat"])
def test_the_davis_presets_are_the_published_settings(preset):
    # DIFT README, DAVIS-2017, DIFT_adm
    chosen = load_settings(preset)
    features, propagation = chosen.features.options, chosen.propagation
    assert (features["timestep"], features["up_ft_index"], features["ensemble_size"]) == (51, 7, 4)
    assert (propagation.temperature, propagation.top_k) == (0.1, 10)
    assert (propagation.n_last, propagation.radius, propagation.window) == (28, 15, "square")
    assert chosen.video.short_side == 480


def test_splitting_the_heads_takes_the_legacy_order():
    q, k, v = split_heads(torch.arange(12.0), head_channels=2)
    assert (q.tolist(), k.tolist(), v.tolist()) == ([0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11])


def test_a_size_that_does_not_fit_is_named(checkpoint):
    with pytest.raises(ValueError, match=r"multiples of 4, not \(24, 42\)"):
        build(checkpoint)(torch.rand(1, 3, 24, 42))


def test_an_unknown_block_lists_the_blocks(checkpoint):
    with pytest.raises(UsageError, match=r"up_ft_index = 9.*0: stride 4, 64 channels;.*8: stride 1, 32 channels"):
        build(checkpoint, up_ft_index=9)


@pytest.mark.parametrize("head_channels", [48, 128])
def test_head_channels_that_do_not_divide(checkpoint, head_channels):
    with pytest.raises(UsageError, match=f"head_channels = {head_channels} does not divide the 64 channels"):
        build(checkpoint, head_channels=head_channels)


def test_head_channels_that_contradict_the_folder(checkpoint, tmp_path):
    convert_checkpoint(checkpoint, tmp_path / "folder", 32)
    with pytest.raises(UsageError, match="converted with 32"):
        build(tmp_path / "folder", head_channels=64)


@pytest.mark.parametrize(
    ("options", "message"),
    [(Options(classes=10), "class-conditional"), (Options(in_channels=6), "takes 6 input channels")],
)
def test_models_that_do_not_fit_are_refused(options, message, tmp_path):
    with pytest.raises(WeightsError, match=message):
        build(save(tmp_path, options), options)


def _flatten(state, name):
    state[name] = state[name].flatten()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("out.2.weight"), "not a whole guided-diffusion U-Net"),
        (lambda state: state.pop("middle_block.1.proj_out.bias"), "to_out.0.bias is missing"),
        (lambda state: _flatten(state, "middle_block.1.proj_out.weight"), "does not make a guided-diffusion U-Net"),
        (lambda state: _flatten(state, "middle_block.1.qkv.weight"), "does not make a guided-diffusion U-Net"),
        (lambda state: state.update({"model.diffusion_model.x": torch.zeros(1)}), "not a guided-diffusion U-Net"),
        (lambda state: state.update({"out.2.bias": torch.zeros(5)}), "conv_out.bias has the shape"),
        (lambda state: state.clear(), "not arranged"),
        (lambda state: [state.pop(name) for name in list(state) if name.startswith("input_blocks.3")], "not arranged"),
    ],
)
def test_other_state_dicts_are_refused(spoil, message, tmp_path):
    state = random_state(TINY)
    spoil(state)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=message):
        build(tmp_path / "model.pt")


class _Command:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_code_in_a_pickle_is_not_executed(write, tmp_path):
    write({**random_state(TINY), "extra": _Command(tmp_path / "executed")}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"model\.pt"):
        build(tmp_path / "model.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_truncated_files_are_refused(name, tmp_path):
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save(random_state(TINY), path)
    else:
        save_file(random_state(TINY), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=re.escape(name)):
        build(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere\.pt"):
        build(tmp_path / "nowhere.pt")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "is of a UNet2DConditionModel"),
        ({"_class_name": "UNet2DModel", "attention_head_dim": 32}, "config.json: down_block_types: Field required"),
    ],
)
def test_folders_of_something_else_are_refused(checkpoint, config, message, tmp_path):
    convert_checkpoint(checkpoint, tmp_path / "folder", 32)
    (tmp_path / "folder" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(WeightsError, match=message):
        build(tmp_path / "folder")


def test_a_converted_folder_without_weights_is_refused(checkpoint, tmp_path):
    convert_checkpoint(checkpoint, tmp_path / "folder", 32)
    (tmp_path / "folder" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"diffusion_pytorch_model\.safetensors"):
        build(tmp_path / "folder")


def test_conversion_leaves_existing_folders_alone(checkpoint, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="exists already"):
        convert_checkpoint(checkpoint, tmp_path / "folder", 32)
    assert (tmp_path / "folder" / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_conversion_that_fails_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    def full_disk(self, folder, **_):
        (Path(folder) / "config.json").write_text("{}", encoding="utf-8")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(UNet2DModel, "save_pretrained", full_disk)
    with pytest.raises(InputError, match="No space left"):
        convert_checkpoint(checkpoint, tmp_path / "folder", 32)
    assert list(tmp_path.iterdir()) == []


def test_conversion_of_something_else_leaves_nothing(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"nothing")
    with pytest.raises(WeightsError):
        convert_checkpoint(tmp_path / "model.pt", tmp_path / "folder", 32)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_draws_can_share_a_pass(checkpoint):
    images = torch.rand(2, 3, 32, 48)
    options = {"ensemble_size": 3, "noise": "fresh"}
    one, together = build(checkpoint, **options), build(checkpoint, **options, draws_per_pass=2)
    batches: list[int] = []
    together.unet.conv_in.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    torch.testing.assert_close(together(images, [3, 5]), one(images, [3, 5]), rtol=1e-4, atol=1e-4)
    assert batches == [4, 2]
