"""The clips in `sample_videos/` are what their README says, and the rendered one's truth is true."""

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from propagate.formats import DAVIS_PALETTE, read_indexed_png, read_keypoints
from sample_videos import render
from sample_videos.make_clips import CUTS, fill_polygons

ROOT = Path(render.__file__).parent
CLIPS = {  # width, height, frames, frames per second, ids of the first mask, most bytes
    "bunny": (640, 360, 58, 25, (1,), 1_600_000),
    "pedestrians": (640, 480, 48, 10, (1, 2), 1_000_000),
    "rendered": (640, 360, 60, 25, (1, 2, 3), 1_200_000),
}
FRAMES = range(CLIPS["rendered"][2])


def first_mask(name):
    return read_indexed_png(ROOT / name / ("masks/00000.png" if name == "rendered" else "mask.png"))


@pytest.fixture(scope="module")
def true_masks():
    return [read_indexed_png(ROOT / "rendered" / "masks" / f"{index:05d}.png") for index in FRAMES]


@pytest.mark.parametrize("name", CLIPS)
def test_clip_is_h264_of_the_stated_size_rate_and_length(name):
    width, height, count, rate, _, most_bytes = CLIPS[name]
    path = ROOT / name / "clip.mp4"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == rate
        frames = list(container.decode(video=0))
    assert len(frames) == count
    assert {(frame.width, frame.height) for frame in frames} == {(width, height)}
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(i, rate) for i in range(count)]
    assert path.stat().st_size <= most_bytes


