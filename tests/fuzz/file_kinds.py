"""Kinds of single inputs: videos, pictures, masks, keypoints, presets and settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
from PIL import Image

from tests.fuzz import inputs
from tests.fuzz.command import Ending
from tests.fuzz.values import HOSTILE_NAMES, near, yaml_value
from tests.fuzz.variant import OUT, QUICK, SMALL, Variant, one_of

_FRAMES = one_of(
    (), (), (), ("--reader", "pyav"), ("--reader", "decord"), ("--stride", "2"), ("--from-frame", "1"), ("--strict",)
)


def _every_frame(place: Path, arguments: Sequence[str], ending: Ending) -> str | None:
    """Check that every frame of a plain decoder is read, or that a message explains why not."""
    name = arguments[1]
    if "note:" in ending.output or "frames/s" not in ending.output or _has_options(arguments):
        return None
    try:
        with av.open(str(place / name)) as container:
            decoded = sum(1 for _ in container.decode(video=0))
    except (av.FFmpegError, ValueError, IndexError):
        return None
    written = len(list((place / OUT / "masks").glob("*.png")))
    return None if written == decoded else f"{decoded} frames can be decoded, {written} were written"


def _has_options(arguments: Sequence[str]) -> bool:
    return bool({"--stride", "--from-frame", "--to-frame"} & {*arguments})


def video(root: Path) -> Iterator[Variant]:
    for name, (codec, pixels, options) in inputs.CODECS.items():
        folder = root / name
        folder.mkdir()
        if inputs.write_clip(folder / name, codec, pixels, options):
            inputs.write_mask(folder / "mask.png")
            arguments = ("segment", name, "--mask", "mask.png", *QUICK)
            yield Variant(name, folder, (name,), arguments, _FRAMES, check=_every_frame)

    folder = root / "avif"
    folder.mkdir()
    Image.fromarray(inputs.picture()).save(folder / "picture.avif")
    inputs.write_mask(folder / "mask.png")
    yield Variant("avif", folder, ("picture.avif",), ("segment", "picture.avif", "--mask", "mask.png", *QUICK))


def masks(root: Path) -> Iterator[Variant]:
    for name, picture, options in inputs.masks():
        folder = root / name
        inputs.write_frames(folder / "frames", count=2)
        try:
            picture.save(folder / name, **options)
        except (OSError, KeyError):  # this build of Pillow lacks the format
            continue
        arguments = ("segment", "frames", "--mask", name, *QUICK)
        yield Variant(name, folder, (name,), arguments, one_of((), (), ("--resize-mask",)))


def frames(root: Path) -> Iterator[Variant]:
    for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp"):
        folder = root / suffix
        inputs.write_frames(folder / "frames", suffix)
        inputs.write_mask(folder / "mask.png")
        arguments = ("segment", "frames", "--mask", "mask.png", *QUICK)
        yield Variant(suffix, folder, ("frames/*", "frames"), arguments, _FRAMES)
    folder = root / "mixed"
    inputs.write_frames(folder / "frames")
    inputs.write_mask(folder / "frames" / "mask.png")
    for place, (name, picture, options) in enumerate(inputs.masks()):
        if picture.mode in ("I;16", "RGB", "RGBA", "LA", "CMYK", "L"):
            picture.save(folder / "frames" / f"{20 + place:05d}{Path(name).suffix}", **options)
    arguments = ("segment", "frames", "--mask", "frames/mask.png", *QUICK)
    yield Variant("mixed", folder, ("frames/*",), arguments)


def keypoints(root: Path) -> Iterator[Variant]:
    for command in ("track", "reference"):
        folder = root / command
        inputs.write_frames(folder / "frames", count=2)
        for name in inputs.keypoint_files(folder):
            others = {"track": ("track", "frames"), "reference": ("track", "frames", "-r", "frames/00001.png")}
            yield Variant(f"{command}_{name}", folder, (name,), (*others[command], "-k", name, *QUICK))


_PRESET = """\
video: {short_side: 48, stride: 1, rounding: down}
features: {name: rgb, batch_size: 2}
propagation: {n_last: 2, n_older: 1, top_k: 3, temperature: 0.2, window: circle, radius: 3.5, ties: keep}
labels:
  masks: {codec: soft, encode: blend, upsample: bilinear, stretch: true, vanish: 0.1}
  keypoints: {sigma: 1.5, absent: 0.05}
output: {overlay: false, crf: 30}
max_memory: 3GB
"""
_FUSION = """\
video: {short_side: 48}
features:
  - {name: rgb, weight: 0.5, normalize: true}
  - {name: rgb, pca: 4, fit: picture}
