"""Animal joints: BADJA (Biggs et al., ACCV 2018) on the videos of DAVIS, scored by PCK@0.2 of the animal's size.

The protocol is that of the point-tracking literature (PIPs, Harley et al., ECCV 2022, for RAFT and DINO; CoTracker):
    A clip is every frame from the first to the last annotated one. The joints of the first are given: all of the 20
    in BADJA's catalog that have a position there, seen or not. Annotated frames after the first are scored, which are
    "about every fifth" (1 to 11 apart).
    A joint counts in a frame if it is visible there and was given. Not given is only what is annotated as (0, 0) in
    the first frame; no visible joint of these videos is.
    It is right if its distance from the truth is below (not equal to) 0.2 * sqrt(area of that frame's mask). A joint
    that counts and has no position is wrong.
    A video's PCK pools its frames and joints; the score is the mean over the videos.

Where numbers of others may differ:
    Distances and areas are taken at the frames' own resolution; PIPs squeezes to 320 x 512, CoTracker to 384 x 512.
    Positions are annotated at 1920 x 1080 and scaled with half-pixel centers, (p + 0.5) * 854 / 1920 - 0.5 at 480p; a
    plain product lies up to 0.28 pixels beside that, for truth and prediction alike.
    The area is of everything that is not background. Masks of DAVIS-2016 have one object, the animal with its rider.
    In masks of DAVIS-2017 the rider is an object of its own; the literature reads these as color pictures and counts
    what has red in it, which leaves out object 2 (0, 128, 0). With such masks areas here are larger, and so is the PCK.
    PIPs' own path counts the first frame too, which adds hits for free.

Coverage is the share of all pairs of a scored frame and a joint that counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from numpy import ndarray

from propagate.benchmarks.badja.tree import JOINTS, SEQUENCES, SKELETON, BadjaSequence, read_badja
from propagate.benchmarks.benchmark import Clip, Curve, Published, Scores, Table, Write
from propagate.benchmarks.poses import (
    KEYPOINTS_FILE,
    POSE_COLORS,
    cell,
    curve_table,
    judge_clips,
    left_out,
    listed,
    mean,
    pose_pictures,
    read_frames,
    read_poses,
)
from propagate.errors import InputError
from propagate.formats import KeypointsWriter
from propagate.types import Frame, Keypoints, Prediction

THRESHOLD = 0.2
METRIC = f"PCK@{THRESHOLD}"

_INVISIBLE = 0.25  # confidence of a position that was only estimated: it is drawn hollow
_PUBLISHED = tuple(
    Published(method, {METRIC: value}, f"Harley et al., Particle Video Revisited (PIPs), ECCV 2022, table{note}")
    for method, value, note in (
        ("PIPs", 0.623, "; its own path counts the given frame too"),
        ("DINO", 0.505, ""),
        ("RAFT", 0.456, ""),
    )
)


@dataclass(frozen=True, eq=False)
class _Judged:
    """What became of the joints in the scored frames: each (S, 20) bool."""

    counted: Bool[ndarray, "s 20"]
    lost: Bool[ndarray, "s 20"]
    right: Bool[ndarray, "s 20"]


@dataclass(frozen=True, eq=False)
class Badja:
    """Implements `propagate.benchmarks.benchmark.Benchmark`.

    Results are `<results>/NAME/keypoints.json` (propagate.formats), with positions in pixels of the frames and frames
    numbered from the first annotated one; only the annotated frames are looked at.

    Attributes:
        sequences: the videos.
        resolution: name of the folder in the DAVIS tree.
    """

    sequences: tuple[BadjaSequence, ...]
    resolution: str

    @property
    def name(self) -> str:
        """Always "badja"."""
        return "badja"

    @property
    def title(self) -> str:
        """Data, subset and resolution."""
        return f"BADJA, {len(self.sequences)} of the {len(SEQUENCES)} videos in DAVIS, {self.resolution}"

    @property
    def clips(self) -> tuple[Clip, ...]:
        """By name."""
        return tuple(sequence.clip for sequence in self.sequences)

    @property
    def settings(self) -> tuple[str, ...]:
        """What the protocol demands of every preset: nothing."""
        return ()

    @property
    def difference_colors(self) -> Mapping[str, tuple[int, int, int]]:
        """Those of `pose_pictures`."""
        return POSE_COLORS

    @property
    def published(self) -> tuple[Published, ...]:
        """Means over all seven videos; none of these methods is run here."""
        return _PUBLISHED if len(self.sequences) == len(SEQUENCES) else ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which videos these are, and what is unusual about their masks."""
        remarks = []
        if len(self.sequences) < len(SEQUENCES):
            names = ", ".join(clip.name for clip in self.clips)
            remarks.append(f"A subset: {len(self.sequences)} of {len(SEQUENCES)} videos ({names}).")
        several = [sequence.clip.name for sequence in self.sequences if sequence.objects > 1]
        if several:
            remarks.append(
                f"The masks of {', '.join(several)} have several objects, as in DAVIS-2017; the areas are of all of "
                "them, where published scores leave out the second."
            )
        return tuple(remarks)

    def frames(self, clip: Clip) -> Iterable[Frame]:
        """Every frame from the first to the last annotated one, at its own size.

        Raises:
            InputError: while iterating, a picture that cannot be read or is of another size than the first.
        """
        return read_frames(clip.pictures, self._sequence(clip.name).size)

    def label(self, clip: Clip) -> Keypoints:
        """The joints that have a position in the first frame, seen or not."""
        return _keypoints(self._sequence(clip.name).joints[0])

    @contextmanager
    def writer(self, clip: Clip, folder: Path) -> Iterator[Write]:
        """Writes `keypoints.json` when the clip ends.

        Raises:
            InputError: the file cannot be written, or no frame came.
        """
        with KeypointsWriter(folder / KEYPOINTS_FILE, frame_size=self._sequence(clip.name).size, exact=True) as file:

            def write(_frame: Frame, prediction: Prediction) -> None:
                file.write(prediction)

            yield write

    def score(self, results: Path) -> Scores:
        """PCK@0.2 and the coverage; a clip whose results lack an annotated frame is not scored.

        Tables: `pck.csv` (video x joint; the last row has the mean over the videos, and the coverage of all pairs
        together) and `curves.csv` (per annotated frame the share of the joints that are right, of those that count).

        Raises:
            InputError: not one clip could be scored.
        """

        def judge(name: str) -> _Judged:
            return _judge(self._sequence(name), results / name)

        judged, problems = judge_clips(results, [clip.name for clip in self.clips], judge)
        clips = {
            name: {METRIC: _share(of.right, of.counted), "coverage": _coverage([of])} for name, of in judged.items()
        }
        totals = {
            METRIC: mean(np.array([metrics[METRIC] for metrics in clips.values()])),
            "coverage": _coverage([*judged.values()]),
        }
        curves = tuple(self._curve(name, of) for name, of in judged.items())
        tables = (_joint_table(judged, clips, totals), curve_table(curves))
        return Scores(totals, clips, curves, tables, problems, _remarks(judged, problems))

    def compare(self, clip: Clip, results: Path, frame: int) -> tuple[UInt8[ndarray, "h w 3"], ...]:
        """The predicted pose, the true one, and the distances of the joints that count.

        In the true pose, joints that cannot be seen are hollow. A frame that is not annotated has no truth.

        Raises:
            InputError: the picture or the results of the clip cannot be read.
        """
        sequence = self._sequence(clip.name)
        poses = read_poses(results / clip.name / KEYPOINTS_FILE, JOINTS, sequence.size)
        nothing = np.full((len(JOINTS), 2), np.nan)
        counted = right = np.zeros(len(JOINTS), np.bool_)
        truth, tolerance = _keypoints(nothing), 0.0
        (places,) = np.nonzero(sequence.annotated == frame)
        if len(places):
            place = int(places[0])
            visible = sequence.visible[place]
            confidence = np.where(visible, 1, _INVISIBLE) * np.isfinite(sequence.joints[place]).all(1)
            truth = _keypoints(sequence.joints[place], confidence.astype(np.float32))
            tolerance = float(_tolerances(sequence)[place])
            if place:
                judged = _judge(sequence, results / clip.name)
                counted, right = judged.counted[place - 1], judged.right[place - 1]
        found = poses.get(frame, _keypoints(nothing))
        prediction = Keypoints(found.positions, JOINTS, SKELETON, found.confidence)
        (picture,) = read_frames([clip.pictures[frame]], sequence.size)
        return pose_pictures(picture.pixels, prediction, truth, counted=counted, right=right, tolerance=tolerance)

    def _sequence(self, name: str) -> BadjaSequence:
        return next(sequence for sequence in self.sequences if sequence.clip.name == name)

    def _curve(self, name: str, judged: _Judged) -> Curve:
        shares = [_share(right, counted) for right, counted in zip(judged.right, judged.counted, strict=True)]
        return Curve(name, "joints", tuple(self._sequence(name).annotated[1:].tolist()), {METRIC: np.array(shares)})


