"""The kinds of inputs: what is damaged, and which command reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import av
import numpy as np
from PIL import Image

from tests.fuzz import inputs
from tests.fuzz.command import Ending, run_here
from tests.fuzz.values import HOSTILE_NAMES, yaml_value

OUT = "out"
_SMALL = ("-c", "rgb", "--set", "video.short_side=48", "--device", "cpu")
_QUICK = (*_SMALL, "--no-overlay", "-o", OUT, "-vv")

Vary = Callable[[Random], Sequence[str]]
Check = Callable[[Path, Sequence[str], Ending], str | None]


@dataclass(frozen=True)
class Variant:
    """One valid input and the command that reads it.

    Attributes:
        name: within its kind.
        folder: is copied for each case; the command runs in the copy.
        targets: glob patterns of what is damaged in it; none: the arguments alone are.
        arguments: of `propagate`.
        vary: further arguments, from the case's random numbers.
        repeated: the command's results are compared with those of a second run.
        check: looks at the folder after an exit code of 0, and says what is wrong there without a word.
    """

    name: str
    folder: Path
    targets: Sequence[str]
    arguments: Sequence[str]
    vary: Vary | None = None
    repeated: bool = True
    check: Check | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of inputs.

    Attributes:
        make: writes the inputs below a folder; a variant each.
        share: how many of the cases, against 1 of the other kinds.
    """

    make: Callable[[Path], Iterator[Variant]]
    share: float = 1.0


def _one_of(*choices: Sequence[str]) -> Vary:
    return lambda rng: rng.choice(choices)


_FRAMES = _one_of(
    (), (), (), ("--reader", "pyav"), ("--reader", "decord"), ("--stride", "2"), ("--from-frame", "1"), ("--strict",)
)


def _every_frame(place: Path, arguments: Sequence[str], ending: Ending) -> str | None:
    """Whatever a plain decoder gives of a video is there, or something is said."""
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


def _as_expected(*suffixes: str) -> Check:
    """Results are those of the undamaged input, which lie beside."""

    def check(place: Path, _arguments: Sequence[str], _ending: Ending) -> str | None:
        for path in sorted((place / "expected").rglob("*")):
            written = place / OUT / path.relative_to(place / "expected")
            if path.suffix in suffixes and (not written.is_file() or written.read_bytes() != path.read_bytes()):
                return f"{written.relative_to(place)} is not what the undamaged input gives"
        return None

    return check


def _video(root: Path) -> Iterator[Variant]:
    for name, (codec, pixels, options) in inputs.CODECS.items():
        folder = root / name
        folder.mkdir()
        if inputs.write_clip(folder / name, codec, pixels, options):
            inputs.write_mask(folder / "mask.png")
            arguments = ("segment", name, "--mask", "mask.png", *_QUICK)
            yield Variant(name, folder, (name,), arguments, _FRAMES, check=_every_frame)

    folder = root / "avif"
    folder.mkdir()
    Image.fromarray(inputs.picture()).save(folder / "picture.avif")
    inputs.write_mask(folder / "mask.png")
    yield Variant("avif", folder, ("picture.avif",), ("segment", "picture.avif", "--mask", "mask.png", *_QUICK))


def _masks(root: Path) -> Iterator[Variant]:
    for name, picture, options in inputs.masks():
        folder = root / name
        inputs.write_frames(folder / "frames", count=2)
        try:
            picture.save(folder / name, **options)
        except (OSError, KeyError):  # this build of Pillow lacks the format
            continue
        arguments = ("segment", "frames", "--mask", name, *_QUICK)
        yield Variant(name, folder, (name,), arguments, _one_of((), (), ("--resize-mask",)))


