from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from propagate.errors import InputError, OutOfMemoryError, UsageError
from propagate.features.learned_prompts.label_reader import LabelReader
from propagate.geometry import working_size
from propagate.planning.plan import check_learning
from propagate.settings import load_settings
from propagate.types import Keypoints, Mask
from tests.features.learned_prompts.tiny_attention import SD_TINY, SIZE, middle, picture, square_mask, tiny_attention


@pytest.fixture(scope="module")
def untaught():
    return tiny_attention()


@pytest.fixture(scope="module")
def taught(untaught):
    return untaught.for_label(picture(), square_mask(), SIZE)


@pytest.fixture
def file(taught, tmp_path):
    taught.save(tmp_path / "prompt.safetensors")
    return tmp_path / "prompt.safetensors"


def test_attention_follows_the_square(taught):
    inside = torch.zeros(8, 12, dtype=torch.bool)
    inside[2:6, 2:6] = True
    for shift in (0, 16, 32):
        attention = taught(picture(shift)[None])[0, 0]
        moved = inside.roll(shift // 8, 1)
        assert attention[moved].mean() > 1.5 * attention[~moved].mean()


def test_it_is_a_label_reader_with_a_channel_per_object(untaught, taught):
    assert isinstance(untaught, LabelReader)
    assert (untaught.channels, taught.channels) == (0, 1)
    features = taught(torch.stack([picture(), picture(16)]), indices=[4, 5])
    assert features.shape == (2, 1, 8, 12)
    assert 0 <= features.min() <= features.max() <= 1
    assert not features.requires_grad
    torch.testing.assert_close(taught(picture(16)[None]), features[1:], rtol=1e-4, atol=1e-6)


def test_the_same_seed_learns_the_same(untaught):
    short = tiny_attention(steps=2)
    first, again = (short.for_label(picture(), middle(), SIZE) for _ in range(2))
    assert torch.equal(first.prompts.embeddings["middle"], again.prompts.embeddings["middle"])
    other = tiny_attention(steps=2, seed=1).for_label(picture(), middle(), SIZE)
    assert not torch.equal(first.prompts.embeddings["middle"], other.prompts.embeddings["middle"])


def test_an_absent_joint_has_no_prompt_and_no_attention():
    taught = tiny_attention(steps=2).for_label(picture(), middle(), SIZE)
    assert list(taught.prompts.embeddings) == ["middle"]
    features = taught(picture()[None])[0]
    assert features.shape == (2, 8, 12)
    assert features[0].max() > 0
    assert features[1].max() == 0


def test_restarts_are_averaged():
    short = tiny_attention(steps=2, restarts=2)
    assert short.learning_steps(middle()) == 2 * 2  # the absent joint has none
    assert short.learning_steps(square_mask()) == 2 * 2
    taught = short.for_label(picture(), middle(), SIZE)
    embeddings = taught.prompts.embeddings["middle"]
    assert len(embeddings) == 2
    assert not torch.equal(embeddings[0], embeddings[1])
    assert taught(picture()[None]).shape == (1, 2, 8, 12)


def test_every_step_is_told_and_those_left_out_at_the_end():
    told = []
    short = tiny_attention(steps=12, learning_rate=1e-12, patience=2)
    short.for_label(picture(), middle(), SIZE, on_step=lambda *step: told.append(step))
    assert {name for name, _, _ in told} == {"middle"}
    *steps, rest = [taken for _, _, taken in told]
    assert set(steps) == {1}
    assert rest > 1
    assert sum(steps) + rest == 12


def test_prompts_of_a_file_are_used_as_they_are(taught, file):
    reused = tiny_attention(embedding=file)
    assert reused.learning_steps(square_mask()) == 0

    def never(*_step):
        raise AssertionError("nothing is learned")

    other_clip = reused.for_label(picture(16), square_mask(), SIZE, on_step=never)
    assert torch.equal(other_clip(picture(32)[None]), taught(picture(32)[None]))


def test_other_names_than_the_files(file):
    reused = tiny_attention(embedding=file)
    with pytest.raises(InputError, match="has prompts for 3, none for middle"):
        reused.for_label(picture(), middle(), SIZE)
    ids = square_mask().ids.copy()
    ids[60:] = 9
    with pytest.raises(InputError, match="none for 9"):
        reused.for_label(picture(), Mask(ids), SIZE)


def test_a_file_of_other_layers(file):
    with pytest.raises(InputError, match=r"features.layers = .*, not \[\[2, 0\]\]"):
        tiny_attention(embedding=file, layers=[[2, 0]])


def test_a_file_of_another_model(file, tmp_path):
    pipeline = tmp_path / "pipeline"
    for part in ("vae", "scheduler"):
        (pipeline / part).parent.mkdir(exist_ok=True)
        (pipeline / part).symlink_to(SD_TINY / part)
    other = SD_TINY.parents[1] / "prompt_attention_tiny_0" / "unet"
    (pipeline / "unet").symlink_to(other)
    with pytest.raises(InputError, match="are 32 wide, this model's are 24"):
        tiny_attention(embedding=file, weights=pipeline)


def test_a_joint_outside_the_frame(untaught):
    outside = Keypoints(np.array([[10, 10], [200, 10]], np.float32), ("in", "out"))
    with pytest.raises(InputError, match=r"Keypoint out at \(200, 10\) lies outside"):
        untaught.for_label(picture(), outside, SIZE)


@pytest.mark.parametrize(
    "label", [Mask(np.zeros(SIZE, np.uint8)), Keypoints(np.full((1, 2), np.nan, np.float32), ("a",))]
)
def test_a_label_with_nothing_in_it(untaught, label):
    with pytest.raises(InputError, match="no joint or object"):
        untaught.for_label(picture(), label, SIZE)


def test_without_a_label_it_has_nothing_to_read(untaught):
    with pytest.raises(UsageError, match="learned no prompts"):
        untaught(picture()[None])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crops": 3}, "crops = 3"),
        ({"timestep": 1000}, "features.timestep = 1000.*1000 steps"),
        ({"learning_timestep": 1000}, "features.learning_timestep = 1000"),
        ({"multiple": 12}, "multiples of 8"),
        ({"portion": 1.5}, "features.portion = 1.5"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(UsageError, match=message):
        tiny_attention(**options)


def test_learning_is_refused_where_it_does_not_fit_the_memory(untaught):
    settings = load_settings("prompt_attention", ["video.short_side=64"])
    step = partial(untaught.dry_run_step, working_size(SIZE, multiple=untaught.multiple, **settings.video.sizing))
    with pytest.raises(OutOfMemoryError, match="learning the first frame's label takes about") as caught:
        check_learning(step, SIZE, 2**28)
    assert "short_side" in caught.value.remedy


def test_a_step_of_learning_fits_where_the_limit_leaves_room():
    settings = load_settings("prompt_attention", ["video.short_side=64"])
    short = tiny_attention(steps=1)
    size = working_size(SIZE, multiple=short.multiple, **settings.video.sizing)
    check_learning(partial(short.dry_run_step, size), SIZE, 2 * 2**30)
    # the estimate left nothing behind: what is learned afterwards is what is learned without it
    found, expected = (
        extractor.for_label(picture(), square_mask(), SIZE).prompts.embeddings["3"]
        for extractor in (short, tiny_attention(steps=1))
    )
    assert torch.equal(found, expected)


def test_half_precision(taught, file):
    """Learning drifts apart with every rounding, so that one learned prompt is looked up in both precisions."""
    half = tiny_attention(embedding=file, dtype="bfloat16").for_label(picture(), square_mask(), SIZE)
    found, expected = half(picture(16)[None])[0, 0], taught(picture(16)[None])[0, 0]
    assert found.dtype == torch.float32
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.99


def test_learning_in_half_precision_keeps_full_prompts():
    half = tiny_attention(steps=2, dtype="bfloat16").for_label(picture(), middle(), SIZE)
    assert half.prompts.embeddings["middle"].dtype == torch.float32
    assert half.prompts.embeddings["middle"].isfinite().all()
