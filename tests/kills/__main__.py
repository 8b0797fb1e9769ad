"""`python -m tests.kills -n 200 --seed 0`: kill runs, run them again, print one line of counts."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.kills.scenes import Scene, contents, half_files, make_scenes

_KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_LIMIT_S = 600
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Truth:
    """A run that nobody killed: how long it took and what it wrote."""

    seconds: float
    files: dict[str, bytes]


def undisturbed(scene: Scene, folder: Path) -> Truth:
    """Run a command to its end, twice: what is compiled on the way is there the second time."""
    for number in range(2):
        start = time.monotonic()
        output = folder / f"{scene.name}_{number}"
        subprocess.run(scene.command(output), check=True, env=_ENVIRONMENT, capture_output=True, timeout=_LIMIT_S)
    return Truth(time.monotonic() - start, contents(output))


def kill_once(scene: Scene, truth: Truth, output: Path, seed: int) -> tuple[str, list[str]]:
    """Kill a run at a random moment and run it again.

    Returns:
        What became of the first run ("ended" where it was over before), and what was wrong.
    """
    chance = random.Random(seed)
    number, moment = chance.choice(_KILLS), chance.uniform(0.1, 1.1) * truth.seconds
    process = subprocess.Popen(
        scene.command(output), env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    _, said = process.communicate(timeout=_LIMIT_S)
    code = process.returncode
    wrong = []
    if code not in (0, -number, 128 + number):
        wrong.append(f"exit code {code}: {said[-300:]}")
    if "Traceback" in said and code != -number and "propagate/app" in said:
        wrong.append(said[-600:])
    wrong += half_files(output)
    again = output.is_dir() and any(output.iterdir())
    second = subprocess.run(
        scene.command(output, again=again), env=_ENVIRONMENT, capture_output=True, text=True, timeout=_LIMIT_S
    )
    if second.returncode:
        wrong.append(f"the next run: exit code {second.returncode}: {second.stderr[-300:]}")
    else:
        found = contents(output)
        wrong += [f"left behind: {name}" for name in found.keys() - truth.files.keys()]
        wrong += [f"missing: {name}" for name in truth.files.keys() - found.keys()]
        wrong += [
            f"other bytes: {name}" for name in found.keys() & truth.files.keys() if found[name] != truth.files[name]
        ]
    fate = "ended" if code == 0 else signal.Signals(number).name
    shutil.rmtree(output, ignore_errors=True)
    return f"{scene.name} {fate}", [f"{scene.name} {signal.Signals(number).name} seed {seed}: {text}" for text in wrong]


def main() -> int:
    """Kill as often as is asked for; the exit code is 1 where anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("-n", type=int, default=200, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no further run after this long")
    options = parser.parse_args()
    start, fates, wrong = time.monotonic(), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(options.jobs) as pool:
        folder = Path(name)
        scenes = make_scenes(folder)
        truths = dict(zip(scenes, pool.map(lambda scene: undisturbed(scene, folder), scenes), strict=True))

        def one(number: int) -> tuple[str, list[str]] | None:
            if time.monotonic() - start > options.seconds:
                return None
            scene = scenes[number % len(scenes)]
            return kill_once(scene, truths[scene], folder / f"kill{number}", options.seed * 1_000_003 + number)

        for fate, found in filter(None, pool.map(one, range(options.n))):
            fates[fate] += 1
            wrong += found
            for text in found:
                print(text, file=sys.stderr, flush=True)
    counts = ", ".join(f"{fate} {count}" for fate, count in sorted(fates.items()))
    print(f"{fates.total()} kills in {time.monotonic() - start:.0f} s: {len(wrong)} wrong; {counts}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