def _frames(root: Path) -> Iterator[Variant]:
    for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp"):
        folder = root / suffix
        inputs.write_frames(folder / "frames", suffix)
        inputs.write_mask(folder / "mask.png")
        arguments = ("segment", "frames", "--mask", "mask.png", *_QUICK)
        yield Variant(suffix, folder, ("frames/*", "frames"), arguments, _FRAMES)
    folder = root / "mixed"
    inputs.write_frames(folder / "frames")
    inputs.write_mask(folder / "frames" / "mask.png")
    for place, (name, picture, options) in enumerate(inputs.masks()):
        if picture.mode in ("I;16", "RGB", "RGBA", "LA", "CMYK", "L"):
            picture.save(folder / "frames" / f"{20 + place:05d}{Path(name).suffix}", **options)
    arguments = ("segment", "frames", "--mask", "frames/mask.png", *_QUICK)
    yield Variant("mixed", folder, ("frames/*",), arguments)


def _keypoints(root: Path) -> Iterator[Variant]:
    for command in ("track", "reference"):
        folder = root / command
        inputs.write_frames(folder / "frames", count=2)
        for name in inputs.keypoint_files(folder):
            others = {"track": ("track", "frames"), "reference": ("track", "frames", "-r", "frames/00001.png")}
            yield Variant(f"{command}_{name}", folder, (name,), (*others[command], "-k", name, *_QUICK))


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


def _presets(root: Path) -> Iterator[Variant]:
    for name, text in (("plain", _PRESET), ("fusion", _FUSION)):
        folder = root / name
        inputs.write_frames(folder / "frames", count=3)
        inputs.write_mask(folder / "mask.png")
        (folder / "preset.yaml").write_text(text, encoding="utf-8")
        run = ("segment", "frames", "--mask", "mask.png", "-c", "preset.yaml", "--device", "cpu", "-o", OUT, "-vv")
        yield Variant(f"{name}_segment", folder, ("preset.yaml",), run)
        yield Variant(f"{name}_show", folder, ("preset.yaml",), ("config", "show", "preset.yaml", "-vv"))
        yield Variant(f"{name}_doctor", folder, ("preset.yaml",), ("doctor", "-c", "preset.yaml", "-vv"))


def _assignments(root: Path) -> Iterator[Variant]:
    from propagate.settings import load_settings

    keys = sorted(load_settings("rgb").origins)
    sections = sorted({key.rpartition(".")[0] for key in keys} - {""})

    def vary(rng: Random) -> Sequence[str]:
        given: list[str] = []
        for _ in range(rng.choice((1, 1, 2))):
            key = rng.choice(
                (*keys, *keys, *keys, *sections, "features.weights", "features.parts.0.name", "x", "", "a.b")
            )
            given += ("--set", f"{key}={yaml_value(rng)}")
        option = rng.randrange(12)
        value = rng.choice(
            (*HOSTILE_NAMES, "0", "-1", "1", "1e9", "99999999999999999999", "2GB", "1KB", "cuda:7", "9" * 400)
        )
        value = value.replace("\0", "")
        if option < 8:
            names = (
                "--stride",
                "--from-frame",
                "--to-frame",
                "--max-memory",
                "--device",
                "--cache-size",
                "--reader",
                "-c",
            )
            given += (names[option], value)
        return given

    folder = root / "plain"
    inputs.write_frames(folder / "frames", count=3)
    inputs.write_mask(folder / "mask.png")
    inputs.keypoint_files(folder)
    mask, points = (("segment", "frames", "-m", "mask.png"), ("track", "frames", "-k", "ours.json"))
    for name, command in (("segment", mask), ("track", points)):
        yield Variant(name, folder, (), (*command, *_QUICK), vary)
    config = ("config", "show", "rgb", "-vv")
    yield Variant("show", folder, (), config, lambda rng: [*vary(rng)][:2])


