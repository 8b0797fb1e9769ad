"""Kinds of folders: weights, trees of data sets, results and caches."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.fuzz import inputs
from tests.fuzz.command import run_here
from tests.fuzz.variant import OUT, QUICK, SMALL, Variant, as_expected, one_of


def weights(root: Path) -> Iterator[Variant]:
    from tests.fuzz.models import models

    for name, folder, targets, options in models(root):
        inputs.write_frames(folder / "frames", count=2)
        inputs.write_mask(folder / "mask.png")
        settings = [f"features.{key}={json.dumps(value)}" for key, value in options.items()]
        given = [part for setting in settings for part in ("--set", setting)]
        run = ("segment", "frames", "-m", "mask.png", *QUICK, *given)
        yield Variant(name, folder, targets, run, repeated=False)
        if name == "adm":
            convert = ("models", "convert-adm", "adm.pt", OUT, "--head-channels", "32", "-vv")
            yield Variant("convert", folder, targets, convert, repeated=False)
        if name == "dino":
            verify = ("models", "verify", "dino-vits16", "model", "-vv")
            yield Variant("verify", folder, targets, verify, repeated=False, valid=False)


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


def trees(root: Path) -> Iterator[Variant]:
    for name, command in _tree_commands(root).items():
        yield Variant(name, root / name, _EVERYWHERE, ("evaluate", *command, *_STATIC, "-o", OUT))


def results(root: Path) -> Iterator[Variant]:
    """Write results to score."""
    for name, command in _tree_commands(root).items():
        folder = root / name
        run_here(folder, ("evaluate", *command, *_STATIC, "-o", "results"))
        scored = ("evaluate", *command, "--results", "results", "--no-report", "-vv", "-o", OUT)
        yield Variant(name, folder, ("results/*", "results/**/*"), scored)
        if name == "davis2016":
            report = ("evaluate", *command, "--results", "results", "-vv", "-o", OUT)
            yield Variant("report", folder, ("results/**/*",), report, repeated=False)


def result_folders(root: Path) -> Iterator[Variant]:
    """Write folders of an earlier evaluation, for another one to write into."""
    for name, command in _tree_commands(root).items():
        folder = root / name
        evaluate = ("evaluate", *command, *_STATIC, "-o", OUT)
        run_here(folder, evaluate)
        targets = (f"{OUT}/*", f"{OUT}/.*", f"{OUT}/**/*", f"{OUT}/**/*.json", f"{OUT}/.evaluation.json")
        shutil.copytree(folder / OUT, folder / "expected")
        same = as_expected(".png", ".mat")
        yield Variant(f"{name}--resume", folder, targets, (*evaluate, "--resume"), repeated=False, check=same)
        yield Variant(f"{name}--overwrite", folder, targets, (*evaluate, "--overwrite"), repeated=False, check=same)
    folder = root / "sweep"
    inputs.davis(folder / "data", 2016)
    tried = ("--set", "propagation.top_k=1,2", "--sequence", "ant")
    sweep = ("sweep", "davis", "--data", "data", "--year", "2016", "--split", "mine", *SMALL, *tried, "-o", OUT, "-vv")
    run_here(folder, sweep)
    targets = (f"{OUT}/*", f"{OUT}/.*", f"{OUT}/**/*.json", f"{OUT}/.evaluation.json")
    yield Variant("sweep", folder, targets, (*sweep, "--resume"), repeated=False)
    for command, label in (("segment", ("-m", "mask.png")), ("track", ("-k", "ours.json"))):
        folder = root / command
        inputs.write_frames(folder / "frames", count=2)
        inputs.write_mask(folder / "mask.png")
        inputs.keypoint_files(folder)
        run = (command, "frames", *label, *SMALL, "-o", OUT, "-vv")
        run_here(folder, run)
        targets = (OUT, f"{OUT}/*", f"{OUT}/**/*", f"{OUT}/.*")
        yield Variant(command, folder, targets, (*run, "--overwrite"), repeated=False)


def caches(root: Path) -> Iterator[Variant]:
    folder = root / "features"
    inputs.write_frames(folder / "frames", count=3)
    inputs.write_mask(folder / "mask.png")
    run = ("segment", "frames", "-m", "mask.png", *QUICK, "--cache", "cache")
    run_here(folder, run)
    (folder / OUT).rename(folder / "expected")
    sizes = one_of((), (), ("--cache-size", "40kB"))
    yield Variant(
        "features",
        folder,
        ("cache/*", "cache/**/*", "cache/**/*.json", "cache/*.json"),
        run,
        sizes,
        check=as_expected(".png", ".csv"),
    )

    from tests.fuzz.models import pipeline

    folder = root / "prompts"
    model = pipeline(folder / "model")
    inputs.write_frames(folder / "frames", count=2)
    inputs.write_mask(folder / "mask.png")
    options = (
        "--set",
        "features.name=dift_sd",
        "--set",
        f"features.weights={model.name}",
        "--set",
        "features.up_ft_index=0",
    )
    run = ("segment", "frames", "-m", "mask.png", *QUICK, *options, "--set", "features.ensemble_size=1")
    run_here(folder, run)
    (folder / OUT).rename(folder / "expected")
    same = as_expected(".png", ".csv")
    yield Variant("prompts", folder, ("xdg/**/*.safetensors",), run, repeated=False, check=same)
