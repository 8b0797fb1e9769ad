"""The largest steps that fit into a memory limit. `planning.estimate` says what counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from propagate.errors import OutOfMemoryError, PropagateError, UsageError
from propagate.features import FeatureExtractor
from propagate.features.finer import BothMaps, both_maps
from propagate.features.passes import Passes, PassSize, largest_pass
from propagate.geometry import grid_size, working_size
from propagate.planning.dry_run import Footprint, dry_run
from propagate.planning.estimate import BYTES_PER_PIXEL, MIB, Load, MemoryEstimate, mib
from propagate.planning.resident import load_compiled_loops, peak_bytes, resident_bytes
from propagate.propagation.torch.transfer import default_tile_scores
from propagate.settings import Settings

_PROGRAM_CPU, _PROGRAM_GPU = 700 * MIB, 500 * MIB
_LATER = 112 * MIB
_MIN_PROGRAM = 250 * MIB  # Python with torch: if less is left beside the weights, they are not loaded yet
_CPU_ACTIVATIONS = 1.7


@dataclass(frozen=True)
class MemoryPlan:
    """The size of steps, which does not affect the result, and the memory they take."""

    passes: PassSize  # of the network
    tile_scores: int  # of the transfer step
    estimate: MemoryEstimate

    def __str__(self) -> str:
        return f"{self.passes} and {self.tile_scores} scores"

    @property
    def record(self) -> dict[str, Any]:
        """The entry of run.json: bytes per part and in all, and the size of steps."""
        estimate = {**asdict(self.estimate), "total": self.estimate.total}
        return {"estimate": estimate, **asdict(self.passes), "tile_scores": self.tile_scores}


def plan_memory(
    extractor: FeatureExtractor, frame_size: tuple[int, int], settings: Settings, *, anchors: int = 1, labels: int = 2
) -> MemoryPlan:
    """Return the largest steps that fit into `settings.max_memory`; without a limit, those usual on the device.

    There are `anchors` annotated frames, and `labels` channels: the background and each object or joint.

    Raises:
        OutOfMemoryError: even the smallest steps do not fit. Not a UsageError: the limit describes a machine, and on
            that machine memory would run out.
        UsageError: the extractor cannot be estimated, or has no finer map for `propagation.finer`.
    """
    batch, limit = settings.features.batch_size, settings.max_memory
    extractor = both_maps(extractor) if settings.propagation.finer else extractor
    size = working_size(frame_size, multiple=extractor.multiple, **settings.video.sizing)
    packed = extractor if isinstance(extractor, BothMaps) else None
    passes = largest_pass(extractor, batch)
    load = Load(
        frame=frame_size,
        resized=size,
        batch=max(batch, passes.frames),
        grid=grid_size(size, extractor.stride),
        channels=packed.coarse_channels if packed else extractor.channels,
        labels=labels,
        anchors=anchors,
        propagation=settings.propagation,
        factor=packed.factor if packed else 1,
        finer_channels=packed.finer_channels if packed else 0,
    )
    network = _dry_pass(extractor, size, passes, load.batch)
    tile_scores = default_tile_scores(network.device)
    program = _program_bytes(network)
    needed = _estimate(network, load, tile_scores, program)
    while limit is not None and needed.total > limit:
        half = passes.half
        if needed.transfer > needed.activations and tile_scores > 1:
            tile_scores //= 2
        elif needed.activations >= needed.transfer and half is not None:
            passes = half
            load = replace(load, batch=max(batch, passes.frames))
            network = _dry_pass(extractor, size, passes, load.batch)
        else:
            raise OutOfMemoryError(
                f"max_memory = {mib(limit)}: the smallest steps take about {needed}.", _remedy(needed)
            )
        needed = _estimate(network, load, tile_scores, program)
    peak = peak_bytes() if network.device == "cpu" else None
    if limit is not None and peak is not None and peak > limit:
        raise OutOfMemoryError(
            f"max_memory = {mib(limit)}: loading the program and the weights took {mib(peak)}.", "Raise it."
        )
    return MemoryPlan(passes, tile_scores, needed)


def check_learning(step: Callable[[], Tensor], frame_size: tuple[int, int], limit: int) -> None:
    """Check that a step of learning, `step()`, fits into `limit` bytes. Raises OutOfMemoryError otherwise."""
    network = dry_run(step)
    frames = frame_size[0] * frame_size[1] * BYTES_PER_PIXEL if network.device == "cpu" else 0
    needed = MemoryEstimate(_program_bytes(network), frames, network.given, _activations(network), bank=0, transfer=0)
    if needed.total > limit:
        raise OutOfMemoryError(
            f"max_memory = {mib(limit)}: learning the first frame's label takes about {needed}.",
            "Raise it, lower video.short_side or features.dtype, or learn with features.checkpointing=true.",
        )


def _remedy(needed: MemoryEstimate) -> str:
    """What to lower, the settings of the largest part first."""
    network = "video.short_side, features.batch_size or, of a diffusion model, features.dtype"
    bank = "propagation.n_last or propagation.memory_dtype"
    first, then = (bank, network) if needed.bank > needed.activations else (network, bank)
    # from one start of a process to the next, libraries take some MiB more or less
    enough = mib(math.ceil(needed.total / (16 * MIB) + 1) * 16 * MIB)
    return f"Raise it to {enough}, or lower {first}, then {then}, with --set."


def _dry_pass(extractor: FeatureExtractor, size: tuple[int, int], passes: PassSize, batch: int) -> Footprint:
    def one_batch() -> Tensor:
        images = torch.empty(batch, 3, *size)
        return Passes(extractor, passes).anchored(images[:1])(images)

    try:
        return dry_run(one_batch)
    except PropagateError:
        raise
    except Exception as error:  # a foreign extractor may do anything that needs a tensor's content
        raise UsageError(
            f"The memory of {type(extractor).__name__} cannot be estimated ({error}).", "Leave out max_memory."
        ) from error


def _program_bytes(network: Footprint) -> int:
    """Memory of the process beside the run's own data."""
    if network.device != "cpu":
        return _PROGRAM_GPU
    load_compiled_loops()
    resident = resident_bytes()
    if resident is None:
        return _PROGRAM_CPU
    beside = resident - network.given
    return (beside if beside >= _MIN_PROGRAM else resident) + _LATER


def _activations(network: Footprint) -> int:
    return int(network.created * (_CPU_ACTIVATIONS if network.device == "cpu" else 1))


def _estimate(network: Footprint, load: Load, tile_scores: int, program: int) -> MemoryEstimate:
    on_cpu = network.device == "cpu"
    return MemoryEstimate(
        program=program,
        frames=load.frame_bytes if on_cpu else 0,
        weights=network.given,
        activations=_activations(network),
        bank=load.bank_bytes + (load.rounded_bytes if on_cpu else 0),
        transfer=load.transfer_bytes(tile_scores),
    )
