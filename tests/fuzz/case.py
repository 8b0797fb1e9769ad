"""One case: a damaged copy of a valid input, the command that reads it, and the verdict."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.command import Ending, run_command
from tests.fuzz.folders import mutate_tree
from tests.fuzz.variant import OUT, Variant

OK, ERROR = "ok", "our error"
EXCEPTION, HANG, MEMORY, CRASH = "foreign exception", "hang", "memory", "crash"
OUTSIDE, LEFTOVER, DIFFERENT, NETWORK, ESCAPE = "outside", "leftover", "different", "network", "escape"
REFUSED, SILENT = "valid input refused", "silent"
FINDINGS = (EXCEPTION, HANG, MEMORY, CRASH, OUTSIDE, LEFTOVER, DIFFERENT, NETWORK, ESCAPE, REFUSED, SILENT)
MOST_MEMORY = 2 * 2**30
_WRITTEN = (OUT, "cache", "again", "xdg")  # where commands may write
_COPIED = 256 * 2**10  # larger files are linked


@dataclass(frozen=True)
class Verdict:
    """The verdict of a case.

    Attributes:
        outcome: OK, ERROR or one of FINDINGS.
        report: the command, what was damaged, and what went wrong.
        seconds: it took.
        peak: of the process's memory meanwhile, in bytes.
    """

    outcome: str
    report: str = ""
    seconds: float = 0.0
    peak: int = 0


def prepare(
    variants: Sequence[Variant], key: tuple[int, str, int], place: Path
) -> tuple[Variant, list[str], list[str]]:
    """Write the damaged input of a case.

    Args:
        variants: of its kind.
        key: seed, kind and number, which decide on everything; -1, -2, ... are the undamaged variants.
        place: becomes the working directory of the command; its parent holds files that nothing may touch.

    Returns:
        The variant, the arguments and what was damaged.
    """
    seed, kind, number = key
    rng = Random(f"{seed}:{kind}:{number}")
    variant = variants[-1 - number] if number < 0 else rng.choice(variants)
    shutil.copytree(variant.folder, place, symlinks=True, copy_function=_link_or_copy)
    for beside in (place, place.parent):
        (beside / "canary.txt").write_text("nobody may touch this")
        (beside / "victim").mkdir()
        for name in ("00000.png", "run.json"):
            (beside / "victim" / name).write_bytes(b'{"files": {}}')
    if number < 0:
        return variant, [*variant.arguments, *(variant.vary(rng) if not variant.targets and variant.vary else ())], []
    done = mutate_tree(place, variant.targets, rng) if variant.targets else []
    for path in place.rglob("*.json"):
        if path.is_file() and not path.is_symlink() and b"CASE/" in (content := path.read_bytes()):
            path.unlink()
            path.write_bytes(content.replace(b"CASE/", os.fsencode(place.parent) + b"/"))
    arguments = [*variant.arguments, *(variant.vary(rng) if variant.vary else ())]
    return variant, [argument.replace("CASE/", f"{place.parent}/") for argument in arguments], done


def judge(variant: Variant, arguments: Sequence[str], place: Path, *, again: bool) -> tuple[str, str]:
    """Run a case's command in its folder and return its outcome."""
    os.environ["XDG_CACHE_HOME"] = str(place / "xdg")
    before = _snapshot(place)
    os.chdir(place)
    attempts: list[str] = []
    try:
        with _no_network(attempts):
            ending = run_command(arguments)
            twin = _again(arguments, ending, place) if again and variant.repeated else None
            silent = variant.check(place, arguments, ending) if variant.check and ending.code == 0 else None
    finally:
        os.chdir("/")
    outcome, report = _outcome(ending, attempts)
    if outcome in (OK, ERROR):
        if changed := sorted(set(before.items()) ^ set(_snapshot(place).items())):
            return OUTSIDE, "\n".join(map(repr, changed[:20])) + "\n" + ending.output[-3000:]
        if left := _leftovers(place):
            return LEFTOVER, f"{left}\n{ending.output[-3000:]}"
        if twin:
            return DIFFERENT, twin
        if silent:
            return SILENT, f"{silent}\n{ending.output[-3000:]}"
    return outcome, report


def _outcome(ending: Ending, attempts: Sequence[str]) -> tuple[str, str]:
    if ending.out_of_memory:
        return MEMORY, "an allocation failed\n" + ending.output[-6000:]
    if ending.foreign:
        return EXCEPTION, "\n".join(ending.foreign)[-12_000:]
    if attempts:
        return NETWORK, "\n".join(attempts) + ending.output[-6000:]
    if "\x1b" in ending.output:
        return ESCAPE, ending.output[-3000:]
    return (OK if ending.code == 0 else ERROR), ending.output[-3000:]


