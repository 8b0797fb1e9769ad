"""Human poses: the test clips of JHMDB (Jhuang et al., ICCV 2013), 15 joints, scored by PCK.

The joints of a clip's first frame are given; frames 1 to T - 1 are scored. Distances are in units of 0.6 of the
diagonal of a box around joints of the true pose. A joint is right at a threshold of 0.1 to 0.5 if its distance is not
above it. PCK of a joint is the share of right ones over all clips and frames; the score is the plain mean of the
joints.

The two protocols differ in the rest:

`videowalk` is CRW's evaluation (Jabri et al., NeurIPS 2020; `data/jhmdb.py`, `test.py`, `eval_pck.py`), on which the
published scores are based, exactly:
    Frames are squeezed to 320 x 320 regardless of their aspect. Positions go to a grid of 40 x 40 cells and back
    without a half-pixel shift, through the codec `jhmdb`. Only extractors of stride 8 have such a grid.
    A lost joint (predicted x is not 0 or above) is LEFT OUT, not wrong, and the box encloses the true positions of the
    joints that were found. Losing the hard joints therefore raises the score: check the coverage.
    Joints whose true position is outside of the picture count.

`strict` keeps the aspect, passes frames at their own size to the codec of the settings, and counts lost joints:
    A joint counts in a frame if its true position is inside of the picture in this frame and in the first (otherwise
    it could not be given). A joint that counts and has no position is wrong.
    The box encloses all 15 true positions, inside or not, whatever was predicted.

Where no joint is lost or outside of the picture, both protocols score alike. Coverage is the share of counted pairs
among all pairs of a scored frame and a joint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    read_pos_img,
    write_pos_img,
)
from propagate.benchmarks.poses import KEYPOINTS_FILE, PoseBenchmark, pose_pictures, read_frames, read_poses
from propagate.benchmarks.scoring import listed, score_clips
from propagate.errors import InputError
from propagate.formats import KeypointsWriter
from propagate.geometry import resize_frame
from propagate.metrics import jhmdb_normalisers, pck_distances
from propagate.types import Frame, Keypoints, Prediction

Protocol = Literal["videowalk", "strict"]

SQUARE = 320  # sides of videowalk's frames
TEST_CLIPS = 268  # of split 1, as the literature counts them

_DRAWN = 0.1  # threshold of the pictures
_AGREE = 0.01  # pixels; two files of one result may differ by this: numbers in text are rounded
_FAR = 1e6  # pixels; predictions are clipped here, wrong all the same, and within float32


@dataclass(frozen=True, eq=False)
class Jhmdb(PoseBenchmark[JhmdbSequence]):
    """JHMDB as a `Benchmark`; made by `propagate.benchmarks.jhmdb.load`.

    Results are `<results>/CLASS/VIDEO/keypoints.json` (propagate.formats) or `joint_positions.mat`, in the data set's
    format: `pos_img` (2, 15, T), x and y in pixels counted from 1, NaN where a joint is lost (for `videowalk`, also
    where x is below 1). The writer makes both; one suffices for scoring, and two that differ are an error. Under either
    protocol, positions are in pixels of the data set's own pictures.
    """

    split: int  # 1, 2 or 3
    protocol: Protocol  # "videowalk" or "strict"; see the module
    subset: bool = False  # `sequences` were chosen by name

    @property
    def name(self) -> str:
        """ "jhmdb-videowalk" or "jhmdb-strict"."""
        return f"jhmdb-{self.protocol}"

    @property
    def title(self) -> str:
        """Data, split, number of clips unless it is all of split 1, and protocol."""
        number = f"{len(self.sequences)} of {TEST_CLIPS}" if self.split == 1 else f"{len(self.sequences)}"
        part = "" if self._is_whole else f", {number} test clips"
        return f"JHMDB test split {self.split}{part}, poses, protocol {self.protocol}"

    @property
    def settings(self) -> tuple[str, ...]:
        """The codec and the working size of videowalk."""
        if self.protocol == "strict":
            return ()
        return ("labels.keypoints.codec=jhmdb", f"video.short_side={SQUARE}")

    @property
    def published(self) -> tuple[Published, ...]:
        """Published scores follow `videowalk` on all of split 1."""
        return PUBLISHED if self.protocol == "videowalk" and self._is_whole else ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """Notes on the number of clips and on lost joints."""
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
        """Yield the clip's frames as far as there are poses; for `videowalk` 320 x 320."""
        for frame in super().frames(clip):
            squeezed = self.protocol == "videowalk"
            yield replace(frame, pixels=resize_frame(frame.pixels, (SQUARE, SQUARE))) if squeezed else frame

    def label(self, clip: Clip) -> Keypoints:
        """Return the joints of the first frame in pixels of `frames`; for `strict` only those inside of the picture."""
        sequence = self.sequence(clip.name)
        positions = sequence.truth[0] * self._squeeze(sequence)
        if self.protocol == "strict":
            positions = np.where(_inside(sequence)[0][:, None], positions, np.nan)
        return Keypoints(positions.astype(np.float32), JOINTS, SKELETON)

    @contextmanager
    def writer(self, clip: Clip, folder: Path) -> Iterator[Write]:
        """Write `keypoints.json` and `joint_positions.mat` when the clip ends, in pixels of the data set's pictures."""
        sequence = self.sequence(clip.name)
        rows = list[ndarray]()
        with KeypointsWriter(folder / KEYPOINTS_FILE, frame_size=sequence.size, exact=True) as file:

            def write(_frame: Frame, prediction: Prediction) -> None:
                keypoints = prediction.keypoints
                assert keypoints is not None
                positions = (keypoints.positions / self._squeeze(sequence)).astype(np.float32)
                rows.append(positions)
                file.write(replace(prediction, keypoints=replace(keypoints, positions=positions)))

            yield write
            if rows:  # without rows, KeypointsWriter raises the error
                write_pos_img(folder / MATLAB_FILE, np.stack(rows))

    def score(self, results: Path) -> Scores:
        """Return PCK@0.1 to 0.5 and coverage. A clip whose results lack a frame is not scored."""

        def distances(name: str) -> Float64[ndarray, "t 15"]:
            sequence = self.sequence(name)
            return self._distances(sequence, self._positions(sequence, results / name))[1:]

        return pck_scores(*score_clips(results, [clip.name for clip in self.clips], distances))

    def compare(self, clip: Clip, results: Path, frame: int) -> tuple[UInt8[ndarray, "h w 3"], ...]:
        """Draw the predicted pose, the true one, and the distances of the counted joints at the threshold of 0.1."""
        sequence = self.sequence(clip.name)
        predicted = self._positions(sequence, results / clip.name)
        distances = self._distances(sequence, predicted)[frame]
        (picture,) = read_frames([clip.pictures[frame]], sequence.size)
        return pose_pictures(
            picture.pixels,
            Keypoints(predicted[frame].astype(np.float32), JOINTS, SKELETON),
            Keypoints(sequence.truth[frame].astype(np.float32), JOINTS, SKELETON),
            counted=~np.isnan(distances),
            right=distances <= _DRAWN,
            tolerance=float(_DRAWN * self._counted(sequence, predicted)[1][frame]),
        )

    @property
    def _is_whole(self) -> bool:
        return self.split == 1 and len(self.sequences) == TEST_CLIPS

    def _squeeze(self, sequence: JhmdbSequence) -> Float64[ndarray, "2"]:
        """Return the factors from pictures to `frames` in x and y, without a half-pixel shift like videowalk's grid."""
        height, width = sequence.size
        return SQUARE / np.array([width, height]) if self.protocol == "videowalk" else np.ones(2)

    def _positions(self, sequence: JhmdbSequence, folder: Path) -> Float64[ndarray, "t 15 2"]:
        """Read the predictions for each frame of the truth; NaN where a joint is lost."""
        found = {}
        for name, read in ((MATLAB_FILE, _read_matlab), (KEYPOINTS_FILE, _read_json)):  # the first has all digits
            if (folder / name).exists():
                found[name] = read(sequence, folder / name)
        if not found:
            raise InputError(f"{folder} has neither {KEYPOINTS_FILE} nor {MATLAB_FILE}.", "Run this clip.")
        first, *others = found.values()
        if any(not np.allclose(first[1:], other[1:], rtol=0, atol=_AGREE, equal_nan=True) for other in others):
            raise InputError(f"{KEYPOINTS_FILE} and {MATLAB_FILE} in {folder} differ.", "Keep one.")
        within: Float64[ndarray, "t 15 2"] = np.clip(first, -_FAR, _FAR)
        return within

    def _counted(
        self, sequence: JhmdbSequence, predicted: Float64[ndarray, "t 15 2"]
    ) -> tuple[Bool[ndarray, "t 15"], Float64[ndarray, " t"]]:
        """Return the joints that count, and the unit of the distances per frame in pixels."""
        if self.protocol == "videowalk":
            found = predicted[:, :, 0] >= 0
            return found, jhmdb_normalisers(sequence.truth, found)
        inside = _inside(sequence)
        return inside & inside[0], jhmdb_normalisers(sequence.truth, np.ones_like(inside))

    def _distances(self, sequence: JhmdbSequence, predicted: Float64[ndarray, "t 15 2"]) -> Float64[ndarray, "t 15"]:
        counted, normaliser = self._counted(sequence, predicted)
        return pck_distances(sequence.truth, predicted, counted, normaliser)