def _weights(root: Path) -> Iterator[Variant]:
    from tests.fuzz.models import models

    for name, folder, targets, options in models(root):
        inputs.write_frames(folder / "frames", count=2)
        inputs.write_mask(folder / "mask.png")
        settings = [f"features.{key}={json.dumps(value)}" for key, value in options.items()]
        given = [part for setting in settings for part in ("--set", setting)]
        run = ("segment", "frames", "-m", "mask.png", *_QUICK, *given)
        yield Variant(name, folder, targets, run, repeated=False)
        if name == "adm":
            convert = ("models", "convert-adm", "adm.pt", OUT, "--head-channels", "32", "-vv")
            yield Variant("convert", folder, targets, convert, repeated=False)


def _tree_commands(folder: Path) -> dict[str, Sequence[str]]:
    """Write a tree of each data set; name -> command without what is to be evaluated."""
    inputs.davis(folder / "davis2016" / "data", 2016)
    inputs.davis(folder / "davis2017" / "data", 2017)
    inputs.jhmdb(folder / "jhmdb" / "data")
    inputs.badja(folder / "badja")
    return {
        "davis2016": ("davis", "--data", "data", "--year", "2016", "--split", "mine"),
        "davis2017": ("davis", "--data", "data", "--year", "2017", "--split", "mine"),
        "jhmdb": ("jhmdb", "--data", "data", "--protocol", "videowalk"),
        "badja": ("badja", "--data", "BADJA", "--davis", "DAVIS"),
    }


_EVERYWHERE = (
    "data",
    "data/*",
    "data/**/*",
    "data/**/*.txt",
    "data/**/*.mat",
    "BADJA/*",
    "BADJA/**/*.json",
    "DAVIS/**/*",
)
_STATIC = ("--config", "static", "--no-report", "-vv")


def _trees(root: Path) -> Iterator[Variant]:
    for name, command in _tree_commands(root).items():
        yield Variant(name, root / name, _EVERYWHERE, ("evaluate", *command, *_STATIC, "-o", OUT))


def _results(root: Path) -> Iterator[Variant]:
    """Results of somebody to be scored."""
    for name, command in _tree_commands(root).items():
        folder = root / name
        run_here(folder, ("evaluate", *command, *_STATIC, "-o", "results"))
        scored = ("evaluate", *command, "--results", "results", "--no-report", "-vv", "-o", OUT)
        yield Variant(name, folder, ("results/*", "results/**/*"), scored)
        if name == "davis2016":
            report = ("evaluate", *command, "--results", "results", "-vv", "-o", OUT)
            yield Variant("report", folder, ("results/**/*",), report, repeated=False)


def _result_folders(root: Path) -> Iterator[Variant]:
    """Folders of an earlier evaluation, into which another one writes."""
    for name, command in _tree_commands(root).items():
        folder = root / name
        evaluate = ("evaluate", *command, *_STATIC, "-o", OUT)
        run_here(folder, evaluate)
        targets = (f"{OUT}/*", f"{OUT}/.*", f"{OUT}/**/*", f"{OUT}/**/*.json", f"{OUT}/.evaluation.json")
        shutil.copytree(folder / OUT, folder / "expected")
        same = _as_expected(".png", ".mat")
        yield Variant(f"{name}--resume", folder, targets, (*evaluate, "--resume"), repeated=False, check=same)
        yield Variant(f"{name}--overwrite", folder, targets, (*evaluate, "--overwrite"), repeated=False, check=same)
    folder = root / "sweep"
    inputs.davis(folder / "data", 2016)
    tried = ("--set", "propagation.top_k=1,2", "--sequence", "ant")
    sweep = ("sweep", "davis", "--data", "data", "--year", "2016", "--split", "mine", *_SMALL, *tried, "-o", OUT, "-vv")
    run_here(folder, sweep)
    targets = (f"{OUT}/*", f"{OUT}/.*", f"{OUT}/**/*.json", f"{OUT}/.evaluation.json")
    yield Variant("sweep", folder, targets, (*sweep, "--resume"), repeated=False)
    for command, label in (("segment", ("-m", "mask.png")), ("track", ("-k", "ours.json"))):
        folder = root / command
        inputs.write_frames(folder / "frames", count=2)
        inputs.write_mask(folder / "mask.png")
        inputs.keypoint_files(folder)
        run = (command, "frames", *label, *_SMALL, "-o", OUT, "-vv")
        run_here(folder, run)
        targets = (OUT, f"{OUT}/*", f"{OUT}/**/*", f"{OUT}/.*")
        yield Variant(command, folder, targets, (*run, "--overwrite"), repeated=False)


