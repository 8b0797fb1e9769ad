from __future__ import annotations

import io
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from propagate.errors import WeightsError
from propagate.features import build_extractor
from propagate.features.stable_diffusion.pipeline_files import open_pipeline
from tests.features.stable_diffusion.tiny_pipelines import SD_TINY, original_layout, write_pipeline

# what cannot be read from tensors is as in the published model: norms of 32 groups, heads of 64 channels
UNET = {
    "block_out_channels": (64, 128, 128),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "attention_head_dim": (1, 2, 2),
    "use_linear_projection": True,
}
VAE = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "latent_channels": 4,
}
TEXT = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 96,
    "max_position_embeddings": 16,
    "hidden_act": "gelu",
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("pipeline"), unet=UNET, vae=VAE, text=TEXT)


@pytest.fixture(scope="module")
def tensors(folder):
    return {name: value.contiguous() for name, value in original_layout(folder, UNET["layers_per_block"]).items()}


@pytest.fixture(scope="module")
def checkpoint(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 20, 36, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("block", range(3))
def test_a_checkpoint_gives_what_its_folder_gives(folder, checkpoint, image, block):
    options = {"up_ft_index": block, "ensemble_size": 2, "device": "cpu"}
    expected = build_extractor("dift_sd", weights=str(folder), **options)
    found = build_extractor("dift_sd", weights=str(checkpoint), **options)
    assert (found.stride, found.channels, found.multiple) == (expected.stride, expected.channels, 2)
    torch.testing.assert_close(found(image), expected(image), rtol=1e-4, atol=1e-5)


def test_the_scheduler_of_the_configs_folder_counts(folder, checkpoint, tmp_path):
    configs = shutil.copytree(folder, tmp_path / "configs")
    plain = open_pipeline(checkpoint, config=configs).alphas_cumprod
    (configs / "scheduler" / "scheduler_config.json").write_text('{"num_train_timesteps": 7}', encoding="utf-8")
    assert open_pipeline(checkpoint, config=configs).alphas_cumprod.shape == (7,)
    shutil.rmtree(configs / "scheduler")
    assert torch.equal(open_pipeline(checkpoint, config=configs).alphas_cumprod, plain)


def test_what_a_text_encoders_config_leaves_out_has_the_librarys_default(folder, checkpoint, tmp_path):
    configs = shutil.copytree(folder, tmp_path / "configs")
    (configs / "text_encoder" / "config.json").write_text("{}", encoding="utf-8")
    shutil.rmtree(configs / "tokenizer")
    with pytest.raises(WeightsError, match="does not hold the weights of its config's CLIPTextModel"):
        build_extractor("dift_sd", weights=str(checkpoint), config=configs, device="cpu")


def test_stable_diffusion_1(tmp_path, image):
    """OpenAI's CLIP, convolutions around the attention, 8 heads, and the end token for padding."""
    unet = UNET | {"use_linear_projection": False, "attention_head_dim": 8}
    folder = write_pipeline(tmp_path / "pipeline", unet=unet, vae=VAE, text=TEXT | {"hidden_act": "quick_gelu"})
    special = folder / "tokenizer" / "special_tokens_map.json"
    special.write_text(special.read_text(encoding="utf-8").replace('"!"', '"<|endoftext|>"'), encoding="utf-8")
    tensors = original_layout(folder, UNET["layers_per_block"])
    tensors = {name: value for name, value in tensors.items() if not name.startswith("cond_stage_model.")}
    text = load_file(folder / "text_encoder" / "model.safetensors")
    prefix = "cond_stage_model.transformer.text_model."
    tensors |= {prefix + name.removeprefix("text_model."): value for name, value in text.items()}
    tensors[f"{prefix}embeddings.position_ids"] = torch.arange(16)[None]
    path = tmp_path / "model.safetensors"
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    options = {"up_ft_index": 1, "ensemble_size": 1, "device": "cpu"}
    expected = build_extractor("dift_sd", weights=str(folder), **options)(image)
    found = build_extractor("dift_sd", weights=str(path), **options)(image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_prompt_needs_the_tokenizer_of_a_folder(folder, checkpoint, image):
    options = {"prompt": "a photo of a dog", "ensemble_size": 1, "device": "cpu"}
    with pytest.raises(
        WeightsError, match=r"features\.prompt = 'a photo of a dog': a checkpoint file has no tokenizer"
    ):
        build_extractor("dift_sd", weights=str(checkpoint), **options)
    expected = build_extractor("dift_sd", weights=str(folder), **options)(image)
    found = build_extractor("dift_sd", weights=str(checkpoint), config=folder, **options)(image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_configs_of_a_folder_go_before_what_is_inferred(tmp_path, image):
    """Groups of 8 and heads of 8 channels, which no tensor tells."""
    path = tmp_path / "tiny.ckpt"
    vae_folder = tmp_path / "pipeline"
    shutil.copytree(SD_TINY, vae_folder)
    vae = load_file(SD_TINY / "vae" / "diffusion_pytorch_model.safetensors")
    renamed = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    for old, new in renamed.items():
        vae = {name.replace(f"attentions.0.{old}.", f"attentions.0.{new}."): value for name, value in vae.items()}
    save_file(vae, vae_folder / "vae" / "diffusion_pytorch_model.safetensors")
    torch.save({"state_dict": original_layout(vae_folder, 2), "global_step": 3}, path)
    with pytest.raises(WeightsError, match=r"features\.config"):
        build_extractor("dift_sd", weights=str(path), device="cpu")
    images = image.repeat(1, 1, 4, 2)[..., :64]
    options = {"up_ft_index": 1, "ensemble_size": 1, "device": "cpu"}
    found = build_extractor("dift_sd", weights=str(path), config=SD_TINY, **options)(images)
    torch.testing.assert_close(
        found, build_extractor("dift_sd", weights=str(SD_TINY), **options)(images), rtol=1e-4, atol=1e-5
    )


def test_nothing_is_fetched(checkpoint, monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert build_extractor("dift_sd", weights=str(checkpoint), device="cpu").channels == 64


class Trap:
    """Unpickling it would call `open` and leave a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, plain):
    path, trace = tmp_path / "model.ckpt", tmp_path / "trace"
    if plain:
        path.write_bytes(pickle.dumps({"state_dict": Trap(str(trace))}))
    else:
        buffer = io.BytesIO()
        torch.save({"state_dict": {"a": torch.zeros(1)}, "callbacks": Trap(str(trace))}, buffer)
        path.write_bytes(buffer.getvalue())
    with pytest.raises(WeightsError, match="a pickle can run code"):
        build_extractor("dift_sd", weights=str(path), device="cpu")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conditioner.embedders.1.model.ln_final.weight": torch.zeros(4)}, "of another architecture (SDXL"),
        ({"model.diffusion_model.label_emb.0.0.weight": torch.zeros(4, 4)}, "of another architecture (SDXL"),
        ({"model.diffusion_model.input_blocks.0.0.weight": None}, "has no U-Net of a Stable Diffusion checkpoint"),
        ({"first_stage_model.encoder.conv_in.weight": None}, "has no VAE of a Stable Diffusion checkpoint"),
        (
            {"model.diffusion_model.middle_block.1.proj_in.weight": None},
            "does not make a Stable Diffusion model (KeyError",
        ),
        ({"model.diffusion_model.time_embed.0.weight": torch.zeros(3, 3)}, "has the shape (3, 3)"),
        ({"model.diffusion_model.time_embed.0.bias": None}, "time_embedding.linear_1.bias is missing"),
        ({"first_stage_model.quant_conv.bias": None}, "quant_conv.bias is missing"),
    ],
)
def test_another_architecture_is_named(tensors, tmp_path, change, words):
    path = tmp_path / "other.safetensors"
    changed = {**tensors, **change}
    save_file({name: value for name, value in changed.items() if value is not None}, path)
    with pytest.raises(WeightsError) as error:
        build_extractor("dift_sd", weights=str(path), device="cpu")
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_a_truncated_file_is_named(checkpoint, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(checkpoint.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"cut\.safetensors is damaged"):
        build_extractor("dift_sd", weights=str(path), device="cpu")