def load_badja(data: Path, *, davis: Path, sequences: Sequence[str] = (), resolution: str = "480p") -> Badja:
    """BADJA's videos in DAVIS, verified.

    Args:
        data: the folder of `joint_annotations`.
        davis: the folder of `JPEGImages` and `Annotations`.
        sequences: only these; every one of the seven that has annotations if empty.
        resolution: the folder in the DAVIS tree.

    Raises:
        InputError: what is missing or cannot be read, all of it in one message.
        UsageError: a sequence that is not one of the seven.
    """
    return Badja(read_badja(data, davis, resolution, sequences), resolution)


def _predictions(sequence: BadjaSequence, folder: Path) -> Float64[ndarray, "s 20 2"]:
    """The predictions for the scored frames; NaN where a joint is lost."""
    path = folder / KEYPOINTS_FILE
    if not path.exists():
        raise InputError(f"{path} is missing.", "Run this clip.")
    poses = read_poses(path, JOINTS, sequence.size)
    scored = sequence.annotated[1:].tolist()
    missing = [frame for frame in scored if frame not in poses]
    if missing:
        raise InputError(f"{path} lacks the annotated frame {listed(missing)}.", "Run this clip again.")
    return np.stack([poses[frame].positions for frame in scored]).astype(np.float64)


