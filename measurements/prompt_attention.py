"""Cost of learning and reading a prompt with networks of the size of Stable Diffusion 2.1 and random weights.

    OMP_NUM_THREADS=1 python -m measurements.prompt_attention [--device cuda] [--rows read learn learn_kept]

Writes a pipeline of 2 GB into a temporary folder. Each row is one pass on a frame of 480x832 in a new process with its
own peak memory; on a GPU, a first pass is the warm-up. "learn" is a step with checkpointing, "learn_kept" one without.
The estimates are those of `planning.dry_run`, used for the memory limit: weights, and tensors created by the pass.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

import torch

from measurements.common import measure_frame, parser_of, run_row
from measurements.real_size_sd import HEIGHT, WIDTH, write_pipeline
from propagate.features.learned_prompts.learning import View, learn_embedding
from propagate.features.learned_prompts.prompt_attention import PromptAttention
from propagate.features.learned_prompts.targets import PointTarget, whole
from propagate.planning.dry_run import dry_run

SIZE = HEIGHT, WIDTH
ROWS = ("read", "learn", "learn_kept")


def measure(row: str, folder: Path, device: str) -> dict[str, float]:
    """Measure one row in this process."""
    attention = PromptAttention(weights=folder, device=device, checkpointing=row != "learn_kept", steps=1, seed=0)
    picture = torch.rand((1, 3, *SIZE), generator=torch.Generator().manual_seed(0)).to(attention.device)
    target = PointTarget((WIDTH / 2, HEIGHT / 2), attention.sigma * HEIGHT)
    start = torch.randn((1, 77, attention.network.width), generator=torch.Generator().manual_seed(0))
    view = View(whole(SIZE), torch.rand(1, attention.network.channels, HEIGHT // 8, WIDTH // 8))
    learn = partial(
        learn_embedding, attention.network, picture, target, start, [view], timestep=140, learning_rate=0.002
    )
    # reading a random prompt costs the same as a learned one
    noisy = attention.network.noised(attention.network.latents(picture), view.noise, attention.timestep)

    @torch.no_grad()
    def read() -> None:
        attention.network.latents(picture)
        attention.network.maps(noisy, attention.timestep, start)

    _, timing, peak = measure_frame(read if row == "read" else learn, device)
    found = {"seconds": timing.wall, "cpu_seconds": timing.cpu, "peak_gb": peak / 1e9}
    if row != "read":
        estimate = dry_run(partial(attention.dry_run_step, SIZE))
        found |= {"estimated_weights_gb": estimate.given / 1e9, "estimated_made_gb": estimate.created / 1e9}
    return found


def main() -> None:
    parser = parser_of(__doc__)
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
            found = run_row("measurements.prompt_attention", row, folder, arguments.device)
            print(f"{row:11}" + "  ".join(f"{name} {value:.2f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
