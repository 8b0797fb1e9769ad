"""Damage to a folder of inputs: its files, by format, and other things in place of files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.fuzz import headers, packets, raw, values

_BY_SUFFIX = {
    **dict.fromkeys((".json",), values.mutate_json),
    **dict.fromkeys((".yaml", ".yml"), values.mutate_yaml),
    **dict.fromkeys((".csv", ".txt"), values.mutate_table),
    **dict.fromkeys((".png", ".apng"), headers.mutate_png),
    **dict.fromkeys((".tif", ".tiff"), headers.mutate_tiff),
    **dict.fromkeys((".mp4", ".mov", ".m4v", ".avif", ".heic"), headers.mutate_boxes),
    ".safetensors": headers.mutate_safetensors,
    **dict.fromkeys((".pt", ".pth", ".ckpt"), headers.mutate_checkpoint),
}
_TEXTUAL = {".json", ".yaml", ".yml", ".csv", ".txt"}
_NAMES = (
    b"99999999999999999999%s",
    b"-1%s",
    b"-o%s",
    b"0x10%s",
    b"\xd9\xa3%s",
    b"\xff\xfe%s",
    b"a\nb%s",
    b"\x1b[31m%s",
    b" %s",
    b".hidden%s",
    b"00000 (1)%s",
    b"00000.0%s",
    b"%%05d%s",
    b"*%s",
    b"[0-9]%s",
    b"12:30%s",
    "é".encode() + b"%s",
    b"x" * 240 + b"%s",
)


def mutate_tree(root: Path, targets: Sequence[str], rng: Random) -> list[str]:
    """Damage one to three of the files that match.

    Args:
        root: a folder that may be changed.
        targets: glob patterns below it; a path of a folder stands for the folder itself.
        rng: decides on everything.

    Returns:
        What was done, a line each.
    """
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = sorted({path for pattern in targets for path in root.glob(pattern)}, key=os.fsencode)
        if not found:
            break
        path = rng.choice(found)
        done.append(f"{os.fsencode(path.relative_to(root))!r}: {_mutate(path, found, rng)}")
    return done


def _mutate(path: Path, others: Sequence[Path], rng: Random) -> str:
    if rng.random() < (0.6 if path.is_dir() else 0.1) or path.is_symlink() or not (path.is_file() or path.is_dir()):
        return _odd_place(path, others, rng)
    if path.is_dir():
        inside = sorted((inner for inner in path.iterdir() if inner.is_file()), key=os.fsencode)
        return _mutate(rng.choice(inside), others, rng) if inside else _odd_place(path, others, rng)
    content = path.read_bytes()
    suffix = path.suffix.lower()
    by_format = _BY_SUFFIX.get(suffix)
    if suffix in packets.SUFFIXES and rng.random() < 0.3:
        changed, damage = packets.mutate_packets(content, suffix, rng), "packets"
    elif by_format is not None and rng.random() < (0.8 if suffix in _TEXTUAL else 0.5):
        try:
            changed, damage = by_format(content, rng), by_format.__name__
        except Exception:  # what an earlier damage has left is not what these expect
            changed, damage = raw.mutate_bytes(content, rng), "bytes"
    else:
        files = [other for other in others if other.is_file()]
        changed, damage = raw.mutate_bytes(content, rng, rng.choice(files).read_bytes() if files else b""), "bytes"
    path.unlink()  # it may be a link to the file that all cases share
    path.write_bytes(changed)
    return damage


def _odd_place(path: Path, others: Sequence[Path], rng: Random) -> str:
    """Replace a file or folder by something else."""
    damage = rng.randrange(11)
    if damage in (7, 8, 9) and not path.is_symlink() and path.exists():
        return _renamed(path, others, rng, damage)
    was_folder = path.is_dir() and not path.is_symlink()
    if was_folder:
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if damage == 0:
        os.mkfifo(path)
        return "FIFO"
    if damage == 1:
        path.symlink_to("nowhere")
        return "dangling link"
    if damage == 2:
        path.symlink_to(path.name)
        return "link to itself"
    if damage == 3:
        path.mkdir()
        return "folder"
    if damage == 4:
        path.write_bytes(b"")
        return "empty file"
    if damage == 5:
        # whoever links a folder to another place wants things to be written there
        path.symlink_to(rng.choice(("/dev/zero", "/dev/null", *(() if was_folder else ("..", "../victim")))))
        return "link to a device or a folder"
    if damage == 6:
        path.write_bytes(rng.randbytes(300))
        return "random bytes"
    return "removed"


def _renamed(path: Path, others: Sequence[Path], rng: Random, damage: int) -> str:
    if damage == 7:
        name = rng.choice(_NAMES).replace(b"%s", os.fsencode(path.suffix))
        target = path.parent / os.fsdecode(name)
        if not os.path.lexists(target):
            path.rename(target)
        return f"renamed to {name!r}"
    if damage == 8 and path.is_file():
        name = rng.choice(_NAMES).replace(b"%s", os.fsencode(path.suffix))
        target = path.parent / os.fsdecode(name)
        if not os.path.lexists(target):
            shutil.copyfile(path, target)
        return f"copied to {name!r}"
    other = rng.choice(others)
    if path.is_file() and other.is_file() and other != path:
        first, second = path.read_bytes(), other.read_bytes()
        for place, content in ((path, second), (other, first)):
            place.unlink()
            place.write_bytes(content)
        return f"swapped with {other.name}"
    return "nothing"
