"""Options that several extractors share; the extractors' docstrings list only their own.

All extractors raise a UsageError for an option that does not fit the model, and a WeightsError for weights that are
missing, damaged or of another architecture.

weights: a file, a folder or a hub id; None: the published model, from this machine or downloaded.
revision: revision of the hub's repository.
ensemble_size: number of noise draws whose features are averaged. Each costs a pass.
noise: "shared", "fresh" or "antithetic", see `propagate.features.diffusion.core.Noise`.
seed: seed of the noise.
draws_per_pass: draws that go through the network together; None: all on a GPU, one on a CPU. The features change by
    rounding only.
prompt: text condition.
latents: "mode" of the VAE's posterior, or a "sample" of it for every draw, as the reference does.
finer_ft_index: a later block of smaller cells for `propagation.finer`; None: no finer map. Stable Diffusion's smallest
    cells are those of the latents, so that up_ft_index must be 0 or 1.
multiple: both sides of the pictures become multiples of this; None: the smallest number that the model takes.
dtype: "float32" or, where the device computes in it, "bfloat16" or "float16".
device: "auto", "cpu", "cuda", "cuda:1", "mps".
compile: pass the network to `torch.compile`, see `propagate.features.device.compile_blocks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from propagate.errors import UsageError

Weights = str | Path | None
EnsembleSize = Annotated[int, Field(ge=1, le=1024)]
Multiple = Annotated[int, Field(ge=1, le=1024)]
Index = Annotated[int, Field(ge=0)]
Timestep = Annotated[int, Field(ge=0, le=9999)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # generators take 32 bits: seeds that differ in others would be equal
Dtype = Literal["float32", "bfloat16", "float16"]
AutoDtype = Literal["auto", "float32", "bfloat16", "float16"]


def working_multiple(multiple: int | None, least: int) -> int:
    """Return the option, or else the smallest multiple; raise a UsageError if one is not a multiple of the other."""
    if (multiple or least) % least:
        raise UsageError(
            f"features.multiple = {multiple}: the model takes multiples of {least} pixels.",
            f"Choose a multiple of {least}.",
        )
    return multiple or least
