"""What one frame costs with networks of Stable Diffusion 2.1's size, here and the way the reference does it.

    python -m measurements.real_size_sd            the floating-point work alone, counted on the meta device
    python -m measurements.real_size_sd --run      time and peak memory too, with random weights
    python -m measurements.real_size_sd --run --device cuda

The run writes a pipeline of 2 GB into a temporary folder, takes about 13 GB of memory and ten minutes on two cores.
Every row is a process of its own, so that its peak memory is its own; on a GPU a first frame warms it up. At the end
every bfloat16 row is compared with its float32 row: the smallest cosine of a cell, and the share of the device's own
bfloat16 matmul rate.
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
from propagate.features.diffusion.core import Noise, ensemble_features, run_until
from propagate.features.networks.loading import Component
from propagate.features.stable_diffusion.latent_diffusion import LatentDiffusion

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


def reference_features(folder: Path, image: Tensor, device: str) -> tuple[float, float]:
    """Seconds to load and to compute, as SDFeaturizer does: whole networks, every copy encoded, all in one batch."""
    start = time.perf_counter()
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).eval()
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()
    for network in (unet, vae):
        nn.Module.to(network, device)
    condition, image = torch.randn(ENSEMBLE, TOKENS, CONDITION, device=device), image.to(device)
    loaded = time.perf_counter()

    def frame() -> Tensor:
        latents = vae.encode(image.repeat(ENSEMBLE, 1, 1, 1) * 2 - 1).latent_dist.sample() * 0.18215
        noisy = KEPT**0.5 * latents + (1 - KEPT) ** 0.5 * torch.randn_like(latents)
        return run_until(unet.up_blocks[BLOCK], lambda: unet(noisy, TIMESTEP, condition)).mean(0).cpu()

    if device != "cpu":
        frame()
    before = time.perf_counter()
    frame()
    return loaded - start, time.perf_counter() - before


def extractor_features(folder: Path, name: str, dtype: str, image: Tensor, device: str) -> tuple[float, float, Tensor]:
    """The same for an extractor of this package, and its features."""
    files = {"weights": str(folder)}
    if name == "cleandift":
        unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
        files = {"weights": str(unet), "base": str(folder)}
    start = time.perf_counter()
    extractor = build_extractor(name, **files, dtype=dtype, device=device)
    loaded = time.perf_counter()
    if device != "cpu":
        extractor(image)
        torch.cuda.synchronize(device)
    before = time.perf_counter()
    features = extractor(image).cpu()
    return loaded - start, time.perf_counter() - before, features


def measure(row: str, folder: Path, device: str) -> dict[str, float]:
    """One row, in this process; an extractor's features are left in the folder."""
    name, dtype = ROWS[row]
    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if name == "reference":
            load_s, frame_s = reference_features(folder, image, device)
        else:
            load_s, frame_s, features = extractor_features(folder, name, dtype, image, device)
            torch.save(features, folder / f"{row}.pt")
    if device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    else:
        peak = torch.cuda.max_memory_allocated(device)
    return {"load_s": load_s, "frame_s": frame_s, "peak_gb": peak / 1e9}


def smallest_cosine(folder: Path, name: str) -> float:
    """Over all cells, of an extractor's bfloat16 and float32 features."""
    half, full = (torch.load(folder / f"{name} {dtype}.pt", weights_only=True) for dtype in ("bfloat16", "float32"))
    return float(torch.cosine_similarity(half, full, dim=1).min())


def matmul_rate(device: str, side: int = 4096) -> float:
    """TFLOP/s of a large bfloat16 product, the best of five."""
    factor = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        factor @ factor
        if device != "cpu":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds) / 1e12


def main() -> None:
    """Print the counts and, with --run, a row per way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="*", choices=list(ROWS), metavar="ROW", help=f"rows to measure: {list(ROWS)}")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    parser.add_argument("--pipeline", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(arguments.row, arguments.pipeline, arguments.device)))
        return
    counted = flops()
    for name, gflop in counted.items():
        print(f"{name:22} {gflop:9.1f} GFLOP  {gflop / counted['reference']:6.1%}")
    if arguments.run is None:
        return
    rate = matmul_rate(arguments.device)
    print(f"bfloat16 products: {rate:.2f} TFLOP/s")
    rows = arguments.run or list(ROWS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_pipeline(folder)
        for row in rows:
            command = [sys.executable, "-m", "measurements.real_size_sd", "--row", row]
            command += ["--pipeline", temporary, "--device", arguments.device]
            environment = os.environ | {"XDG_CACHE_HOME": temporary}
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
            found = json.loads(output)
            share = counted[ROWS[row][0]] / 1e3 / found["frame_s"] / rate
            print(
                f"{row:22} load {found['load_s']:6.1f} s  frame {found['frame_s']:7.2f} s  {found['peak_gb']:5.1f} GB"
                f"  {share:5.1%} of the bfloat16 rate"
            )
        for name in ("dift_sd", "cleandift"):
            if {f"{name} float32", f"{name} bfloat16"} <= set(rows):
                print(f"{name}: bfloat16 against float32, smallest cosine {smallest_cosine(folder, name):.5f}")


if __name__ == "__main__":
    main()
