"""Animal joints: BADJA (Biggs et al., ACCV 2018) on the videos of DAVIS, scored by PCK@0.2 of the animal's size.

The protocol is that of the point-tracking literature (PIPs, Harley et al., ECCV 2022, for RAFT and DINO; CoTracker):
    A clip is every frame from the first to the last annotated one. The joints of the first are given: all of the 20
    in BADJA's catalog that have a position there, visible or not. The annotated frames after it are scored ("about
    every fifth": 1 to 11 apart).
    A joint counts in a frame if it is visible there and was given. Joints annotated as (0, 0) in the first frame are
    not given; no visible joint of these videos is.
    It is right if its distance from the truth is below (not equal to) 0.2 * sqrt(area of that frame's mask). A joint
    that counts and has no position is wrong.
    A video's PCK pools its frames and joints; the score is the mean over the videos.

Where other programs' numbers may differ:
    Distances and areas are measured at the frames' own resolution; PIPs squeezes to 320 x 512, CoTracker to 384 x 512.
    Positions are annotated at 1920 x 1080 and scaled with half-pixel centers, (p + 0.5) * 854 / 1920 - 0.5 at 480p; a
    plain product differs by up to 0.28 pixels, for truth and prediction alike.
    The area is everything but the background. Masks of DAVIS-2016 have one object, the animal with its rider. In masks
    of DAVIS-2017 the rider is a separate object; the literature reads them as color pictures and counts pixels with a
    red component, which omits object 2 (0, 128, 0). With such masks areas here are larger, and so is the PCK.
    PIPs' own path also counts the first frame, which adds hits for free.

Coverage is the share of counted pairs among all pairs of a scored frame and a joint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from propagate.benchmarks.badja.score import PUBLISHED, ScoredClip, pck_scores, score_clip, tolerances
from propagate.benchmarks.badja.tree import JOINTS, SEQUENCES, SKELETON, BadjaSequence
from propagate.benchmarks.benchmark import Clip, Published, Scores, Write
from propagate.benchmarks.poses import KEYPOINTS_FILE, PoseBenchmark, pose_pictures, read_frames, read_poses
from propagate.benchmarks.scoring import listed, score_clips
from propagate.errors import InputError
from propagate.formats import KeypointsWriter
from propagate.types import Frame, Keypoints, Prediction

_INVISIBLE = 0.25  # confidence of an estimated position: it is drawn hollow


@dataclass(frozen=True, eq=False)
class Badja(PoseBenchmark[BadjaSequence]):
    """BADJA as a `Benchmark`; made by `propagate.benchmarks.badja.load`.

    Results are `<results>/NAME/keypoints.json` (propagate.formats): positions in pixels of the frames, frames numbered
    from the first annotated one. Only annotated frames are read.
    """

    name: ClassVar[str] = "badja"
    settings: ClassVar[tuple[str, ...]] = ()
    resolution: str  # folder of one size in the DAVIS tree

    @property
    def title(self) -> str:
        """Data, subset and resolution."""
        return f"BADJA, {len(self.sequences)} of the {len(SEQUENCES)} videos in DAVIS, {self.resolution}"

    @property
    def published(self) -> tuple[Published, ...]:
        """Means over all seven videos."""
        return PUBLISHED if len(self.sequences) == len(SEQUENCES) else ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """Notes on a subset and on masks of several objects."""
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

    def label(self, clip: Clip) -> Keypoints:
        """Return the joints that have a position in the first frame, visible or not."""
        return _keypoints(self.sequence(clip.name).joints[0])

    @contextmanager
    def writer(self, clip: Clip, folder: Path) -> Iterator[Write]:
        """Write `keypoints.json` when the clip ends; an InputError says that it cannot be written or has no frames."""
        with KeypointsWriter(folder / KEYPOINTS_FILE, frame_size=self.sequence(clip.name).size, exact=True) as file:

            def write(_frame: Frame, prediction: Prediction) -> None:
                file.write(prediction)

            yield write

    def score(self, results: Path) -> Scores:
        """Return PCK@0.2 and coverage. A clip whose results lack an annotated frame is not scored."""
        names = [clip.name for clip in self.clips]
        return pck_scores(*score_clips(results, names, lambda name: self._score(name, results)))

    def _score(self, name: str, results: Path) -> ScoredClip:
        sequence, path = self.sequence(name), results / name / KEYPOINTS_FILE
        if not path.exists():
            raise InputError(f"{path} is missing.", "Run this clip.")
        poses = read_poses(path, JOINTS, sequence.size)
        scored = sequence.annotated[1:].tolist()
        if missing := [frame for frame in scored if frame not in poses]:
            raise InputError(f"{path} lacks the annotated frame {listed(missing)}.", "Run this clip again.")
        return score_clip(sequence, np.stack([poses[frame].positions for frame in scored]).astype(np.float64))

    def compare(self, clip: Clip, results: Path, frame: int) -> tuple[UInt8[ndarray, "h w 3"], ...]:
        """Draw the predicted pose, the true one, and the distances of the counted joints.

        Invisible joints of the true pose are hollow. A frame without annotation has no truth.
        """
        sequence = self.sequence(clip.name)
        poses = read_poses(results / clip.name / KEYPOINTS_FILE, JOINTS, sequence.size)
        nothing = np.full((len(JOINTS), 2), np.nan)
        counted = right = np.zeros(len(JOINTS), np.bool_)
        truth, tolerance = _keypoints(nothing), 0.0
        (places,) = np.nonzero(sequence.annotated == frame)
        if len(places):
            place = int(places[0])
            confidence = np.where(sequence.visible[place], 1, _INVISIBLE) * np.isfinite(sequence.joints[place]).all(1)
            truth = _keypoints(sequence.joints[place], confidence.astype(np.float32))
            tolerance = float(tolerances(sequence)[place])
            if place:
                scored = self._score(clip.name, results)
                counted, right = scored.counted[place - 1], scored.right[place - 1]
        found = poses.get(frame, _keypoints(nothing))
        prediction = Keypoints(found.positions, JOINTS, SKELETON, found.confidence)
        (picture,) = read_frames([clip.pictures[frame]], sequence.size)
        return pose_pictures(picture.pixels, prediction, truth, counted=counted, right=right, tolerance=tolerance)


def _keypoints(positions: Float64[ndarray, "20 2"], confidence: ndarray | None = None) -> Keypoints:
    given = {} if confidence is None else {"confidence": confidence}
    return Keypoints(positions.astype(np.float32), JOINTS, SKELETON, **given)
