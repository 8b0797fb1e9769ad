from __future__ import annotations

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from propagate.errors import UsageError, WeightsError
from propagate.features import FeatureExtractor, build_extractor
from propagate.features.diffusion.core import Noise
from propagate.settings import load_settings
from tests.features.stable_diffusion.tiny_pipelines import SD_TINY, write_pipeline

# all unlike Stable Diffusion 2.1: levels, channels, layers, heads, places of attention, the VAE's factor, its latents
SHAPES = {
    "three levels, factor 4": (
        {
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": (24, 36, 60),
            "norm_num_groups": 6,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "attention_head_dim": (2, 3, 5),
            "cross_attention_dim": 20,
            "use_linear_projection": False,
        },
        {
            "block_out_channels": (8, 16, 16),
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
            "norm_num_groups": 4,
            "latent_channels": 3,
            "scaling_factor": 0.31,
        },
    ),
    "five levels, factor 2": (
        {
            "block_out_channels": (8, 8, 16, 16, 24),
            "norm_num_groups": 4,
            "down_block_types": ("CrossAttnDownBlock2D",) * 4 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 4,
            "layers_per_block": 2,
            "attention_head_dim": 4,
            "cross_attention_dim": 20,
            "use_linear_projection": True,
        },
        {
            "block_out_channels": (8, 16),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "norm_num_groups": 8,
        },
    ),
}
TEXT = {"hidden_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 30}
SIZES = [(48, 64), (44, 100), (36, 52)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module", params=SHAPES)
def folder(request, tmp_path_factory):
    unet, vae = SHAPES[request.param]
    return write_pipeline(tmp_path_factory.mktemp("pipeline"), unet=unet, vae=vae, text=TEXT)


def build(weights=SD_TINY, **options) -> FeatureExtractor:
    return build_extractor("dift_sd", **{"weights": str(weights), "ensemble_size": 2, "device": "cpu"} | options)


def pictures(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height + width))


def test_every_block_of_other_models_at_any_size(folder):
    """Against the whole networks as diffusers loads and runs them."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False).eval()
    vae = AutoencoderKL.from_pretrained(folder / "vae", low_cpu_mem_usage=False).eval()
    outputs = {}
    for place, block in enumerate(unet.up_blocks):
        block.register_forward_hook(lambda _module, _inputs, output, place=place: outputs.update({place: output}))
    kept = DDIMScheduler.from_pretrained(folder / "scheduler").alphas_cumprod[261]
    prompt = build(folder).model.condition
    for place in range(len(unet.up_blocks)):
        extractor = build(folder, up_ft_index=place, timestep=261, ensemble_size=1, seed=3)
        assert extractor.multiple == 2 ** (len(vae.config.block_out_channels) - 1)
        for size in SIZES:
            images = pictures(*size)
            with torch.no_grad():
                latents = vae.encode(images * 2 - 1).latent_dist.mean * vae.config.scaling_factor
                noise = Noise(1, seed=3).draw(tuple(latents.shape[1:]))
                unet(kept.sqrt() * latents + (1 - kept).sqrt() * noise, torch.tensor([261]), prompt)
            found = extractor(images)
            assert found.shape[1:] == (extractor.channels, *(-(-side // extractor.stride) for side in size))
            torch.testing.assert_close(found, outputs[place], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", range(4))
def test_only_what_is_needed_is_in_memory(block):
    model = build(up_ft_index=block).model
    parts = {name.split(".")[0] for name, _ in model.unet.named_parameters()}
    assert parts == {"conv_in", "time_embedding", "down_blocks", "mid_block", "up_blocks"}
    held = {int(name.split(".")[1]) for name, _ in model.unet.named_parameters() if name.startswith("up_blocks")}
    assert held == set(range(block + 1))
    assert {name.split(".")[0] for name, _ in model.vae.named_parameters()} == {"encoder", "quant_conv"}
    assert not any(parameter.is_meta for network in (model.unet, model.vae) for parameter in network.parameters())


def test_the_network_stops_at_the_block_and_the_frame_is_encoded_once():
    extractor = build(up_ft_index=1, ensemble_size=3)
    calls = {"encoder": 0, "block 0": 0, "block 1": 0, "block 2": 0, "block 3": 0}

    def count(name):
        return lambda *_: calls.update({name: calls[name] + 1})

    extractor.model.vae.encoder.register_forward_hook(count("encoder"))
    for place, block in enumerate(extractor.model.unet.up_blocks):
        # before the block runs: the tapped one's end is where the pass is left
        block.register_forward_pre_hook(count(f"block {place}"))
    for _ in range(2):
        extractor(pictures(64, 96))
    assert calls == {"encoder": 2, "block 0": 6, "block 1": 6, "block 2": 0, "block 3": 0}


@pytest.mark.parametrize(("noise", "latents"), [("shared", "mode"), ("fresh", "sample"), ("antithetic", "sample")])
def test_features_depend_neither_on_the_batch_nor_on_the_passes(noise, latents):
    images = pictures(64, 96, count=3)
    options = {"noise": noise, "latents": latents, "ensemble_size": 3, "up_ft_index": 1}
    one, all_at_once = build(**options, draws_per_pass=1), build(**options, draws_per_pass=3)
    expected = one(images, indices=[4, 7, 9])
    torch.testing.assert_close(all_at_once(images, indices=[4, 7, 9]), expected, rtol=1e-3, atol=1e-4)
    for place, index in enumerate([4, 7, 9]):
        alone = one(images[place : place + 1], indices=[index])
        torch.testing.assert_close(alone, expected[place : place + 1], rtol=1e-3, atol=1e-4)
    assert torch.equal(one(images, indices=[4, 7, 9]), expected)
    moved = one(images, indices=[5, 7, 9])[0]
    assert torch.equal(moved, expected[0]) == (noise != "fresh")


@pytest.mark.parametrize(
    "options",
    [
        {"timestep": 261},
        {"seed": 1},
        {"ensemble_size": 3},
        {"prompt": "a photo of a dog"},
        {"latents": "sample"},
        {"noise": "antithetic"},
    ],
)
def test_every_option_changes_the_features(options):
    images = pictures(64, 96)
    plain, other = build()(images), build(**options)(images)
    assert (other - plain).norm() / plain.norm() > 1e-2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_close(dtype):
    images = pictures(64, 96)
    exact, rough = build(up_ft_index=1)(images), build(up_ft_index=1, dtype=dtype)(images)
    assert rough.dtype == torch.float32
    assert F.cosine_similarity(exact, rough, dim=1).min() > 0.99


def test_an_unknown_block_lists_the_blocks():
    with pytest.raises(UsageError) as error:
        build(up_ft_index=4)
    assert error.value.message == "features.up_ft_index = 4: there is no such block."
    assert error.value.remedy == (
        "Blocks: 0: stride 32, 48 channels; 1: stride 16, 48 channels; 2: stride 8, 32 channels; "
        "3: stride 8, 16 channels."
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timestep": 1000}, "features.timestep = 1000: the model's noise schedule has 1000 steps. Choose 0 to 999."),
        ({"multiple": 12}, "features.multiple = 12: the model takes multiples of 8 pixels."),
        ({"latents": "mean"}, "features.latents = 'mean'"),
        ({"noise": "white"}, "features.noise = 'white'"),
        ({"ensemble_size": 0}, "features.ensemble_size = 0"),
        ({"dtype": "int8"}, "features.dtype = 'int8'"),
        ({"block": 2}, "features.block: dift_sd has no such option."),
    ],
)
def test_a_wrong_option_is_explained(options, words):
    with pytest.raises(UsageError) as error:
        build(**options)
    assert words in str(error.value)


def test_a_size_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"multiples of 8, not \(64, 90\)"):
        build()(torch.rand(1, 3, 64, 90))


@pytest.fixture
def broken(tmp_path):
    """A copy of a good pipeline, to be damaged."""
    return shutil.copytree(SD_TINY, tmp_path / "pipeline", copy_function=shutil.copyfile)


def edit(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def refused(folder) -> str:
    with pytest.raises(WeightsError) as error:
        build(folder)
    assert error.value.remedy
    return str(error.value)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("unet", "is not a Stable Diffusion pipeline: it has no unet folder"),
        ("unet/config.json", "config.json"),
        ("unet/diffusion_pytorch_model.safetensors", "has a config but no weights"),
        ("vae", "config.json"),
        ("scheduler", "scheduler_config.json"),
        ("tokenizer", "holds no CLIP tokenizer"),
        ("text_encoder", "has no text encoder, and no earlier run left the embedding of the prompt ''"),
    ],
)
def test_what_is_missing_is_named(broken, missing, words):
    shutil.move(broken / missing, broken / "elsewhere")
    assert words in refused(broken)


@pytest.mark.parametrize(
    ("component", "changes", "words"),
    [
        ("unet", {"cross_attention_dim": 24}, "is conditioned on 24 channels, the text encoder gives 32"),
        ("unet", {"block_out_channels": [16, 32, 48, 56]}, "has the shape"),
        (
            "unet",
            {"addition_embed_type": "text_time", "addition_time_embed_dim": 8},
            "addition_embed_type = 'text_time' is not supported",
        ),
        ("unet", {"in_channels": 9}, "takes 9 channels, the VAE gives 4"),
        ("unet", {"norm_num_groups": 7}, "does not make a UNet2DConditionModel (ValueError"),
        ("unet", {"_class_name": "FluxTransformer2DModel"}, "of a FluxTransformer2DModel, not of a UNet2DCondition"),
        ("vae", {"layers_per_block": 1}, "does not belong there"),
        ("vae", {"_class_name": "AutoencoderTiny"}, "of a AutoencoderTiny, not of a AutoencoderKL"),
        ("text_encoder", {"num_hidden_layers": 4}, "is missing"),
        ("text_encoder", {"hidden_act": "swoosh"}, "hidden_act = 'swoosh'"),
    ],
)
def test_weights_of_another_architecture_are_refused(broken, component, changes, words):
    if changes.get("addition_embed_type"):
        changes = changes | {"projection_class_embeddings_input_dim": 32}
    edit(broken / component / "config.json", **changes)
    assert words in refused(broken)


@pytest.mark.parametrize("component", ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"])
def test_a_truncated_file_is_named(broken, component):
    path = broken / f"{component}.safetensors"
    path.write_bytes(path.read_bytes()[:50_000])
    assert f"{path} is damaged" in refused(broken)


def test_a_damaged_config_is_named(broken):
    (broken / "unet" / "config.json").write_text("{", encoding="utf-8")
    assert "is not JSON" in refused(broken)


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WeightsError, match="nowhere"):
        build(tmp_path / "nowhere")


def test_shards_and_half_precision_variants_are_found(broken):
    images = pictures(64, 96)
    expected = build()(images)
    unet, vae = broken / "unet", broken / "vae"
    whole = unet / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    shards = {"part-1.safetensors": names[::2], "part-2.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, unet / shard)
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (vae / "diffusion_pytorch_model.safetensors").rename(vae / "diffusion_pytorch_model.fp16.safetensors")
    assert torch.equal(build(broken)(images), expected)


@pytest.mark.parametrize("preset", ["dift_sd_davis", "dift_sd_davis_compat", "dift_sd_jhmdb"])
def test_presets(preset):
    settings = load_settings(preset, [f"features.weights={SD_TINY}", "features.device=cpu"])
    extractor = build_extractor(settings.features.name, **settings.features.options)
    assert (extractor.stride, extractor.multiple) == (8, 32)


def test_the_davis_preset_is_the_published_one():
    """PROTOCOLS section 5: the table from DIFT's README."""
    settings = load_settings("dift_sd_davis")
    features, propagation = settings.features.options, settings.propagation
    assert (features["timestep"], features["up_ft_index"], features["ensemble_size"]) == (51, 2, 8)
    assert (propagation.temperature, propagation.top_k, propagation.n_last, propagation.radius) == (0.2, 15, 28, 15)
    compat = load_settings("dift_sd_davis_compat")
    assert compat.propagation == propagation.model_copy(update={"ties": "keep"})
    assert (compat.labels.masks.codec, compat.video.short_side) == ("dift", 480)