def _caches(root: Path) -> Iterator[Variant]:
    folder = root / "features"
    inputs.write_frames(folder / "frames", count=3)
    inputs.write_mask(folder / "mask.png")
    run = ("segment", "frames", "-m", "mask.png", *_QUICK, "--cache", "cache")
    run_here(folder, run)
    (folder / OUT).rename(folder / "expected")
    sizes = _one_of((), (), ("--cache-size", "40kB"))
    yield Variant(
        "features",
        folder,
        ("cache/*", "cache/**/*", "cache/**/*.json", "cache/*.json"),
        run,
        sizes,
        check=_as_expected(".png", ".csv"),
    )


def _matches(root: Path) -> Iterator[Variant]:
    for suffix in (".png", ".jpg", ".tif", ".webp"):
        folder = root / suffix
        folder.mkdir()
        for name, index in (("a", 0), ("b", 2)):
            Image.fromarray(inputs.picture(index)).save(folder / f"{name}{suffix}")
        inputs.keypoint_files(folder)
        inputs.write_mask(folder / "mask.png")
        own = (*_SMALL, "-o", OUT, "-vv")
        pair = (f"a{suffix}", f"b{suffix}")
        yield Variant(f"points{suffix}", folder, ("a.*", "b.*", "ours.json"), ("match", *pair, "-p", "ours.json", *own))
        yield Variant(f"dense{suffix}", folder, ("a.*", "b.*"), ("match", *pair, "--dense", *own))
        reference = ("segment", pair[1], "-r", pair[0], "-m", "mask.png", *_QUICK)
        yield Variant(f"reference{suffix}", folder, ("a.*", "b.*", "mask.png"), reference)


def _comparisons(root: Path) -> Iterator[Variant]:
    """Saved arrays and videos of unusual content, which are valid."""
    folder = root / "sizes"
    folder.mkdir()
    for name, size in (("tiny", (1, 1)), ("line", (1, 400)), ("odd", (17, 33)), ("wide", (16, 600))):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(folder / f"{name}.png")
        mask = np.zeros(size, np.uint8)
        mask[: max(1, size[0] // 2), : max(1, size[1] // 2)] = 1
        Image.fromarray(mask).save(folder / f"{name}_mask.png")

    def vary(rng: Random) -> Sequence[str]:
        sizes = ("tiny", "line", "odd", "wide")
        frame = rng.choice(sizes)
        mask = frame if rng.random() < 0.7 else rng.choice(sizes)
        setting = ("--set", f"video.short_side={rng.choice(('null', '16', '48', '100'))}")
        return (f"{frame}.png", "--mask", f"{mask}_mask.png", *setting, *rng.choice(((), ("--resize-mask",))))

    yield Variant("sizes", folder, (), ("segment", *_QUICK), vary)


KINDS: dict[str, Kind] = {
    "video": Kind(_video, 2.5),
    "mask": Kind(_masks, 2),
    "frames": Kind(_frames, 1.5),
    "keypoints": Kind(_keypoints, 1.5),
    "preset": Kind(_presets, 1.5),
    "set": Kind(_assignments, 1.5),
    "weights": Kind(_weights, 1.5),
    "tree": Kind(_trees),
    "results": Kind(_results),
    "resultfolder": Kind(_result_folders, 1.5),
    "cache": Kind(_caches),
    "match": Kind(_matches),
    "size": Kind(_comparisons, 0.2),
}
