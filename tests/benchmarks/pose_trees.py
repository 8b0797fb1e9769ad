"""Small JHMDB, BADJA and DAVIS trees, and results as a tracker would write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from propagate.types import Frame, Keypoints, Prediction

Move = Callable[[Keypoints, int], np.ndarray]


def picture(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)


def mat(path: Path, positions: np.ndarray) -> None:
    """Positions (T, 15, 2) from 0 as the data set's file: (2, 15, T) from 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"pos_img": np.asarray(positions).transpose(2, 1, 0) + 1})


def jhmdb_tree(root: Path, clips: Mapping[str, np.ndarray], size: tuple[int, int], extra_frames: int = 0) -> Path:
    """A tree with these test clips (CLASS/VIDEO -> truth) and a training and an unused clip in every list."""
    lists: dict[str, list[str]] = {}
    for name, truth in clips.items():
        kind, video = name.split("/")
        lists.setdefault(kind, [f"{kind}_training.avi 1", f"{kind}_unused.avi 0"]).append(f"{video}.avi 2")
        mat(root / "joint_positions" / name / "joint_positions.mat", truth)
        for number in range(1, len(truth) + extra_frames + 1):
            picture(root / "Rename_Images" / name / f"{number:05d}.png", size)
    (root / "splits").mkdir(parents=True)
    for kind, lines in lists.items():
        (root / "splits" / f"{kind}_test_split1.txt").write_text("\n".join(lines) + "\n")
    return root


def badja_tree(
    root: Path,
    name: str,
    annotated: Mapping[int, tuple[Sequence[Sequence[int]], Sequence[bool]]],
    mask: np.ndarray,
    frames: Sequence[int] | None = None,
) -> tuple[Path, Path]:
    """BADJA and DAVIS folders with one video; `annotated`: number -> (37 pairs (row, column), 37 visibilities)."""
    badja, davis = root / "BADJA", root / "DAVIS"
    entries = [
        {
            "image_path": f"DAVIS/JPEGImages/Full-Resolution/{name}/{number:05d}.jpg",
            "segmentation_path": f"DAVIS/Annotations/Full-Resolution/{name}/{number:05d}.png",
            "joints": [list(map(int, joint)) for joint in joints],
            "visibility": list(map(bool, visible)),
        }
        for number, (joints, visible) in annotated.items()
    ]
    (badja / "joint_annotations").mkdir(parents=True, exist_ok=True)
    (badja / "joint_annotations" / f"{name}.json").write_text(json.dumps(entries))
    for number in range(max(annotated) + 2) if frames is None else frames:
        picture(davis / "JPEGImages" / "480p" / name / f"{number:05d}.jpg", mask.shape)
    folder = davis / "Annotations" / "480p" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number in annotated:
        Image.fromarray(mask).save(folder / f"{number:05d}.png")
    return badja, davis


def write_results(benchmark, results: Path, move: Move = lambda label, _: label.positions) -> Path:
    """What a tracker would write that answers with the first label, moved."""
    for clip in benchmark.clips:
        folder = results / clip.name
        folder.mkdir(parents=True)
        label = benchmark.label(clip)
        with benchmark.writer(clip, folder) as write:
            for frame in benchmark.frames(clip):
                write(frame, prediction(frame, label, move(label, frame.index)))
    return results


def prediction(frame: Frame, label: Keypoints, positions: np.ndarray) -> Prediction:
    pose = Keypoints(positions.astype(np.float32), label.names, label.skeleton)
    return Prediction(frame.index, frame.time_s, keypoints=pose)