def _judge(sequence: BadjaSequence, folder: Path) -> _Judged:
    predicted = _predictions(sequence, folder)
    given = np.isfinite(sequence.joints[0]).all(1)
    counted = sequence.visible[1:] & given
    lost = ~np.isfinite(predicted).all(2)
    distances = np.hypot(*np.moveaxis(predicted - sequence.joints[1:], 2, 0))
    right = counted & (distances < _tolerances(sequence)[1:, None])
    return _Judged(counted, counted & lost, right)


def _tolerances(sequence: BadjaSequence) -> Float64[ndarray, " a"]:
    """Pixels within which a joint is right, per annotated frame."""
    tolerances: Float64[ndarray, " a"] = THRESHOLD * np.sqrt(sequence.areas.astype(np.float64))
    return tolerances


def _keypoints(positions: Float64[ndarray, "20 2"], confidence: ndarray | None = None) -> Keypoints:
    given = {} if confidence is None else {"confidence": confidence}
    return Keypoints(positions.astype(np.float32), JOINTS, SKELETON, **given)


def _share(right: Bool[ndarray, "*any"], counted: Bool[ndarray, "*any"]) -> float:
    return float(right.sum() / counted.sum()) if counted.any() else float("nan")


def _coverage(judged: Sequence[_Judged]) -> float:
    return float(np.concatenate([one.counted for one in judged]).mean())


def _joint_table(
    judged: Mapping[str, _Judged], clips: Mapping[str, Mapping[str, float]], totals: Mapping[str, float]
) -> Table:
    shares = np.array(
        [[_share(of.right[:, j], of.counted[:, j]) for j in range(len(JOINTS))] for of in judged.values()]
    )
    rows = [
        (name, cell(clips[name][METRIC]), cell(clips[name]["coverage"]), *map(cell, row))
        for name, row in zip(judged, shares.tolist(), strict=True)
    ]
    means = (cell(mean(column)) for column in shares.T)
    rows.append(("mean", cell(totals[METRIC]), cell(totals["coverage"]), *means))
    return Table("pck.csv", ("sequence", METRIC, "coverage", *JOINTS), tuple(rows))


def _remarks(judged: Mapping[str, _Judged], problems: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    counted = np.concatenate([of.counted for of in judged.values()])
    lost = sum(int(of.lost.sum()) for of in judged.values())
    coverage = f"{counted.sum()} of {counted.size} pairs of frame and joint counted ({counted.mean():.1%})"
    return (f"Coverage: {coverage}, {lost} of them lost and therefore wrong.", *left_out(judged, problems))
