"""`propagate doctor`: check the installation."""

# Annotations are evaluated here, see `options.command`.
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated

from propagate.app import options
from propagate.app.terminal.console import Terminal

if TYPE_CHECKING:
    from propagate.features import FeatureExtractor
    from propagate.settings import Settings

_FRAME_SIZE = (480, 854)  # 480p: DAVIS


@dataclass(frozen=True)
class Check:
    """One line of the report; with a remedy if something is missing, and an exit code if it is essential."""

    topic: str
    finding: str
    remedy: str = ""
    exit_code: int = 0


def doctor(
    terminal: Terminal,
    preset: options.Preset,
    offline: options.Offline = False,
    check_extractors: Annotated[
        bool, options.flag("--check-extractors", "Import the extractors of other packages.")
    ] = False,
) -> int:
    """Check versions, devices, readers, codecs, presets, weights and memory."""
    resolved = preset.changes.resolve(preset.config)
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    code = 0
    checks = chain(_packages(), _devices(), _media(), _extractors(check_extractors), _preset(resolved.settings))
    for check in checks:
        mark = Text("missing", "bold red" if check.exit_code else "yellow") if check.remedy else Text("ok", "green")
        table.add_row(mark, check.topic, check.finding)
        if check.remedy:
            table.add_row("", "", Text(check.remedy, "dim"))
        code = code or check.exit_code
    terminal.answer(table)
    return code


def _packages() -> Iterator[Check]:
    from propagate.provenance import versions

    for name, found in versions().items():
        if found is not None:
            yield Check(name, found)
        elif name != "decord":  # optional, reported below
            yield Check(name, "not installed", "Reinstall dift-propagate.", exit_code=1)


def _devices() -> Iterator[Check]:
    import torch

    from propagate.features.device import available_devices

    names = []
    for kind in available_devices():
        if kind == "cuda":
            names += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
        elif kind == "cpu":
            names.append(f"cpu ({torch.get_num_threads()} threads)")
        else:
            names.append(kind)
    yield Check("devices", ", ".join(names))


def _media() -> Iterator[Check]:
    import av

    from propagate.video.decord_reader import import_decord

    if import_decord() is None:
        yield Check("readers", "pyav, folder")
        yield Check("decord", "not installed", "Optional: `pip install decord2`; PyAV reads everything without it.")
    else:
        yield Check("readers", "decord, pyav, folder")
    try:
        av.Codec("libx264", "w")
    except ValueError:  # UnknownCodecError
        yield Check("H.264 encoder", "PyAV has none", "Install av from PyPI, or run with --no-overlay.", exit_code=1)
    else:
        yield Check("H.264 encoder", "libx264")


def _extractors(import_others: bool) -> Iterator[Check]:
    from propagate.errors import UsageError
    from propagate.features import EXTRACTORS, extractor_options
    from propagate.features.plugins import installed_extractors, provider
    from propagate.settings import preset_names

    yield Check("presets", ", ".join(preset_names()))
    others = installed_extractors()
    texts = [f"{name} ({', '.join(provider(entry) for entry in entries)})" for name, entries in others.items()]
    yield Check("extractors", ", ".join([*EXTRACTORS, *texts]))
    for name in others if import_others else ():
        try:
            extractor_options(name)
        except UsageError as error:
            yield Check(f"extractor {name}", error.message, error.remedy)


def _preset(settings: "Settings") -> Iterator[Check]:
    """Build the preset's extractor and estimate the memory of a clip."""
    from propagate.errors import PropagateError
    from propagate.features import build_extractor

    name = settings.features.name
    try:
        extractor = build_extractor(name, **settings.features.options)
    except PropagateError as error:
        yield Check(f"features {name}", error.message, error.remedy or "See above.", error.exit_code)
        return
    yield Check(f"features {name}", f"{extractor.channels} channels at stride {extractor.stride}")
    yield _memory(extractor, settings)


def _memory(extractor: "FeatureExtractor", settings: "Settings") -> Check:
    """Estimate the memory of a DAVIS clip with one object."""
    from propagate.errors import PropagateError
    from propagate.planning.plan import plan_memory

    try:
        plan = plan_memory(extractor, _FRAME_SIZE, settings)
    except PropagateError as error:
        return Check("memory", error.message, error.remedy, error.exit_code)
    height, width = _FRAME_SIZE
    return Check("memory", f"about {plan.estimate} for a {width}x{height} clip, {plan} at a time; {_free()} free")


def _free() -> str:
    pages: Callable[[str], int] = os.sysconf
    try:
        return f"{pages('SC_AVPHYS_PAGES') * pages('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    except (ValueError, OSError):  # macOS does not know
        return "an unknown amount"
