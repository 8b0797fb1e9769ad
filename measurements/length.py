"""Does memory grow with the video? `python -m measurements.length [--frames 200 2000] [--config NAME] [--set a.b=c]`.

Generates a clip per length (854x480, a moving pattern), runs `propagate segment` on each in a new process, and prints
their peak memory and its ratio.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from measurements.common import parser_of
from propagate.formats import VideoWriter, write_mask
from propagate.types import Mask


def make_clip(path: Path, frames: int, height: int = 480, width: int = 854) -> None:
    generator = np.random.default_rng(0)
    ground = generator.integers(0, 120, (height // 8, width // 8 + 40, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with VideoWriter(path, 25.0) as writer:
        for index in range(frames):
            shift = index % 160
            frame = np.full((height, width, 3), 60, np.uint8)
            frame[: ground.shape[0]] = ground[:height, shift : shift + width]
            frame[160:320, 200 + shift : 360 + shift, 0] = 230
            writer.write(frame)


def peak_of(command: list[str]) -> tuple[float, float]:
    """Return the peak MiB and seconds of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_maxrss / 1024, time.perf_counter() - start


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--config", default="compact")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="a.b=c")
    options = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = np.zeros((480, 854), np.uint8)
        ids[160:320, 200:360] = 1
        write_mask(folder / "mask.png", Mask(ids))
        for frames in options.frames:
            clip = folder / f"{frames}.mp4"
            make_clip(clip, frames)
            command = [sys.executable, "-m", "propagate", "segment", str(clip), "--mask", str(folder / "mask.png")]
            command += ["--config", options.config, "-q", "-o", str(folder / f"out{frames}")]
            for override in options.overrides:
                command += ["--set", override]
            peak, seconds = peak_of(command)
            peaks.append(peak)
            print(f"{frames} frames: peak {peak:.0f} MiB, {seconds / frames:.3f} s per frame", flush=True)
    print(f"longest / shortest: {peaks[-1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
