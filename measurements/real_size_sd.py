"""Cost of one frame with networks of the size of Stable Diffusion 2.1, for this program and the reference.

    python -m measurements.real_size_sd            floating-point operations only, counted on the meta device
    python -m measurements.real_size_sd --run      also time and peak memory, with random weights
    python -m measurements.real_size_sd --run --device cuda

The run writes a pipeline of 2 GB into a temporary folder, and needs about 13 GB of memory and ten minutes on two cores.
Each row is a new process with its own peak memory; on a GPU, a first frame is the warm-up. Rows show the share of the
device's bfloat16 matmul rate; at the end, the smallest cosine between cells of bfloat16 and float32 rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from measurements.common import measure_frame, parser_of, run_row
from propagate.benchmarks.speed.timing import Timing, timed
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
# any tokenizer will do: the prompt is empty
TOKENIZER = Path(__file__).parents[1] / "tests" / "parity" / "data" / "sd_tiny_0" / "pipeline" / "tokenizer"
ROWS = {
    "reference (float32)": ("reference", "float32"),
    "dift_sd float32": ("dift_sd", "float32"),
    "dift_sd bfloat16": ("dift_sd", "bfloat16"),
    "cleandift float32": ("cleandift", "float32"),
    "cleandift bfloat16": ("cleandift", "bfloat16"),
}


def meta_model() -> LatentDiffusion:
    """Return the networks without weights, as in the extractors."""
    with torch.device("meta"):
        networks = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
    unet, vae = (Component(dict(network.config), Path(), (Path(),), network.state_dict) for network in networks)
    condition, device = torch.empty(1, TOKENS, CONDITION, device="meta"), torch.device("meta")
    return LatentDiffusion(
        unet=unet, vae=vae, condition=condition, up_ft_index=BLOCK, dtype=torch.float32, device=device
    )


def flops() -> dict[str, float]:
    """Return the GFLOP of one frame: the reference with an ensemble of 8, the SD preset, CleanDIFT."""
    model = meta_model()
    image = torch.empty(1, 3, HEIGHT, WIDTH, device="meta")
    activation = partial(model.activation, timestep=TIMESTEP)
    works: dict[str, Callable[[], Tensor]] = {
        "reference": lambda: activation(model.latents(image.expand(ENSEMBLE, -1, -1, -1))),
        "dift_sd": lambda: ensemble_features(model.latents(image), activation, noise=Noise(ENSEMBLE), alpha_bar=KEPT),
        "cleandift": lambda: model.activation(model.latents(image), 261.0),
    }
    counted = {}
    for name, work in works.items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            work()
        counted[name] = counter.get_total_flops() / 1e9
    return counted


def write_pipeline(folder: Path) -> None:
    """Write random weights in half precision, like published files, and a text encoder of one layer."""
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


def load_reference(folder: Path, image: Tensor, device: str) -> Callable[[], Tensor]:
    """Load whole networks that encode all copies in one batch, like SDFeaturizer."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).eval()
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()
    for network in (unet, vae):
        nn.Module.to(network, device)
    condition, image = torch.randn(ENSEMBLE, TOKENS, CONDITION, device=device), image.to(device)

    def frame() -> Tensor:
        latents = vae.encode(image.repeat(ENSEMBLE, 1, 1, 1) * 2 - 1).latent_dist.sample() * 0.18215
        noisy = KEPT**0.5 * latents + (1 - KEPT) ** 0.5 * torch.randn_like(latents)
        return run_until(unet.up_blocks[BLOCK], lambda: unet(noisy, TIMESTEP, condition)).mean(0).cpu()

    return frame


def load_extractor(folder: Path, name: str, dtype: str, image: Tensor, device: str) -> Callable[[], Tensor]:
    files = {"weights": str(folder)}
    if name == "cleandift":
        unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
        files = {"weights": str(unet), "base": str(folder)}
    extractor = build_extractor(name, **files, dtype=dtype, device=device)
    return lambda: extractor(image).cpu()


def measure(row: str, folder: Path, device: str) -> dict[str, float]:
    """Measure one row in this process, and save its features in the folder."""
    name, dtype = ROWS[row]
    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    with torch.no_grad():
        if name == "reference":
            frame = load_reference(folder, image, device)
        else:
            frame = load_extractor(folder, name, dtype, image, device)
        load_s = time.perf_counter() - start
        features, timing, peak = measure_frame(frame, device)
    torch.save(features, folder / f"{row}.pt")
    return {"load_s": load_s, "frame_s": timing.wall, "peak_gb": peak / 1e9}


def smallest_cosine(folder: Path, name: str) -> float:
    """Return the smallest cosine over all cells between bfloat16 and float32 features."""
    half, full = (torch.load(folder / f"{name} {dtype}.pt", weights_only=True) for dtype in ("bfloat16", "float32"))
    return float(torch.cosine_similarity(half, full, dim=1).min())


def matmul_rate(device: str, side: int = 4096) -> float:
    """Return the TFLOP/s of a large bfloat16 product, the best of six."""
    factor = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    timings: list[Timing] = []
    for _ in range(6):
        with timed(1, torch.device(device), timings):
            factor @ factor
    return 2 * side**3 / min(timing.wall for timing in timings) / 1e12


def main() -> None:
    parser = parser_of(__doc__)
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
            found = run_row("measurements.real_size_sd", row, temporary, arguments.device)
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
