"""Human poses: the test clips of JHMDB (Jhuang et al., ICCV 2013), 15 joints, scored by PCK.

The joints of a clip's first frame are given; frames 1 to T - 1 are scored. A distance is measured in units of 0.6 of
the diagonal of a box around joints of the true pose, and is right at a threshold of 0.1 to 0.5 if it is not above it.
PCK of a joint is the share of right ones over all clips and frames; what is reported is the plain mean of the joints.

Two protocols say the rest:

`videowalk` is that of CRW's evaluation (Jabri et al., NeurIPS 2020; `data/jhmdb.py`, `test.py`, `eval_pck.py`), which
the published scores follow, exactly:
    Frames are squeezed to 320 x 320, which loses their aspect; positions go to a grid of 40 x 40 cells and back without
    a half-pixel shift, through the codec `jhmdb`. Only a feature extractor of stride 8 makes such a grid.
    A joint that was lost (predicted x is not 0 or above) is LEFT OUT, not wrong, and the box is drawn around the
    true positions of the joints that were found. Whoever loses the hard joints scores higher: see the coverage.
    Joints whose true position is outside of the picture count.

`strict` keeps the aspect, gives frames at their own size to whatever codec the settings name, and leaves no way out:
    A joint counts in a frame if its true position is inside of the picture there, and was in the first frame (one that
    was not could not be given). A joint that counts and has no position is wrong.
    The box is drawn around all 15 true positions, inside or not, whatever was predicted.

Where nothing is lost and nobody leaves the picture, the two rules of scoring are the same. Coverage is the share of all
pairs of a scored frame and a joint that counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from numpy import ndarray

from propagate.benchmarks.benchmark import Clip, Published, Scores, Write
from propagate.benchmarks.jhmdb.score import PUBLISHED, pck_scores
from propagate.benchmarks.jhmdb.tree import (
    JOINTS,
    MATLAB_FILE,
    SKELETON,
    JhmdbSequence,
    read_jhmdb,
    read_pos_img,
    write_pos_img,
)
from propagate.benchmarks.poses import (
    KEYPOINTS_FILE,
    POSE_COLORS,
    judge_clips,
    listed,
    pose_pictures,
    read_frames,
    read_poses,
)
from propagate.errors import InputError
from propagate.formats import KeypointsWriter
from propagate.geometry import resize_frame
from propagate.metrics import jhmdb_normalisers, pck_distances
from propagate.types import Frame, Keypoints, Prediction

Protocol = Literal["videowalk", "strict"]

SQUARE = 320  # what videowalk squeezes both sides to
TEST_CLIPS = 268  # of split 1, as the literature counts them

_DRAWN = 0.1  # threshold of the pictures
_AGREE = 0.01  # pixels; what two files of one result may differ by: numbers in text are rounded
_FAR = 1e6  # pixels; a prediction beyond is as wrong there, and float32 holds it


@dataclass(frozen=True, eq=False)
class Jhmdb:
    """Implements `propagate.benchmarks.benchmark.Benchmark`.

    Results are `<results>/CLASS/VIDEO/keypoints.json` (propagate.formats) or `joint_positions.mat`, like the data set's
    own: `pos_img` (2, 15, T), x and y in pixels counted from 1, NaN where a joint is lost (for `videowalk` it is also
    lost where x is below 1). The writer makes both; to score one of them is enough, and two that differ are refused.
    Positions are those in the data set's own pictures, under either protocol.

    Attributes:
        sequences: the test clips, or some of them.
        split: 1, 2 or 3.
        protocol: "videowalk" or "strict"; see the module.
        subset: `sequences` were chosen by name.
    """

    sequences: tuple[JhmdbSequence, ...]
    split: int
    protocol: Protocol
    subset: bool = False

    @property
    def name(self) -> str:
        """JHMDB and the protocol: "jhmdb-videowalk", "jhmdb-strict"."""
        return f"jhmdb-{self.protocol}"

    @property
    def title(self) -> str:
        """Data, split, how many clips unless it is all of split 1, and protocol."""
        number = f"{len(self.sequences)} of {TEST_CLIPS}" if self.split == 1 else f"{len(self.sequences)}"
        part = "" if self._is_whole else f", {number} test clips"
        return f"JHMDB test split {self.split}{part}, poses, protocol {self.protocol}"

    @property
    def clips(self) -> tuple[Clip, ...]:
        """By class, in the order of the lists."""
        return tuple(sequence.clip for sequence in self.sequences)

    @property
    def settings(self) -> tuple[str, ...]:
        """What the protocol demands of every preset, each as `--set` takes it."""
        if self.protocol == "strict":
            return ()
        return ("labels.keypoints.codec=jhmdb", f"video.short_side={SQUARE}")

    @property
    def difference_colors(self) -> Mapping[str, tuple[int, int, int]]:
        """Those of `pose_pictures`."""
        return POSE_COLORS

    @property
    def published(self) -> tuple[Published, ...]:
        """The tables follow the protocol `videowalk` on all of split 1."""
        return PUBLISHED if self.protocol == "videowalk" and self._is_whole else ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """How many clips these are, and what the protocol does with lost joints."""
        remarks = []
        if self.subset and not self._is_whole:
            remarks.append(f"A subset of {len(self.sequences)} test clips, chosen by name.")
        elif self.split == 1 and len(self.sequences) != TEST_CLIPS:
            remarks.append(f"{len(self.sequences)} test clips; the literature counts {TEST_CLIPS}.")
        if self.protocol == "videowalk":
            remarks.append(
                "Lost joints are left out, as in the published scores; the protocol strict counts them wrong."
            )
        else:
            remarks.append("Lost joints are wrong; published scores leave them out, as the protocol videowalk does.")
        return tuple(remarks)

    def frames(self, clip: Clip) -> Iterable[Frame]:
        """The clip's frames, cut to the poses; for `videowalk` 320 x 320.

        Raises:
            InputError: while iterating, a picture that cannot be read or is of another size than the first.
        """
        for frame in read_frames(clip.pictures, self._sequence(clip.name).size):
            squeezed = self.protocol == "videowalk"
            yield replace(frame, pixels=resize_frame(frame.pixels, (SQUARE, SQUARE))) if squeezed else frame

    def label(self, clip: Clip) -> Keypoints:
        """The joints of the first frame, in pixels of `frames`; for `strict` without those outside of the picture."""
        sequence = self._sequence(clip.name)
        positions = sequence.truth[0] * self._squeeze(sequence)
        if self.protocol == "strict":
            positions = np.where(_inside(sequence)[0][:, None], positions, np.nan)
        return Keypoints(positions.astype(np.float32), JOINTS, SKELETON)

    @contextmanager
    def writer(self, clip: Clip, folder: Path) -> Iterator[Write]:
        """Writes `keypoints.json` and `joint_positions.mat` when the clip ends, in the data set's own pixels.

        Raises:
            InputError: a file cannot be written, or no frame came.
        """
        sequence = self._sequence(clip.name)
        rows = list[ndarray]()
        with KeypointsWriter(folder / KEYPOINTS_FILE, frame_size=sequence.size, exact=True) as file:

            def write(_frame: Frame, prediction: Prediction) -> None:
                keypoints = prediction.keypoints
                assert keypoints is not None
                positions = (keypoints.positions / self._squeeze(sequence)).astype(np.float32)
                rows.append(positions)
                file.write(replace(prediction, keypoints=replace(keypoints, positions=positions)))

            yield write
            if rows:  # without any, the other file says so
                write_pos_img(folder / MATLAB_FILE, np.stack(rows))

    def score(self, results: Path) -> Scores:
        """PCK@0.1 to 0.5 and the coverage; a clip whose results lack a frame is not scored.

        Raises:
            InputError: not one clip could be scored.
        """

        def judge(name: str) -> Float64[ndarray, "t 15"]:
            sequence = self._sequence(name)
            return self._distances(sequence, self._positions(sequence, results / name))[1:]

        return pck_scores(*judge_clips(results, [clip.name for clip in self.clips], judge))

    def compare(self, clip: Clip, results: Path, frame: int) -> tuple[UInt8[ndarray, "h w 3"], ...]:
        """The predicted pose, the true one, and the distances of the joints that count at the threshold of 0.1.

        Raises:
            InputError: the picture or the results of the clip cannot be read.
        """
        sequence = self._sequence(clip.name)
        predicted = self._positions(sequence, results / clip.name)
        distances = self._distances(sequence, predicted)[frame]
        (picture,) = read_frames([clip.pictures[frame]], sequence.size)
        return pose_pictures(
            picture.pixels,
            Keypoints(predicted[frame].astype(np.float32), JOINTS, SKELETON),
            Keypoints(sequence.truth[frame].astype(np.float32), JOINTS, SKELETON),
            counted=~np.isnan(distances),
            right=distances <= _DRAWN,
            tolerance=float(_DRAWN * self._judged(sequence, predicted)[1][frame]),
        )

    @property
    def _is_whole(self) -> bool:
        """Whether these are the clips that the literature is about."""
        return self.split == 1 and len(self.sequences) == TEST_CLIPS

    def _sequence(self, name: str) -> JhmdbSequence:
        return next(sequence for sequence in self.sequences if sequence.clip.name == name)

    def _squeeze(self, sequence: JhmdbSequence) -> Float64[ndarray, "2"]:
        """By how much `frames` are smaller, in x and y: without a half-pixel shift, like the grid of videowalk."""
        height, width = sequence.size
        return SQUARE / np.array([width, height]) if self.protocol == "videowalk" else np.ones(2)

    def _positions(self, sequence: JhmdbSequence, folder: Path) -> Float64[ndarray, "t 15 2"]:
        """The predictions for every frame of the truth; NaN in both where a joint is lost."""
        found = {}
        if (folder / MATLAB_FILE).exists():  # first: it holds every digit
            found[MATLAB_FILE] = _of_matlab(sequence, folder / MATLAB_FILE)
        if (folder / KEYPOINTS_FILE).exists():
            found[KEYPOINTS_FILE] = _of_json(sequence, folder / KEYPOINTS_FILE)
        if not found:
            raise InputError(f"{folder} has neither {KEYPOINTS_FILE} nor {MATLAB_FILE}.", "Run this clip.")
        first, *others = found.values()
        if any(not np.allclose(first[1:], other[1:], rtol=0, atol=_AGREE, equal_nan=True) for other in others):
            raise InputError(f"{KEYPOINTS_FILE} and {MATLAB_FILE} in {folder} differ.", "Keep the one that is meant.")
        within: Float64[ndarray, "t 15 2"] = np.clip(first, -_FAR, _FAR)
        return within

    def _judged(
        self, sequence: JhmdbSequence, predicted: Float64[ndarray, "t 15 2"]
    ) -> tuple[Bool[ndarray, "t 15"], Float64[ndarray, " t"]]:
        """Which joints count, and the unit of the distances per frame in pixels."""
        if self.protocol == "videowalk":
            found = predicted[:, :, 0] >= 0
            return found, jhmdb_normalisers(sequence.truth, found)
        inside = _inside(sequence)
        return inside & inside[0], jhmdb_normalisers(sequence.truth, np.ones_like(inside))

    def _distances(self, sequence: JhmdbSequence, predicted: Float64[ndarray, "t 15 2"]) -> Float64[ndarray, "t 15"]:
        counted, normaliser = self._judged(sequence, predicted)
        return pck_distances(sequence.truth, predicted, counted, normaliser)


def load_jhmdb(data: Path, *, split: int = 1, protocol: Protocol, sequences: Sequence[str] = ()) -> Jhmdb:
    """JHMDB's test clips, verified.

    Args:
        data: the folder of `splits`, `Rename_Images` and `joint_positions` (see `jhmdb_tree`).
        split: 1, 2 or 3.
        protocol: "videowalk" or "strict"; see the module.
        sequences: only these, each CLASS/VIDEO or VIDEO; all if empty.

    Raises:
        InputError: what is missing or cannot be read, all of it in one message.
        UsageError: a sequence that is not in the lists.
    """
    return Jhmdb(read_jhmdb(data, split, sequences), split, protocol, subset=bool(sequences))


def _inside(sequence: JhmdbSequence) -> Bool[ndarray, "t 15"]:
    """Which true positions lie in the picture, which spans from -0.5 to its size less 0.5."""
    height, width = sequence.size
    far = np.array([width - 0.5, height - 0.5])
    inside: Bool[ndarray, "t 15"] = np.all((sequence.truth >= -0.5) & (sequence.truth <= far), axis=2)
    return inside


def _of_json(sequence: JhmdbSequence, path: Path) -> Float64[ndarray, "t 15 2"]:
    poses = read_poses(path, JOINTS, sequence.size)
    missing = [frame for frame in range(1, len(sequence.truth)) if frame not in poses]
    if missing:
        raise InputError(f"{path} lacks frame {listed(missing)}.", "Run this clip again.")
    absent = np.full((len(JOINTS), 2), np.nan, np.float32)
    return np.stack(
        [poses[frame].positions if frame in poses else absent for frame in range(len(sequence.truth))]
    ).astype(np.float64)


def _of_matlab(sequence: JhmdbSequence, path: Path) -> Float64[ndarray, "t 15 2"]:
    """Frames beyond the truth are cut off, as `eval_pck.py` does."""
    positions = read_pos_img(path)[: len(sequence.truth)]
    if len(positions) < len(sequence.truth):
        raise InputError(
            f"{path} ends after {len(positions)} of {len(sequence.truth)} frames.", "Predict every frame of the clip."
        )
    return np.where(np.isfinite(positions).all(2, keepdims=True), positions, np.nan)
