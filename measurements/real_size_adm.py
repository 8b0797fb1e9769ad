"""Cost of one 480x832 frame with ADM-256 at its real size and random weights.

    python -m measurements.real_size_adm --count-only     # floating-point operations only, on the meta device
    python -m measurements.real_size_adm                  # runs the network: needs 12 GB

Each variant runs in a new process with its own peak memory. `reference` works like DIFT's ADMFeaturizer: all copies of
the ensemble in one batch, the whole network in memory, float32. The others are `dift_adm`: one copy at a time, and no
blocks after the tapped one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from measurements.common import measure_frame, parser_of
from propagate.features import build_extractor
from propagate.features.adm.adm import cut_after, output_blocks
from propagate.features.adm.checkpoint import build_unet, open_checkpoint
from propagate.features.diffusion.core import linear_alphas_cumprod, run_until

SIZE = (480, 832)
NEEDED_BYTES = 12e9
# 256x256_diffusion_uncond.pt, by guided-diffusion's README
ADM_256: dict[str, Any] = {
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
WAYS = ("reference", "float32", "bfloat16")


def count(block: int, ensemble_size: int) -> None:
    """Print the floating-point operations up to a block and of the whole network."""
    noisy = torch.empty(1, 3, *SIZE, device="meta")
    timestep = torch.tensor([51], device="meta")
    unet = build_unet(ADM_256)
    with FlopCounterMode(display=False) as whole, torch.no_grad():
        unet(noisy, timestep)
    tap = cut_after(unet, block)
    with FlopCounterMode(display=False) as cut, torch.no_grad():
        run_until(tap, lambda: unet(noisy, timestep))
    one, full = cut.get_total_flops() / 1e9, whole.get_total_flops() / 1e9
    print(f"up to output block {block}: {one:.1f} GFLOP a copy, {one * ensemble_size:.1f} with {ensemble_size} copies")
    print(f"whole network: {full:.1f} GFLOP a copy; stopping leaves {one / full:.0%}")


def save_random_model(folder: Path) -> None:
    """Save a converted model with random weights, in half precision to save disk space."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = nn.Module.to(build_unet(ADM_256), torch.float16).to_empty(device="cpu")
        for parameter in unet.parameters():
            nn.init.normal_(parameter, std=0.02)
    unet.save_pretrained(folder)


def run(way: str, folder: Path, block: int, ensemble_size: int) -> None:
    """Compute the features of one frame and print load time, run time and peak memory."""
    images = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    if way == "reference":
        unet, tensors = open_checkpoint(folder)
        unet.load_state_dict(tensors, assign=True)
        nn.Module.to(unet, torch.float32)
        stride = output_blocks(unet)[block].stride
        stage, layer = divmod(block, unet.config.layers_per_block + 1)
        tap = unet.up_blocks[stage].attentions[layer] if stage < 3 else unet.up_blocks[stage].resnets[layer]

        def frame() -> Tensor:
            noise = torch.randn((ensemble_size, 3, *SIZE), generator=torch.Generator().manual_seed(0))
            kept = float(linear_alphas_cumprod()[51])
            noisy = kept**0.5 * (images * 2 - 1) + (1 - kept) ** 0.5 * noise
            return run_until(tap, lambda: unet(noisy, 51)).mean(0, keepdim=True)

    else:
        options = {"up_ft_index": block, "ensemble_size": ensemble_size, "dtype": way, "device": "cpu"}
        extractor = build_extractor("dift_adm", weights=folder, **options)
        stride, frame = extractor.stride, partial(extractor, images)
    loaded = time.perf_counter() - start
    with torch.no_grad():
        features, timing, peak = measure_frame(frame, "cpu")
    assert features.shape[-2:] == (SIZE[0] // stride, SIZE[1] // stride)
    print(
        f"{way:10} {ensemble_size} copies: loaded in {loaded:.1f} s, one frame in {timing.wall:.1f} s, "
        f"peak memory {peak / 2**30:.2f} GiB",
        flush=True,
    )


def free_bytes() -> int:
    """Return the memory available to a new process (Linux)."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--block", type=int, default=7, choices=[0, 1, 3, 4, 6, 7], help="without an upsampler")
    parser.add_argument("--ensemble-size", type=int, default=1, help="4 in DIFT's DAVIS setting")
    parser.add_argument("--count-only", action="store_true")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        run(arguments.way, arguments.folder, arguments.block, arguments.ensemble_size)
        return
    count(arguments.block, arguments.ensemble_size)
    if arguments.count_only:
        return
    if free_bytes() < NEEDED_BYTES:
        sys.exit(f"{free_bytes() / 1e9:.1f} GB of memory are free; {NEEDED_BYTES / 1e9:.0f} GB are needed.")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder))
        shared = ["--folder", folder, "--block", str(arguments.block), "--ensemble-size", str(arguments.ensemble_size)]
        for way in WAYS:
            subprocess.run([sys.executable, "-m", "measurements.real_size_adm", "--way", way, *shared], check=True)


if __name__ == "__main__":
    main()