def _again(arguments: Sequence[str], first: Ending, place: Path) -> str | None:
    """Run the command again and return the differences in words."""
    if OUT not in arguments:
        return None
    second = run_command(["again" if argument == OUT else argument for argument in arguments])
    if first.code != second.code:
        return f"exit code {first.code}, then {second.code}\n{first.output[-2000:]}\n{second.output[-2000:]}"
    files = [{path.relative_to(root): path for path in _files(root)} for root in (place / OUT, place / "again")]
    if files[0].keys() != files[1].keys():
        return f"other files: {sorted(files[0].keys() ^ files[1].keys())[:10]}"
    for name, path in files[0].items():
        if path.suffix in (".png", ".csv", ".npz") or path.name in ("keypoints.json", "correspondences.json"):
            if path.parts[-1] in ("timing.csv", "speed.csv", "summary.csv", "resources.csv"):
                continue
            if path.read_bytes() != files[1][name].read_bytes():
                return f"{name} differs between two runs"
    return None


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file()) if root.is_dir() else iter(())


def _leftovers(place: Path) -> list[str]:
    """Return our temporary files."""
    return [
        os.fsdecode(os.fsencode(path.relative_to(place)))
        for root in (OUT, "cache")
        for path in ((place / root).rglob(".*") if (place / root).is_dir() else ())
        if len(path.name.split(".")) > 3 or ".unfinished." in path.name
    ]


def _snapshot(place: Path) -> dict[str, tuple[Any, ...]]:
    """Return the state of everything that a command must not change: type, size, time and target of links."""
    found: dict[str, tuple[Any, ...]] = {}
    stack = [place.parent]
    while stack:
        for entry in os.scandir(stack.pop()):
            if entry.path in (*(str(place / name) for name in _WRITTEN),):
                continue
            status = entry.stat(follow_symlinks=False)
            target = str(Path(entry.path).readlink()) if entry.is_symlink() else ""
            if entry.is_dir(follow_symlinks=False):
                found[entry.path] = ("folder",)
                stack.append(Path(entry.path))
            else:
                found[entry.path] = (status.st_mode, status.st_size, status.st_mtime_ns, target)
    return found


@contextmanager
def _no_network(attempts: list[str]) -> Iterator[None]:
    def refused(*arguments: object, **_options: object) -> Any:
        attempts.append(f"the network was asked for: {arguments[-2:]}")
        raise OSError("no network here")

    before = socket.socket.connect, socket.getaddrinfo
    socket.socket.connect, socket.getaddrinfo = refused, refused  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        socket.socket.connect, socket.getaddrinfo = before  # type: ignore[method-assign]


def _link_or_copy(source: str, target: str) -> None:
    if Path(source).stat().st_size > _COPIED:
        os.link(source, target)
    else:
        shutil.copyfile(source, target)


def peak_memory(*, reset: bool = False) -> int:
    """Return the peak resident size of this process since its reset, in bytes; 0 where the system has none."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return 0


def head_file(root: Path) -> Path:
    """Return the file that describes the case in this folder."""
    return root.with_name(f"{root.name}.head")


def run_case(variants: Sequence[Variant], seed: int, kind: str, number: int, root: Path) -> Verdict:
    """Make a case, run it and remove it again."""
    root.mkdir(parents=True)
    head = head_file(root)
    head.unlink(missing_ok=True)
    try:
        variant, arguments, done = prepare(variants, (seed, kind, number), root / "case")
        report = f"{variant.name}: propagate {' '.join(map(repr, arguments))}\n" + "\n".join(done) + "\n"
        head.write_text(report, encoding="utf-8", errors="backslashreplace")  # a process that dies tells nothing else
        peak_memory(reset=True)
        start = time.monotonic()
        outcome, found = judge(variant, arguments, root / "case", again=number % 8 == 0)
        seconds, peak = time.monotonic() - start, peak_memory()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if outcome in (OK, ERROR) and peak > MOST_MEMORY:
        outcome, found = MEMORY, f"peak of {peak / 1e9:.2f} GB\n{found}"
    if number < 0 and outcome == ERROR and variant.targets and variant.valid:
        outcome = REFUSED
    return Verdict(outcome, report + found, seconds, peak)
