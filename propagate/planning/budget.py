"""The largest steps that fit into a memory limit. What is counted stands in `planning.estimate`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from propagate.errors import OutOfMemoryError, PropagateError, UsageError
from propagate.features import FeatureExtractor
from propagate.features.finer import BothMaps, both_maps
from propagate.features.learned_prompts.label_reader import LabelReader
from propagate.features.passes import Passes, PassSize, largest_pass
from propagate.geometry import grid_size, working_size
from propagate.planning.dry_run import Footprint, dry_run
from propagate.planning.estimate import BYTES_PER_PIXEL, MIB, Load, MemoryEstimate, mib
from propagate.planning.resident import load_compiled_loops, peak_bytes, resident_bytes
from propagate.propagation.torch.transfer import default_tile_scores
from propagate.settings import Settings

_PROGRAM_CPU, _PROGRAM_GPU = 700 * MIB, 500 * MIB


_LATER = 112 * MIB


_LEAST_PROGRAM = 250 * MIB  # Python with torch: where less is left beside the weights, they are not loaded yet


_CPU_ACTIVATIONS = 1.7


@dataclass(frozen=True)
class MemoryPlan:
    """What is done at a time. The result does not depend on it.

    Attributes:
        passes: what goes through the network together.
        tile_scores: scores that the transfer step holds at a time.
        estimate: what a run takes that does so much at a time.
    """

    passes: PassSize
    tile_scores: int
    estimate: MemoryEstimate

    def __str__(self) -> str:
        return f"{self.passes} and {self.tile_scores} scores"

    @property
    def record(self) -> dict[str, Any]:
        """For run.json: bytes per part and in all, and what is done at a time."""
        estimate = {**asdict(self.estimate), "total": self.estimate.total}
        return {"estimate": estimate, **asdict(self.passes), "tile_scores": self.tile_scores}


def plan_memory(
    extractor: FeatureExtractor, frame_size: tuple[int, int], settings: Settings, *, anchors: int = 1, labels: int = 2
) -> MemoryPlan:
    """The largest steps that `settings.max_memory` leaves room for; without a limit, those usual on the device.

    Args:
        extractor: where the features come from.
        frame_size: (height, width) of the frames.
        settings: of the run.
        anchors: annotated frames.
        labels: channels of a soft label: the background and each object or joint.

    Raises:
        OutOfMemoryError: even the smallest steps do not fit. Not a UsageError: the limit describes a machine, and on
            that machine memory would run out.
        UsageError: the extractor cannot be estimated, or has no finer map for `propagation.finer`.
    """
    batch, limit = settings.features.batch_size, settings.max_memory
    extractor = both_maps(extractor) if settings.propagation.finer else extractor
    size = working_size(frame_size, multiple=extractor.multiple, **settings.video.sizing)
    load = Load(
        frame=frame_size,
        resized=size,
        batch=batch,
        grid=grid_size(size, extractor.stride),
        channels=extractor.coarse_channels if isinstance(extractor, BothMaps) else extractor.channels,
        labels=labels,
        anchors=anchors,
        propagation=settings.propagation,
        factor=extractor.factor if isinstance(extractor, BothMaps) else 1,
        finer_channels=extractor.finer_channels if isinstance(extractor, BothMaps) else 0,
    )
    passes = largest_pass(extractor, batch)
    load = replace(load, batch=max(batch, passes.frames))
    network = _network(extractor, size, passes, load.batch)
    tile_scores = default_tile_scores(network.device)
    program = _program(network)
    needed = _estimate(network, load, tile_scores, program)
    while limit is not None and needed.total > limit:
        half = passes.half
        if needed.transfer > needed.activations and tile_scores > 1:
            tile_scores //= 2
        elif needed.activations >= needed.transfer and half is not None:
            passes = half
            load = replace(load, batch=max(batch, passes.frames))
            network = _network(extractor, size, passes, load.batch)
        else:
            raise OutOfMemoryError(
                f"max_memory = {mib(limit)}: the least a run takes is about {needed}.", _remedy(needed)
            )
        needed = _estimate(network, load, tile_scores, program)
    if network.device == "cpu":
        _check_peak(limit)
    return MemoryPlan(passes, tile_scores, needed)


def check_learning(extractor: LabelReader, frame_size: tuple[int, int], settings: Settings) -> None:
    """Refuse to learn a label where a step of it does not fit into `settings.max_memory`.

    Args:
        extractor: what learns.
        frame_size: (height, width) of the frames.
        settings: of the run.

    Raises:
        OutOfMemoryError: it does not fit.
    """
    limit = settings.max_memory
    if limit is None:
        return
    size = working_size(frame_size, multiple=extractor.multiple, **settings.video.sizing)
    network = dry_run(partial(extractor.rehearse, size))
    on_cpu = network.device == "cpu"
    needed = MemoryEstimate(
        program=_program(network),
        frames=math.prod(frame_size) * BYTES_PER_PIXEL if on_cpu else 0,
        weights=network.given,
        activations=int(network.created * (_CPU_ACTIVATIONS if on_cpu else 1)),
        bank=0,
        transfer=0,
    )
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
    return f"Raise it, or lower {first}, then {then}, with --set."


def _network(extractor: FeatureExtractor, size: tuple[int, int], passes: PassSize, batch: int) -> Footprint:
    def one_batch() -> Tensor:
        images = torch.empty(batch, 3, *size)
        return Passes(extractor, passes).anchored(images[:1])(images)

    try:
        return dry_run(one_batch)
    except PropagateError:
        raise
    except Exception as error:  # whatever a foreign extractor does that cannot be done without contents
        raise UsageError(
            f"The memory that {type(extractor).__name__} takes cannot be estimated ({error}).", "Leave out max_memory."
        ) from error


def _program(network: Footprint) -> int:
    """What the process takes beside the run's own data."""
    if network.device != "cpu":
        return _PROGRAM_GPU
    load_compiled_loops()
    held = resident_bytes()
    if held is None:
        return _PROGRAM_CPU
    beside = held - network.given
    return (beside if beside >= _LEAST_PROGRAM else held) + _LATER


def _check_peak(limit: int | None) -> None:
    """Refuse a limit that loading libraries and weights has exceeded already."""
    peak = peak_bytes()
    if limit is not None and peak is not None and peak > limit:
        raise OutOfMemoryError(
            f"max_memory = {mib(limit)}: loading the program and the weights took {mib(peak)}.", "Raise it."
        )


def _estimate(network: Footprint, load: Load, tile_scores: int, program: int) -> MemoryEstimate:
    on_cpu = network.device == "cpu"
    return MemoryEstimate(
        program=program,
        frames=load.frame_bytes if on_cpu else 0,
        weights=network.given,
        activations=int(network.created * (_CPU_ACTIVATIONS if on_cpu else 1)),
        bank=load.bank_bytes + (load.rounded_bytes if on_cpu else 0),
        transfer=load.transfer_bytes(tile_scores),
    )
