from __future__ import annotations

import numpy as np
import pytest

from propagate.benchmarks.speed.generated_clip import generate_clip, shapes_mask
from propagate.errors import UsageError
from propagate.video import open_video

SIZE = (64, 96)


def test_the_same_clip_every_time(tmp_path):
    masks = [generate_clip(tmp_path / f"{i}.mp4", frames=4, size=SIZE, objects=3) for i in range(2)]
    np.testing.assert_array_equal(masks[0].ids, masks[1].ids)
    assert masks[0].objects == (1, 2, 3)
    one, two = ([frame.pixels for frame in open_video(tmp_path / f"{i}.mp4")] for i in range(2))
    assert len(one) == 4
    assert one[0].shape == (*SIZE, 3)
    np.testing.assert_array_equal(one, two)


def test_ground_and_objects_have_texture_and_move(tmp_path):
    mask = generate_clip(tmp_path / "clip.mp4", frames=8, size=SIZE, objects=1)
    frames = np.stack([frame.pixels.astype(int) for frame in open_video(tmp_path / "clip.mp4")])
    inside = mask.ids == 1
    for where in (inside, ~inside):
        assert frames[0][where].std(0).min() > 15
    difference = np.abs(frames[7] - frames[0]).max(2)
    assert difference[~inside].mean() > 15  # the ground has moved
    color = [np.median(frames[0][where], axis=0) for where in (inside, ~inside)]
    assert np.abs(color[0] - color[1]).max() > 30  # an object is told from the ground


@pytest.mark.parametrize("objects", [1, 5, 20, 254])
def test_every_object_is_there_and_hides_no_other(objects):
    mask = shapes_mask((240, 427), objects)
    assert mask.objects == tuple(range(1, objects + 1))
    areas = np.bincount(mask.ids.ravel(), minlength=objects + 1)[1:]
    assert areas.min() == areas.max()


def test_too_many_objects():
    with pytest.raises(UsageError, match="--objects 100 do not fit into frames of 32x24"):
        shapes_mask((24, 32), 100)