"""


def presets(root: Path) -> Iterator[Variant]:
    for name, text in (("plain", _PRESET), ("fusion", _FUSION)):
        folder = root / name
        inputs.write_frames(folder / "frames", count=3)
        inputs.write_mask(folder / "mask.png")
        (folder / "preset.yaml").write_text(text, encoding="utf-8")
        run = ("segment", "frames", "--mask", "mask.png", "-c", "preset.yaml", "--device", "cpu", "-o", OUT, "-vv")
        yield Variant(f"{name}_segment", folder, ("preset.yaml",), run)
        yield Variant(f"{name}_show", folder, ("preset.yaml",), ("config", "show", "preset.yaml", "-vv"))
        yield Variant(f"{name}_doctor", folder, ("preset.yaml",), ("doctor", "-c", "preset.yaml", "-vv"))


_WORDS = (
    *(
        "auto",
        "decord",
        "pyav",
        "folder",
        "up",
        "down",
        "square",
        "circle",
        "none",
        "cut",
        "keep",
        "float16",
        "bfloat16",
    ),
    *(
        "soft",
        "dift",
        "crw",
        "area",
        "blend",
        "nearest",
        "guided",
        "bicubic",
        "bilinear",
        "jhmdb",
        "gaussian",
        "subpixel",
    ),
)


_OPTIONS = ("--stride", "--from-frame", "--to-frame", "--max-memory", "--device", "--cache-size", "--reader", "-c")
_OPTION_VALUES = ("0", "-1", "1", "1e9", "99999999999999999999", "2GB", "1KB", "cuda:7", "9" * 400)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of nested settings."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _settings(defaults: Mapping[str, Any], most: int | None, rng: Random) -> Sequence[str]:
    """`--set` of one or two keys, and sometimes another option."""
    keys = sorted(defaults)
    sections = sorted({key.rpartition(".")[0] for key in keys} - {""})
    given: list[str] = []
    for _ in range(rng.choice((1, 1, 2))):
        key = rng.choice((*keys, *keys, *keys, *sections, "features.weights", "features.parts.0.name", "x", "", "a.b"))
        plausible = key in defaults and rng.random() < 0.5
        value = json.dumps(near(defaults[key], rng)).replace("\0", "") if plausible else yaml_value(rng)
        if plausible and isinstance(defaults[key], str) and rng.random() < 0.7:
            value = rng.choice(_WORDS)
        given += ("--set", f"{key}={value}")
    if rng.random() < 0.25:
        given += (rng.choice(_OPTIONS), rng.choice((*HOSTILE_NAMES, *_OPTION_VALUES)).replace("\0", ""))
    return given[:most]


def assignments(root: Path) -> Iterator[Variant]:
    from propagate.settings import load_settings

    settings = load_settings("rgb")
    defaults = dict(flat(getattr(settings, "settings", settings).model_dump()))
    vary = partial(_settings, defaults, None)
    folder = root / "plain"
    inputs.write_frames(folder / "frames", count=3)
    inputs.write_mask(folder / "mask.png")
    inputs.keypoint_files(folder)
    mask, points = (("segment", "frames", "-m", "mask.png"), ("track", "frames", "-k", "ours.json"))
    for name, command in (("segment", mask), ("track", points)):
        yield Variant(name, folder, (), (*command, *QUICK), vary)
    config = ("config", "show", "rgb", "-vv")
    yield Variant("show", folder, (), config, partial(_settings, defaults, 2))


def matches(root: Path) -> Iterator[Variant]:
    for suffix in (".png", ".jpg", ".tif", ".webp"):
        folder = root / suffix
        folder.mkdir()
        for name, index in (("a", 0), ("b", 2)):
            Image.fromarray(inputs.picture(index)).save(folder / f"{name}{suffix}")
        inputs.keypoint_files(folder)
        inputs.write_mask(folder / "mask.png")
        own = (*SMALL, "-o", OUT, "-vv")
        pair = (f"a{suffix}", f"b{suffix}")
        yield Variant(f"points{suffix}", folder, ("a.*", "b.*", "ours.json"), ("match", *pair, "-p", "ours.json", *own))
        yield Variant(f"dense{suffix}", folder, ("a.*", "b.*"), ("match", *pair, "--dense", *own))
        reference = ("segment", pair[1], "-r", pair[0], "-m", "mask.png", *QUICK)
        yield Variant(f"reference{suffix}", folder, ("a.*", "b.*", "mask.png"), reference)


def sizes(root: Path) -> Iterator[Variant]:
    """Saved arrays and videos of unusual content, which are valid."""
    folder = root / "sizes"
    folder.mkdir()
    for name, size in (("tiny", (1, 1)), ("line", (1, 400)), ("odd", (17, 33)), ("wide", (16, 600))):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(folder / f"{name}.png")
        mask = np.zeros(size, np.uint8)
        mask[: max(1, size[0] // 2), : max(1, size[1] // 2)] = 1
        Image.fromarray(mask).save(folder / f"{name}_mask.png")

    yield Variant("sizes", folder, (), ("segment", *QUICK), _some_size)


def _some_size(rng: Random) -> Sequence[str]:
    names = ("tiny", "line", "odd", "wide")
    frame = rng.choice(names)
    mask = frame if rng.random() < 0.7 else rng.choice(names)
    setting = ("--set", f"video.short_side={rng.choice(('null', '16', '48', '100'))}")
    return (f"{frame}.png", "--mask", f"{mask}_mask.png", *setting, *rng.choice(((), ("--resize-mask",))))