def _inside(sequence: JhmdbSequence) -> Bool[ndarray, "t 15"]:
    """Return the true positions inside of the picture, from -0.5 to its size less 0.5."""
    height, width = sequence.size
    far = np.array([width - 0.5, height - 0.5])
    inside: Bool[ndarray, "t 15"] = np.all((sequence.truth >= -0.5) & (sequence.truth <= far), axis=2)
    return inside


def _read_json(sequence: JhmdbSequence, path: Path) -> Float64[ndarray, "t 15 2"]:
    poses = read_poses(path, JOINTS, sequence.size)
    missing = [frame for frame in range(1, len(sequence.truth)) if frame not in poses]
    if missing:
        raise InputError(f"{path} lacks frame {listed(missing)}.", "Run this clip again.")
    positions = np.full(sequence.truth.shape, np.nan)
    for frame in range(len(positions)):
        if frame in poses:  # the first may be missing
            positions[frame] = poses[frame].positions
    return positions


def _read_matlab(sequence: JhmdbSequence, path: Path) -> Float64[ndarray, "t 15 2"]:
    """Read positions. Frames beyond the truth are cut off, as in `eval_pck.py`."""
    positions = read_pos_img(path)[: len(sequence.truth)]
    if len(positions) < len(sequence.truth):
        raise InputError(
            f"{path} ends after {len(positions)} of {len(sequence.truth)} frames.", "Predict every frame of the clip."
        )
    return np.where(np.isfinite(positions).all(2, keepdims=True), positions, np.nan)
