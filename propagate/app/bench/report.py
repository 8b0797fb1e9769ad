"""The times of `propagate bench` as a table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from propagate.benchmarks.speed.stage_times import STAGES
from propagate.benchmarks.speed.timing import Ratio, Timing, ratio
from propagate.benchmarks.speed.transfer_step import DenseComparison
from propagate.formats import settings_hash
from propagate.formats.output.run_record import json_text
from propagate.provenance import all_settings, versions
from propagate.settings import ResolvedSettings
from propagate.types import Mask

WHOLE = "end to end"
_ABSENT = "-"


@dataclass(frozen=True)
class Measured:
    """The measurements of one configuration."""

    name: str
    resolved: ResolvedSettings
    device: str
    stages: Mapping[str, tuple[Timing, ...]]  # run by run
    end_to_end: tuple[Timing, ...]
    peak_memory: int | None  # bytes of a process of its own; None where the system does not report it
    peak_device_memory: int | None  # bytes on its GPU
    dense: DenseComparison | None

    @property
    def rows(self) -> dict[str, tuple[Timing, ...]]:
        """All stages, their sum, and end to end."""
        stages = {stage: self.stages[stage] for stage in STAGES}
        runs = zip(*stages.values(), strict=True)
        total = tuple(Timing(sum(_wall(run)), sum(_cpu(run))) for run in runs)
        return {**stages, "sum of the stages": total, WHOLE: self.end_to_end}


def as_table(measured: Sequence[Measured]) -> Table:
    """Return a row per stage; later configurations with their speed relative to the first."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    for number, one in enumerate(measured):
        table.add_column(Text(f"{one.name}: ms"), justify="right")
        table.add_column("CPU ms", justify="right")
        if number:
            table.add_column("times as fast", justify="right")
            table.add_column("by CPU", justify="right")
    first = measured[0].rows
    for stage in first:
        cells = [stage]
        for number, one in enumerate(measured):
            timings = one.rows[stage]
            cells += _milliseconds(timings)
            if number:
                cells += map(_times, _ratios(first[stage], timings))
        table.add_row(*cells, style="bold" if stage == WHOLE else "", end_section=stage == STAGES[-1])
    rates = [1 / statistics.median(_wall(one.end_to_end)) for one in measured]
    table.add_row("frames/s", *_spread([f"{rate:.3g}" for rate in rates]))
    table.add_row("peak MiB", *_spread([_mib(one.peak_memory) for one in measured]))
    if any(one.peak_device_memory is not None for one in measured):
        table.add_row("GPU MiB", *_spread([_mib(one.peak_device_memory) for one in measured]))
    return table


def dense_table(measured: Sequence[Measured]) -> Table:
    """Return the transfer of each configuration and the dense formulation on the same tensors."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("transfer, one frame", "ms", "CPU ms", "MiB", "times as fast", "by CPU", "largest difference"):
        table.add_column(heading, justify="left" if heading.startswith("transfer") else "right")
    for one in measured:
        if (found := one.dense) is not None:
            ratios = map(_times, _ratios(found.dense, found.ours))
            dense = Text(f"{one.name}, dense")
            table.add_row(dense, *_milliseconds(found.dense), _mib(found.dense_memory), "", "", "")
            ours = (*_milliseconds(found.ours), _mib(found.ours_memory))
            table.add_row(Text(one.name), *ours, *ratios, f"{found.difference:.1e}")
    return table


def as_text(
    measured: Sequence[Measured], machine: Mapping[str, Any], origin: str, frames: int, label: Mask, repeat: int
) -> str:
    """Return JSON with the times of every run, their medians, and the ratios to the first configuration."""
    height, width = label.size
    content = {
        "machine": machine,
        "versions": versions(),
        "clip": {"source": origin, "frames": frames, "width": width, "height": height, "objects": len(label.objects)},
        "repeat": repeat,
        "unit": "seconds per frame",
        "configs": [_config(one) for one in measured],
        "times_as_fast_as_first": [
            {
                "config": one.name,
                "first": measured[0].name,
                **{
                    stage: dict(zip(("wall", "cpu"), map(asdict, _ratios(timings, one.rows[stage])), strict=True))
                    for stage, timings in measured[0].rows.items()
                },
            }
            for one in measured[1:]
        ],
    }
    return json_text(content).rstrip("\n")


def _config(one: Measured) -> dict[str, Any]:
    values = {key: setting.value for key, setting in all_settings(one.resolved).items()}
    content: dict[str, Any] = {
        "name": one.name,
        "settings_hash": settings_hash(values),
        "settings": values,
        "device": one.device,
        "stages": {stage: _runs(timings) for stage, timings in one.rows.items() if stage != WHOLE},
        "end_to_end": _runs(one.end_to_end),
        "frames_per_second": 1 / statistics.median(_wall(one.end_to_end)),
        "peak_memory": one.peak_memory,
        "peak_device_memory": one.peak_device_memory,
    }
    if (found := one.dense) is not None:
        wall, cpu = _ratios(found.dense, found.ours)
        content["dense"] = {
            "transfer": {**_runs(found.ours), "memory": found.ours_memory},
            "dense": {**_runs(found.dense), "memory": found.dense_memory},
            "times_as_fast": asdict(wall),
            "times_as_fast_by_cpu": asdict(cpu),
            "largest_difference": found.difference,
        }
    return content


def _runs(timings: Sequence[Timing]) -> dict[str, Any]:
    wall, cpu = _wall(timings), _cpu(timings)
    return {"wall": statistics.median(wall), "cpu": statistics.median(cpu), "wall_runs": wall, "cpu_runs": cpu}


def _wall(timings: Sequence[Timing]) -> list[float]:
    return [timing.wall for timing in timings]


def _cpu(timings: Sequence[Timing]) -> list[float]:
    return [timing.cpu for timing in timings]


def _ratios(slow: Sequence[Timing], fast: Sequence[Timing]) -> tuple[Ratio, Ratio]:
    return ratio(_wall(slow), _wall(fast)), ratio(_cpu(slow), _cpu(fast))


def _milliseconds(timings: Sequence[Timing]) -> list[str]:
    return [f"{1000 * statistics.median(seconds):.1f}" for seconds in (_wall(timings), _cpu(timings))]


def _times(found: Ratio) -> str:
    return f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"


def _mib(size: int | None) -> str:
    return _ABSENT if size is None else f"{size / 2**20:.0f}"


def _spread(values: Sequence[str]) -> list[str]:
    """Put each value into the first column of its configuration."""
    cells = [[value, "", *(["", ""] if number else [])] for number, value in enumerate(values)]
    return [cell for row in cells for cell in row]
