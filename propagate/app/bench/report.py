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
    """What one configuration takes.

    Attributes:
        name: as in the table.
        resolved: its settings.
        device: of its extractor.
        stages: stage -> seconds per frame, run by run.
        end_to_end: the same for all of it.
        peak_memory: bytes of a process of its own, end to end; None where the system does not say.
        peak_device_memory: bytes of tensors on its GPU; None without one.
        dense: the transfer against the dense formulation, where it was asked for.
    """

    name: str
    resolved: ResolvedSettings
    device: str
    stages: Mapping[str, tuple[Timing, ...]]
    end_to_end: tuple[Timing, ...]
    peak_memory: int | None
    peak_device_memory: int | None
    dense: DenseComparison | None

    @property
    def rows(self) -> dict[str, tuple[Timing, ...]]:
        """All stages, their sum, and end to end."""
        runs = range(len(self.end_to_end))
        total = tuple(
            Timing(
                sum(self.stages[stage][run].wall for stage in STAGES),
                sum(self.stages[stage][run].cpu for stage in STAGES),
            )
            for run in runs
        )
        return {**{stage: self.stages[stage] for stage in STAGES}, "sum of the stages": total, WHOLE: self.end_to_end}


def as_table(measured: Sequence[Measured]) -> Table:
    """A row per stage; of the second configuration and those after it how many times as fast as the first."""
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
            cells += [_milliseconds(_wall(timings)), _milliseconds(_cpu(timings))]
            if number:
                cells.append(_times(ratio(_wall(first[stage]), _wall(timings))))
                cells.append(_times(ratio(_cpu(first[stage]), _cpu(timings))))
        table.add_row(*cells, style="bold" if stage == WHOLE else "", end_section=stage == STAGES[-1])
    rates = [1 / statistics.median(_wall(one.end_to_end)) for one in measured]
    table.add_row("frames/s", *_spread(measured, [f"{rate:.3g}" for rate in rates]))
    table.add_row("peak MiB", *_spread(measured, [_mib(one.peak_memory) for one in measured]))
    if any(one.peak_device_memory is not None for one in measured):
        table.add_row("GPU MiB", *_spread(measured, [_mib(one.peak_device_memory) for one in measured]))
    return table


def dense_table(measured: Sequence[Measured]) -> Table:
    """The transfer of each configuration against the dense formulation on the same tensors."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("transfer, one frame", "ms", "CPU ms", "MiB", "times as fast", "by CPU", "largest difference"):
        table.add_column(heading, justify="left" if heading.startswith("transfer") else "right")
    for one in measured:
        if one.dense is None:
            continue
        found = one.dense
        ways = [
            (f"{one.name}, dense", found.dense, found.dense_memory, ("", "", "")),
            (
                one.name,
                found.ours,
                found.ours_memory,
                (
                    _times(ratio(_wall(found.dense), _wall(found.ours))),
                    _times(ratio(_cpu(found.dense), _cpu(found.ours))),
                    f"{found.difference:.1e}",
                ),
            ),
        ]
        for name, timings, memory, rest in ways:
            table.add_row(Text(name), _milliseconds(_wall(timings)), _milliseconds(_cpu(timings)), _mib(memory), *rest)
    return table


def as_text(
    measured: Sequence[Measured],
    machine: Mapping[str, Any],
    origin: str,
    frames: int,
    label: Mask,
    repeat: int,
) -> str:
    """JSON with every run's times in seconds per frame, the medians, and the ratios to the first configuration."""
    height, width = label.size
    content = {
        "machine": machine,
        "versions": versions(),
        "clip": {
            "source": origin,
            "frames": frames,
            "width": width,
            "height": height,
            "objects": len(label.objects),
        },
        "repeat": repeat,
        "unit": "seconds per frame",
        "configs": [_config(one) for one in measured],
        "times_as_fast_as_first": [
            {
                "config": one.name,
                "first": measured[0].name,
                **{
                    stage: {
                        "wall": asdict(ratio(_wall(measured[0].rows[stage]), _wall(timings))),
                        "cpu": asdict(ratio(_cpu(measured[0].rows[stage]), _cpu(timings))),
                    }
                    for stage, timings in one.rows.items()
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
    if one.dense is not None:
        found = one.dense
        content["dense"] = {
            "transfer": {**_runs(found.ours), "memory": found.ours_memory},
            "dense": {**_runs(found.dense), "memory": found.dense_memory},
            "times_as_fast": asdict(ratio(_wall(found.dense), _wall(found.ours))),
            "times_as_fast_by_cpu": asdict(ratio(_cpu(found.dense), _cpu(found.ours))),
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


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1000 * statistics.median(seconds):.1f}"


def _times(found: Ratio) -> str:
    return f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"


def _mib(size: int | None) -> str:
    return _ABSENT if size is None else f"{size / 2**20:.0f}"


def _spread(measured: Sequence[Measured], values: Sequence[str]) -> list[str]:
    """One value per configuration, in the first of its columns."""
    cells = []
    for number, _ in enumerate(measured):
        cells += [values[number], "", *(["", ""] if number else [])]
    return cells