@pytest.mark.parametrize("name", CLIPS)
def test_index_stands_before_the_pictures(name):
    data = (ROOT / name / "clip.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("name", CLIPS)
def test_first_mask_has_the_frames_size_and_the_stated_ids(name):
    width, height, _, _, ids, _ = CLIPS[name]
    mask = first_mask(name)
    assert mask.size == (height, width)
    assert mask.objects == ids
    for id_ in ids:  # one piece each: no stray pixels of a slipped vertex
        pieces, _ = cv2.connectedComponents((mask.ids == id_).astype(np.uint8))
        assert pieces == 2


def test_masks_are_indexed_pngs_with_the_davis_palette():
    for path in sorted(ROOT.glob("*/mask.png")) + sorted(ROOT.glob("*/masks/*.png")):
        with Image.open(path) as image:
            assert image.mode == "P", path
            palette = np.array(image.getpalette()).reshape(-1, 3)
            np.testing.assert_array_equal(palette, DAVIS_PALETTE[: len(palette)])
            assert len(palette) >= 4


@pytest.mark.parametrize("name", CUTS)
def test_drawn_masks_are_their_polygons(name):
    annotation = json.loads((ROOT / name / "polygons.json").read_text())
    np.testing.assert_array_equal(fill_polygons(annotation), first_mask(name).ids)


@pytest.mark.parametrize("name", CUTS)
def test_cuts_have_the_stated_length(name):
    assert CUTS[name].last - CUTS[name].first + 1 == CLIPS[name][2]
    assert CUTS[name].rate == CLIPS[name][3]


def test_a_later_polygon_lies_in_front():
    back = {"id": 2, "points": [[1, 1], [6, 1], [6, 4], [1, 4]]}
    front = {"id": 1, "points": [[4, 0], [7, 0], [7, 5], [4, 5]]}
    mask = fill_polygons({"size": [8, 6], "polygons": [back, front]})
    assert mask[2].tolist() == [0, 2, 2, 2, 1, 1, 1, 1]
    assert mask[5].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_rabbits_keypoints_lie_on_the_rabbit():
    keypoints = read_keypoints(ROOT / "bunny" / "keypoints.json", frame_size=(360, 640))
    assert len(keypoints.names) >= 10
    assert keypoints.present.all()
    rabbit = first_mask("bunny").ids == 1
    for name, (x, y) in zip(keypoints.names, keypoints.positions, strict=True):
        assert rabbit[round(float(y)), round(float(x))], name
    # A rabbit that faces the camera has its right side at the left of the picture.
    x_of = dict(zip(keypoints.names, keypoints.positions[:, 0].tolist(), strict=True))
    for part in ("eye", "ear_tip", "ear_base", "hand"):
        assert x_of[f"right_{part}"] < x_of[f"left_{part}"]


def test_rendered_objects_are_there_in_every_frame_and_large_enough(true_masks):
    for index, mask in enumerate(true_masks):
        assert mask.size == (360, 640)
        assert mask.objects == (1, 2, 3), index
        for id_ in mask.objects:
            rows, columns = np.nonzero(mask.ids == id_)
            assert max(np.ptp(rows), np.ptp(columns)) >= 80, (index, id_)


def test_rendered_keypoints_lie_on_their_objects_where_seen_and_some_are_hidden_and_return(true_masks):
    owners = {name: thing["id"] for thing in render.read_scene()["objects"] for name in thing["keypoints"]}
    seen = []
    for index, mask in enumerate(true_masks):
        keypoints = read_keypoints(ROOT / "rendered" / "keypoints.json", frame_size=(360, 640), frame=index)
        assert set(keypoints.names) == set(owners)
        for name, (x, y), present in zip(keypoints.names, keypoints.positions, keypoints.present, strict=True):
            if present:
                assert mask.ids[round(float(y)), round(float(x))] == owners[name], (index, name)
        seen.append(keypoints.present)
    visible = np.array(seen)
    assert visible[0].all()
    hidden = ~visible.all(0)
    assert hidden.any()
    assert visible[-1, hidden].any()


def test_rendered_motion_is_moderate_and_scale_turn_and_bend_occur():
    for number, thing in enumerate(render.read_scene()["objects"]):
        poses = [render.pose(number, index) for index in FRAMES]
        scales, angles = [p.scale for p in poses], [p.angle for p in poses]
        assert min(scales) >= 0.7
        assert max(scales) <= 1.4
        assert max(scales) - min(scales) > 0.2
        assert np.degrees(max(angles) - min(angles)) > 20
        assert max(abs(p.bend_u) for p in poses) > 10
        marks = np.array(list(thing["keypoints"].values()), np.float64)
        places = np.array([render.cutout(number).to_frame(marks, pose) for pose in poses])
        steps = np.linalg.norm(np.diff(places, axis=0), axis=2)
        assert np.mean(steps < 10) > 0.95
        assert steps.max() < 16


def test_rendering_does_not_depend_on_what_was_rendered_before():
    once, mask = render.render_frame(44)
    render.render_frame(3)
    again, same_mask = render.render_frame(44)
    np.testing.assert_array_equal(once.pixels, again.pixels)
    np.testing.assert_array_equal(mask.ids, same_mask.ids)
    other, _ = render.render_frame(45)
    assert (once.pixels != other.pixels).any()


def test_stored_frames_are_what_the_script_renders(true_masks):
    index = 47
    frame, mask = render.render_frame(index)
    # Another processor or OpenCV may round a sample at an outline differently: a few pixels of 230,400.
    assert np.count_nonzero(mask.ids != true_masks[index].ids) < 25
    stored = read_keypoints(ROOT / "rendered" / "keypoints.json", frame=index)
    keypoints = render.true_keypoints(index, mask)
    assert keypoints.names == stored.names
    assert keypoints.skeleton == stored.skeleton
    both = keypoints.present & stored.present
    np.testing.assert_allclose(keypoints.positions[both], stored.positions[both], atol=0.011)
    with av.open(str(ROOT / "rendered" / "clip.mp4")) as container:
        decoded = [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i in (index, 20)]
    error = [np.abs(d.astype(float) - frame.pixels).mean() for d in decoded]
    assert error[1] < 5  # compression and noise
    assert error[0] > 10  # another frame is another picture


def test_drawing_and_carrying_points_are_inverse_to_each_other():
    height, width = 90, 120
    y, x = np.mgrid[:height, :width].astype(np.float64)
    mark = np.array([[83.0, 31.0]])
    dot = np.exp(-0.5 * ((x - 83) ** 2 + (y - 31) ** 2) / 3**2).astype(np.float32)
    thing = render.Cutout(np.repeat(dot[..., None], 3, 2), dot, np.array([60.0, 45.0]), np.array([110.0, 80.0]), 1.5)
    pose = render.Pose(100.0, 90.0, 0.9, 0.6, 12.0, -9.0)
    y, x = np.mgrid[:200, :220].astype(np.float64)
    _, alpha = thing.draw(x, y, pose)
    centroid = np.array([(alpha * x).sum(), (alpha * y).sum()]) / alpha.sum()
    # The bend is curved under the dot, which shifts its centroid a little.
    np.testing.assert_allclose(centroid, thing.to_frame(mark, pose)[0], atol=0.25)
    row, column = np.unravel_index(alpha.argmax(), alpha.shape)
    assert np.hypot(*(thing.to_frame(mark, pose)[0] - (column, row))) <= 0.75


def test_everything_together_is_under_four_megabytes():
    files = [p for p in ROOT.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(path.stat().st_size for path in files) < 4_000_000
    for name in CLIPS:
        assert f"`{name}/`" in (ROOT / "README.md").read_text()
