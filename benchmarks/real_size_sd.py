"""What one frame costs with networks of Stable Diffusion 2.1's size, here and the way the reference does it.

    python -m benchmarks.real_size_sd            the floating-point work alone, counted on the meta device
    python -m benchmarks.real_size_sd --run      time and peak memory too, on the CPU, with random weights

The run writes a pipeline of 2 GB into a temporary folder, takes about 12 GB of memory and half an hour on two cores.
Every row is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from propagate.features import build_extractor
from propagate.features.diffusion import Noise, ensemble_features, run_until
from propagate.features.latent_diffusion import LatentDiffusion
from propagate.features.weight_files import Component

HEIGHT, WIDTH = 480, 832
BLOCK, ENSEMBLE, TIMESTEP, KEPT = 2, 8, 51, 0.9505  # DIFT's settings for DAVIS
TOKENS, CONDITION = 77, 1024
# the published model's configs (PROTOCOLS section 4.2: recalled; parameters and FLOPs agree with its sizes)
UNET: dict[str, Any] = {
    "sample_size": 96,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": CONDITION,
    "use_linear_projection": True,
}
VAE: dict[str, Any] = {
    "sample_size": 768,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
# any will do: the prompt is empty
TOKENIZER = Path(__file__).parents[1] / "tests" / "parity" / "data" / "sd_tiny_0" / "pipeline" / "tokenizer"
ROWS = {
    "reference (float32)": ("reference", "float32"),
    "dift_sd float32": ("dift_sd", "float32"),
    "dift_sd bfloat16": ("dift_sd", "bfloat16"),
    "cleandift float32": ("cleandift", "float32"),
    "cleandift bfloat16": ("cleandift", "bfloat16"),
}


def meta_model() -> LatentDiffusion:
    """The networks without weights, as the extractors hold them."""
    with torch.device("meta"):
        networks = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
    unet, vae = (Component(dict(network.config), (), network.state_dict) for network in networks)
    condition, device = torch.empty(1, TOKENS, CONDITION, device="meta"), torch.device("meta")
    return LatentDiffusion(
        unet=unet, vae=vae, condition=condition, up_ft_index=BLOCK, dtype=torch.float32, device=device
    )


def flops() -> dict[str, float]:
    """GFLOP of one frame: the reference's way at ensemble 8, the SD preset, CleanDIFT."""
    model = meta_model()
    image = torch.empty(1, 3, HEIGHT, WIDTH, device="meta")

    def reference() -> None:
        copies = model.latents(image.expand(ENSEMBLE, -1, -1, -1))
        model.activation(copies, TIMESTEP)

    def preset() -> None:
        noise = Noise(ENSEMBLE)
        ensemble_features(model.latents(image), partial(model.activation, timestep=TIMESTEP), noise=noise, kept=KEPT)

    def clean() -> None:
        model.activation(model.latents(image), 261.0)

    counted = {}
    for name, work in {"reference": reference, "dift_sd": preset, "cleandift": clean}.items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            work()
        counted[name] = counter.get_total_flops() / 1e9
    return counted


def write_pipeline(folder: Path) -> None:
    """Random weights in half precision, as published files are; a text encoder of one layer, for its width alone."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tokens = {"vocab_size": 523, "bos_token_id": 521, "eos_token_id": 522}
    text = CLIPTextConfig(hidden_size=CONDITION, num_hidden_layers=1, num_attention_heads=16, **tokens)
    torch.manual_seed(0)
    for name, network in (("unet", partial(UNet2DConditionModel, **UNET)), ("vae", partial(AutoencoderKL, **VAE))):
        nn.Module.half(network()).save_pretrained(folder / name)
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )


def reference_features(folder: Path, image: Tensor) -> tuple[float, float]:
    """Seconds to load and to compute, as SDFeaturizer does: whole networks, every copy encoded, all in one batch."""
    start = time.perf_counter()
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).eval()
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()
    condition = torch.randn(ENSEMBLE, TOKENS, CONDITION)
    loaded = time.perf_counter()
    latents = vae.encode(image.repeat(ENSEMBLE, 1, 1, 1) * 2 - 1).latent_dist.sample() * 0.18215
    noisy = KEPT**0.5 * latents + (1 - KEPT) ** 0.5 * torch.randn_like(latents)
    run_until(unet.up_blocks[BLOCK], lambda: unet(noisy, TIMESTEP, condition)).mean(0)
    return loaded - start, time.perf_counter() - loaded


def extractor_features(folder: Path, name: str, dtype: str, image: Tensor) -> tuple[float, float]:
    """The same for an extractor of this package."""
    files = {"weights": str(folder)}
    if name == "cleandift":
        unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
        files = {"weights": str(unet), "base": str(folder)}
    start = time.perf_counter()
    extractor = build_extractor(name, **files, dtype=dtype, device="cpu")
    loaded = time.perf_counter()
    extractor(image)
    return loaded - start, time.perf_counter() - loaded


def measure(row: str, folder: Path) -> dict[str, float]:
    """One row, in this process."""
    name, dtype = ROWS[row]
    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if name == "reference":
            load_s, frame_s = reference_features(folder, image)
        else:
            load_s, frame_s = extractor_features(folder, name, dtype, image)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"load_s": load_s, "frame_s": frame_s, "peak_gb": peak / 1e9}


def main() -> None:
    """Print the counts and, with --run, a row per way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="*", choices=list(ROWS), metavar="ROW", help=f"rows to measure: {list(ROWS)}")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    parser.add_argument("--pipeline", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(arguments.row, arguments.pipeline)))
        return
    counted = flops()
    for name, gflop in counted.items():
        print(f"{name:22} {gflop:9.1f} GFLOP  {gflop / counted['reference']:6.1%}")
    if arguments.run is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        write_pipeline(Path(folder))
        for row in arguments.run or ROWS:
            command = [sys.executable, "-m", "benchmarks.real_size_sd", "--row", row, "--pipeline", folder]
            environment = os.environ | {"XDG_CACHE_HOME": folder}
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
            found = json.loads(output)
            print(
                f"{row:22} load {found['load_s']:6.1f} s  frame {found['frame_s']:7.1f} s  {found['peak_gb']:5.1f} GB"
            )


if __name__ == "__main__":
    main()
