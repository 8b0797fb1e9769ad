"""What learning and reading a prompt costs with networks of Stable Diffusion 2.1's size and random weights.

    OMP_NUM_THREADS=1 python -m measurements.prompt_attention [--device cuda] [--rows read learn learn_kept]

Writes a pipeline of 2 GB into a temporary folder. Every row is one pass on a frame of 480x832 in a process of its own,
so that its peak memory is its own; on a GPU a first pass warms it up. "learn" is a step with checkpointing,
"learn_kept" one without. The estimate is that of `planning.dry_run`, which the memory limit goes by: weights, and what
is made.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from measurements.real_size_sd import HEIGHT, WIDTH, write_pipeline
from propagate.features.learned_prompts.crops import whole
from propagate.features.learned_prompts.learning import View, learn_embedding
from propagate.features.learned_prompts.prompt_attention import PromptAttention
from propagate.features.learned_prompts.targets import PointTarget
from propagate.planning.dry_run import dry_run

SIZE = HEIGHT, WIDTH
ROWS = ("read", "learn", "learn_kept")


def measure(row: str, folder: Path, device: str) -> dict[str, float]:
    """One row, in this process."""
    attention = PromptAttention(weights=folder, device=device, checkpointing=row != "learn_kept", steps=1, seed=0)
    picture = torch.rand((1, 3, *SIZE), generator=torch.Generator().manual_seed(0)).to(attention.device)
    target = PointTarget((WIDTH / 2, HEIGHT / 2), attention.sigma * HEIGHT)
    start = torch.randn((1, 77, attention.network.width), generator=torch.Generator().manual_seed(0))
    view = View(whole(SIZE), torch.rand(1, attention.network.channels, HEIGHT // 8, WIDTH // 8))
    learn = partial(
        learn_embedding, attention.network, picture, target, start, [view], timestep=140, learning_rate=0.002
    )
    if row == "read":
        # reading a made-up prompt costs what a learned one does
        noisy = attention.network.noised(attention.network.latents(picture), view.noise, attention.timestep)

        def work() -> None:
            with torch.no_grad():
                attention.network.latents(picture)
                attention.network.maps(noisy, attention.timestep, start)

    else:
        work = learn
    if device != "cpu":
        work()
        torch.cuda.synchronize(device)
    before, before_cpu = time.perf_counter(), time.process_time()
    work()
    if device != "cpu":
        torch.cuda.synchronize(device)
    seconds, cpu_seconds = time.perf_counter() - before, time.process_time() - before_cpu
    if device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    else:
        peak = torch.cuda.max_memory_allocated(device)
    found = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gb": peak / 1e9}
    if row != "read":
        estimate = dry_run(partial(attention.rehearse, SIZE))
        found |= {"estimated_weights_gb": estimate.given / 1e9, "estimated_made_gb": estimate.created / 1e9}
    return found


def main() -> None:
    """Print a row per way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--pipeline", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(arguments.row, arguments.pipeline, arguments.device)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_pipeline(Path(folder))
        for row in arguments.rows:
            command = [sys.executable, "-m", "measurements.prompt_attention", "--row", row, "--pipeline", folder]
            environment = os.environ | {"XDG_CACHE_HOME": folder}
            output = subprocess.run(
                [*command, "--device", arguments.device], check=True, stdout=subprocess.PIPE, env=environment
            ).stdout
            print(f"{row:11}" + "  ".join(f"{name} {value:.2f}" for name, value in json.loads(output).items()))


if __name__ == "__main__":
    main()
