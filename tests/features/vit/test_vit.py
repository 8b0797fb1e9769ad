from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from propagate.errors import UsageError, WeightsError
from propagate.features import build_extractor
from propagate.features.vit.vit import VisionTransformer
from propagate.geometry import working_size
from propagate.pipeline import track
from propagate.planning.dry_run import dry_run
from propagate.settings import load_settings
from propagate.types import Mask
from tests.places import PARITY_DATA

DATA = PARITY_DATA / "vit_tiny_0"
FOLDERS = {"dino": "dino_hf", "dinov2": "dinov2_hf", "dinov3": "dinov3_hf", "openclip": "clip_hf"}

# widths, depths, patches, heads and registers other than those of the parity data
SIZES = {"hidden_size": 40, "num_attention_heads": 2, "num_hidden_layers": 4}
OTHERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dino": ("ViTModel", "ViTConfig", SIZES | {"intermediate_size": 60, "patch_size": 6, "image_size": 30}),
    "dinov2": ("Dinov2Model", "Dinov2Config", SIZES | {"patch_size": 10, "image_size": 70, "use_swiglu_ffn": True}),
    "registers": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        SIZES | {"patch_size": 9, "image_size": 63, "num_register_tokens": 7},
    ),
    "dinov3": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        SIZES | {"intermediate_size": 60, "patch_size": 12, "num_register_tokens": 1, "use_gated_mlp": True},
    ),
    "openclip": (
        "CLIPVisionModel",
        "CLIPVisionConfig",
        SIZES | {"intermediate_size": 60, "patch_size": 11, "image_size": 55, "hidden_act": "quick_gelu"},
    ),
}


def build(name: str, weights: Any = None, **options: Any) -> VisionTransformer:
    weights = DATA / FOLDERS[name] if weights is None else weights
    extractor = build_extractor(name, **{"weights": weights, "device": "cpu"} | options)
    assert isinstance(extractor, VisionTransformer)
    return extractor


def pictures(extractor: VisionTransformer, rows: int = 3, columns: int = 5) -> torch.Tensor:
    size = (2, 3, rows * extractor.stride, columns * extractor.stride)
    return torch.rand(size, generator=torch.Generator().manual_seed(0))


def written(kind: str, folder: Path) -> tuple[Any, Path]:
    """A random network of transformers, every parameter away from its start, and the folder it was saved to."""
    network, config, options = OTHERS[kind]
    torch.manual_seed(1)
    keywords = {"add_pooling_layer": False} if kind == "dino" else {}
    model = getattr(transformers, network)(getattr(transformers, config)(**options), **keywords).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the tiny DINO, to be damaged."""
    return Path(shutil.copytree(DATA / "dino_hf", tmp_path / "model"))


def change_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("layer", [0, 2, 3])
def test_the_tokens_are_those_of_transformers(kind, layer, tmp_path):
    model, folder = written(kind, tmp_path)
    name = "dinov2" if kind == "registers" else kind
    # without the offset; positions of DINOv3 are a matter of the network
    extractor = build(name, folder, layer=layer, norm=False, **({} if name == "dinov3" else {"position_offset": 0}))
    images = pictures(extractor)
    told = {"interpolate_pos_encoding": True} if name in ("dino", "openclip") else {}
    with torch.no_grad():
        hidden = model(extractor.normalized(images), output_hidden_states=True, **told).hidden_states[layer + 1]
    found = extractor(images).flatten(2).transpose(1, 2)
    special = {"registers": 8, "dinov3": 2}.get(kind, 1)
    torch.testing.assert_close(found, hidden[:, special:], atol=1e-4, rtol=1e-4)
    assert (extractor.channels, extractor.stride) == (40, OTHERS[kind][2]["patch_size"])


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("facet", ["key", "query", "value"])
def test_facets_are_what_the_attention_makes(kind, facet, tmp_path):
    model, folder = written(kind, tmp_path)
    name = "dinov2" if kind == "registers" else kind
    seen = []
    projections = [module for path, module in model.named_modules() if path.endswith(f".{facet[0]}_proj")]
    projections[1].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    extractor = build(name, folder, layer=1, facet=facet, **({} if name == "dinov3" else {"position_offset": 0}))
    images = pictures(extractor, 4, 4)
    with torch.no_grad():
        model(
            extractor.normalized(images),
            **({"interpolate_pos_encoding": True} if name in ("dino", "openclip") else {}),
        )
    found = extractor(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, seen[0][:, -16:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FOLDERS)
def test_what_comes_after_the_layer_is_not_kept(name):
    first, second = build(name, layer=0), build(name, layer=1)
    assert dry_run(lambda: first(pictures(first))).given < dry_run(lambda: second(pictures(second))).given
    sizes = [sum(value.numel() for value in kept.network.state_dict().values()) for kept in (first, second)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("name", FOLDERS)
def test_an_estimate_of_memory_leaves_nothing_behind(name):
    extractor = build(name)
    dry_run(lambda: extractor(torch.empty(1, 3, extractor.stride * 7, extractor.stride * 5)))
    features = extractor(torch.zeros(1, 3, extractor.stride * 7, extractor.stride * 5))
    assert type(features) is torch.Tensor
    assert features.isfinite().all()


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.005), ("bfloat16", 0.04)])
def test_half_precision_is_near_and_comes_out_as_float32(name, dtype, tolerance):
    images = pictures(build(name))
    full, half = build(name)(images), build(name, dtype=dtype)(images)
    assert half.dtype == torch.float32
    assert (half - full).norm() / full.norm() < tolerance
    assert not torch.equal(half, full)


def test_auto_is_float32_on_a_cpu_and_what_half_precision_is():
    assert build("dino").dtype == torch.float32
    halves = {name: build(name).family.half for name in FOLDERS}
    assert halves == {
        "dino": torch.float16,
        "dinov2": torch.float16,
        "dinov3": torch.bfloat16,
        "openclip": torch.float16,
    }


@pytest.mark.parametrize("name", FOLDERS)
def test_attention_is_the_fused_one(name, monkeypatch):
    calls = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k)
    )
    extractor = build(name)
    extractor(pictures(extractor))
    assert calls


def test_colors_are_the_preprocessors_then_the_familys_and_an_option_goes_before(folder):
    grey = torch.full((1, 3, 8, 8), 0.5)
    expected = (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(build("dino", folder).normalized(grey)[0, :, 0, 0], expected)
    # DINOv3's weights of satellite pictures
    satellite = {"image_mean": [0.43, 0.411, 0.296], "image_std": [0.213, 0.156, 0.143]}
    (folder / "preprocessor_config.json").write_text(json.dumps(satellite), encoding="utf-8")
    expected = (0.5 - torch.tensor(satellite["image_mean"])) / torch.tensor(satellite["image_std"])
    torch.testing.assert_close(build("dino", folder).normalized(grey)[0, :, 0, 0], expected)
    chosen = build("dino", folder, mean=[0.5, 0.5, 0.5], std=[0.5, 0.25, 1])
    assert chosen.normalized(torch.ones(1, 3, 8, 8))[0, :, 0, 0].tolist() == [1, 2, 0.5]


def test_a_training_checkpoint_of_dino_is_its_teacher(tmp_path):
    plain = torch.load(DATA / "dino_original_state_dict.pth", weights_only=True)
    networks = {
        "student": {f"module.backbone.{name}": torch.zeros_like(value) for name, value in plain.items()},
        "teacher": {f"backbone.{name}": value for name, value in plain.items()} | {"head.mlp.0.weight": torch.ones(2)},
        "args": argparse.Namespace(arch="vit_tiny", lr=0.1),
        "epoch": 3,
    }
    torch.save(networks, tmp_path / "checkpoint.pth")
    extractor = build("dino", tmp_path / "checkpoint.pth", head_channels=16)
    assert torch.equal(extractor(pictures(extractor)), build("dino")(pictures(extractor)))


def test_a_checkpoint_whose_heads_cannot_be_told():
    with pytest.raises(UsageError, match=r"features\.head_channels = 64: .*48 channels.*name the channels of one"):
        build("dino", DATA / "dino_original_state_dict.pth")


def test_heads_that_a_folder_contradicts():
    with pytest.raises(UsageError, match=r"features\.head_channels = 8: the config of .* says 16"):
        build("dinov2", head_channels=8)


def test_clip_with_its_text_tower(tmp_path):
    """As the repositories on the hub have it: nested config, prefixed names, weights of the text tower beside."""
    tensors = {
        f"vision_model.{name}": value for name, value in load_file(DATA / "clip_hf" / "model.safetensors").items()
    }
    tensors |= {"text_model.final_layer_norm.weight": torch.ones(7), "logit_scale": torch.ones(())}
    tensors |= {"visual_projection.weight": torch.ones(2, 48), "text_projection.weight": torch.ones(2, 7)}
    save_file(tensors, tmp_path / "model.safetensors")
    config = {"model_type": "clip", "vision_config": json.loads((DATA / "clip_hf" / "config.json").read_text("utf-8"))}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    extractor = build("openclip", tmp_path)
    assert torch.equal(extractor(pictures(extractor)), build("openclip")(pictures(extractor)))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("dino", {"layer": 3}, r"features\.layer = 3: the model has 3 blocks\. Choose 0 to 2, or -1 for the last"),
        ("dino", {"layer": -4}, r"features\.layer = -4"),
        ("dino", {"multiple": 12}, r"features\.multiple = 12: .* takes multiples of 8 pixels\. Choose a multiple of 8"),
        ("dino", {"variant": "vits9"}, r"features\.variant = vits9: there is no such model\. Did you mean vits"),
        ("dino", {"facet": "key", "norm": True}, r"features\.norm = true: a key is never normed"),
        ("dino", {"facet": "keys"}, r"features\.facet = 'keys'"),
        ("dino", {"std": [0.2, 0.2, 0]}, r"features\.std"),
        ("dinov3", {"position_offset": 0.1}, r"features\.position_offset = 0\.1: .* no learned positions"),
    ],
)
def test_an_option_that_does_not_fit_is_explained(name, options, words):
    with pytest.raises(UsageError, match=words):
        build(name, **options)


def test_a_multiple_of_the_patch():
    assert build("dinov2", multiple=28).multiple == 28


@pytest.mark.parametrize("size", [(16, 17), (15, 16), (4, 8)])
def test_a_size_that_does_not_fit_is_named(size):
    with pytest.raises(ValueError, match=rf"sides must be multiples of 8, not \({size[0]}, {size[1]}\)"):
        build("dino")(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(("name", "other"), [("dino", "dinov2"), ("dinov2", "dinov3"), ("openclip", "dino")])
def test_a_model_of_another_family_is_refused(name, other):
    with pytest.raises(WeightsError, match=r"holds a model of the kind .*, not of .*Check features\.name"):
        build(name, DATA / FOLDERS[other])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 2}, r"does not belong there"),
        ({"num_hidden_layers": 4}, r"is missing"),
        ({"patch_size": 16}, r"has the shape"),
        ({"intermediate_size": 100}, r"has the shape"),
        ({"hidden_size": 50}, r"num_attention_heads = 3 does not divide hidden_size = 50"),
        ({"hidden_size": "wide"}, r"hidden_size = 'wide'"),
        ({"num_attention_heads": -3}, r"num_attention_heads = -3"),
        ({"image_size": -42}, r"image_size = -42"),
        ({"num_hidden_layers": 2_000_000}, r"num_hidden_layers = 2000000"),
        ({"intermediate_size": 200_000}, r"describes \d+ values, and the files hold fewer"),
        ({"num_channels": 1}, r"num_channels = 1"),
    ],
)
def test_weights_of_another_variant_are_refused(folder, changes, words):
    with pytest.raises(WeightsError, match=words) as error:
        build("dino", change_config(folder, **changes))
    assert str(folder) in error.value.message


def test_a_truncated_file_is_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        build("dino", folder)


@pytest.mark.parametrize(
    ("name", "words"), [("config.json", "has no config.json"), ("model.safetensors", "no weights")]
)
def test_a_missing_file_is_named(folder, name, words):
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=words):
        build("dino", folder)


class Greeting:
    """Would print when unpickled without care."""

    def __reduce__(self):
        return print, ("hello",)


def test_a_pickle_with_code_is_not_run(tmp_path, capsys):
    torch.save({"teacher": Greeting()}, tmp_path / "dino.pth")
    with pytest.raises(WeightsError, match=r"dino\.pth is a pickle with more than tensors"):
        build("dino", tmp_path / "dino.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"conv1.weight": torch.zeros(2)}, "is not a vision transformer of DINO: it has no pos_embed"),
        ([1, 2], "holds no state dict"),
    ],
)
def test_a_checkpoint_of_something_else(tmp_path, content, words):
    torch.save(content, tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match=words):
        build("dino", tmp_path / "resnet.pth")


@pytest.mark.parametrize("damage", ["a tensor less", "a tensor of another shape", "one too many"])
def test_a_checkpoint_with_a_gap(tmp_path, damage):
    tensors = torch.load(DATA / "dino_original_state_dict.pth", weights_only=True)
    if damage == "a tensor less":
        del tensors["blocks.1.attn.proj.weight"]
    elif damage == "a tensor of another shape":
        tensors["blocks.1.mlp.fc2.weight"] = torch.zeros(48, 100)
    else:
        tensors["blocks.1.ls1.gamma"] = torch.zeros(48)
    torch.save(tensors, tmp_path / "dino.pth")
    with pytest.raises(WeightsError, match=r"dino\.pth does not hold the weights of its config's ViTModel: .*1"):
        build("dino", tmp_path / "dino.pth", head_channels=16)


@pytest.mark.parametrize("name", FOLDERS)
def test_without_weights_and_offline_it_says_where_they_are(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(WeightsError, match=r"is not on this machine, and downloads are off") as error:
        build_extractor(name, device="cpu")
    licence = "licence has to be accepted first, on the hub's page of the repository facebook/dinov3-vitb16-pretrain"
    assert (licence in error.value.remedy) == (name == "dinov3")


def test_loading_prints_nothing(capfd):
    build("dino")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("frame", "expected"),
    [((480, 854), (480, 832)), ((480, 910), (480, 896)), ((480, 1152), (480, 1152)), ((854, 480), (832, 480))],
)
def test_the_dino_preset_looks_at_frames_as_the_script_does(frame, expected):
    video = load_settings("dino_davis").video
    assert working_size(frame, multiple=16, **video.sizing) == expected
    assert working_size(frame, multiple=8, **video.sizing) == expected


def test_the_dino_preset_is_the_published_settings():
    chosen = load_settings("dino_davis")
    propagation = chosen.propagation
    assert (propagation.n_last, propagation.top_k, propagation.temperature) == (7, 5, 0.1)
    assert (propagation.window, propagation.radius, propagation.ties) == ("square", 12, "keep")
    assert chosen.labels.masks.codec == "dift"
    assert chosen.features.options["std"] == [0.228, 0.224, 0.225]


def test_the_dinov3_preset_is_the_notebooks_settings():
    chosen = load_settings("dinov3_davis")
    propagation = chosen.propagation
    assert (propagation.n_last, propagation.top_k, propagation.temperature) == (7, 5, 0.2)
    distances = np.sqrt(np.unique(np.add.outer(np.arange(14) ** 2, np.arange(14) ** 2)))
    assert propagation.window == "circle"
    assert set(distances[distances < propagation.radius]) == set(distances[distances <= 12])


def test_a_run_with_the_dino_preset_has_the_scripts_grid():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 100, 230, 3), dtype=np.uint8)
    ids = np.zeros((100, 230), np.uint8)
    ids[30:70, 40:120] = 1
    chosen = [f"features.weights={DATA / 'dino_hf'}", "features.device=cpu", "video.short_side=128", "output.soft=true"]
    settings = load_settings("dino_davis", [*chosen, "max_memory=2GB"])
    predictions = list(track(pixels, Mask(ids), settings=settings))
    assert [prediction.soft.shape for prediction in predictions] == [(2, 16, 32)] * 3  # 294 down to 256
    assert [prediction.mask.size for prediction in predictions] == [(100, 230)] * 3


@pytest.mark.parametrize("name", ["dino", "dinov2", "dinov3"])
def test_presets_name_options_that_there_are(name):
    chosen = load_settings(f"{name}_davis")
    assert chosen.features.name == name
    build(name, **{**chosen.features.options, "weights": DATA / FOLDERS[name]})
