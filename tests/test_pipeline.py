from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from propagate import pipeline
from propagate.errors import InputError, OutOfMemoryError, PropagateWarning, UsageError, WeightsError
from propagate.features import build_extractor
from propagate.features.finer import pack
from propagate.features.passes import PassSize, SmallerPassWarning
from propagate.features.rgb import ColorPatches
from propagate.geometry import to_tensor
from propagate.labels import MaskCodec, codec_for
from propagate.pipeline import track
from propagate.planning.estimate import BATCHES_AHEAD, LABELS_AHEAD
from propagate.planning.plan import plan_memory
from propagate.propagation.propagator import LabelPropagator
from propagate.settings import KeypointLabelSettings, LabelSettings, Settings, load_settings
from propagate.types import Frame, Keypoints, Mask
from propagate.video import open_video

SIZE = (96, 128)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings("rgb", ["features.device=cpu", "video.short_side=96", "propagation.radius=4"])


def picture(step: int) -> np.ndarray:
    """A bright textured square that moves a grid cell to the right per frame over a dark textured ground."""
    generator = np.random.default_rng(0)
    ground = generator.integers(0, 90, (*SIZE, 3)).repeat(1, 0)
    thing = np.kron(generator.integers(150, 255, (4, 4, 3)), np.ones((8, 8, 1)))
    ground[32:64, 16 + 8 * step : 48 + 8 * step] = thing
    return ground.astype(np.uint8)


def first_mask() -> Mask:
    ids = np.zeros(SIZE, np.uint8)
    ids[32:64, 16:48] = 7
    return Mask(ids)


def iou(ids: np.ndarray, step: int) -> float:
    truth = np.zeros(SIZE, bool)
    truth[32:64, 16 + 8 * step : 48 + 8 * step] = True
    found = ids == 7
    return (truth & found).sum() / (truth | found).sum()


def test_a_mask_follows_its_object_with_its_own_id(settings):
    predictions = list(track([picture(step) for step in range(6)], first_mask(), settings=settings))
    assert [prediction.index for prediction in predictions] == list(range(6))
    np.testing.assert_array_equal(predictions[0].mask.ids, first_mask().ids)
    for step, prediction in enumerate(predictions):
        assert prediction.mask.objects == (7,)
        assert iou(prediction.mask.ids, step) > 0.85
        assert 0.5 < prediction.confidence[7] <= 1


def test_keypoints_follow_their_object(settings):
    points = Keypoints(np.array([[24.0, 40.0], [40.0, 56.0], [np.nan, np.nan]], np.float32), ("a", "b", "none"))
    sharp = settings.model_copy(update={"propagation": settings.propagation.model_copy(update={"top_k": 1})})
    for step, prediction in enumerate(track([picture(s) for s in range(5)], points, settings=sharp)):
        expected = points.positions[:2] + np.array([8 * step, 0])
        assert np.abs(prediction.keypoints.positions[:2] - expected).max() < 2
        assert np.isnan(prediction.keypoints.positions[2]).all()
        assert prediction.keypoints.confidence[2] == 0


@pytest.mark.parametrize("batch_size", [1, 3])
def test_it_streams(settings, batch_size):
    """No more frames are taken than stages may be ahead, and an endless video is no obstacle."""
    taken: list[int] = []

    def endless() -> Iterator[np.ndarray]:
        for step in itertools.count():
            taken.append(step)
            yield picture(step % 8)

    batched = settings.model_copy(update={"features": settings.features.model_copy(update={"batch_size": batch_size})})
    predictions = track(endless(), first_mask(), settings=batched)
    assert taken == [0]
    for answered in range(1, 7):
        assert next(predictions).index == answered - 1
        in_work = -(-(answered + LABELS_AHEAD) // batch_size)
        assert len(taken) <= (in_work + BATCHES_AHEAD) * batch_size
    predictions.close()
    assert threads() == []


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("ahead", "behind"))]


def test_nothing_changes_by_doing_it_at_the_same_time(settings):
    """Bit for bit what the stages give when they are called one after the other."""
    frames, extractor = (
        [Frame(picture(step), step, step / 25) for step in range(7)],
        build_extractor("rgb", device="cpu"),
    )
    propagator = LabelPropagator(**settings.propagation.model_dump())
    codec = codec_for([first_mask()], extractor.stride, settings.labels)
    asked = settings.model_copy(update={"output": settings.output.model_copy(update={"soft": True})})
    for frame, found in zip(frames, track(frames, first_mask(), settings=asked), strict=True):
        features = extractor(to_tensor(frame.pixels)[None], [frame.index])[0]
        if frame.index == 0:
            rows, columns = features.shape[1:]
            soft = propagator.anchor(features, codec.encode(first_mask(), frame.size, (rows, columns)))
        else:
            soft = propagator.step(features)
            assert found.confidence == codec.decode(soft, frame).confidence
            np.testing.assert_array_equal(found.mask.ids, codec.decode(soft, frame).mask.ids)
        assert torch.equal(found.soft, soft)


@pytest.mark.parametrize("stage", ["video", "features", "transfer", "decoding"])
def test_a_stage_that_fails_ends_the_others_behind_the_frames_before(settings, monkeypatch, stage):
    class FailingError(Exception): ...

    def after(count: int, call):
        calls = itertools.count()

        def failing(*args: object, **options: object):
            if next(calls) == count:
                raise FailingError(stage)
            return call(*args, **options)

        return failing

    def video() -> Iterator[np.ndarray]:
        for step in range(8):
            if stage == "video" and step == 3:
                raise FailingError(stage)
            yield picture(step)

    extractor = build_extractor("rgb", device="cpu")
    if stage == "features":
        monkeypatch.setattr(ColorPatches, "__call__", after(3, ColorPatches.__call__))
    if stage == "transfer":
        monkeypatch.setattr(LabelPropagator, "step", after(2, LabelPropagator.step))
    if stage == "decoding":
        monkeypatch.setattr(MaskCodec, "decode", after(2, MaskCodec.decode))
    answered = []
    with pytest.raises(FailingError, match=stage):
        answered.extend(p.index for p in track(video(), first_mask(), extractor=extractor, settings=settings))
    assert answered == [0, 1, 2]
    assert threads() == []


def test_warnings_of_a_reader_reach_whoever_asks_for_predictions(settings):
    def video() -> Iterator[np.ndarray]:
        yield from map(picture, range(3))
        warnings.warn("ends early", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="ends early"):
        assert len(list(track(video(), first_mask(), settings=settings))) == 3


def test_no_gradients_are_kept_for_an_extractor_that_has_some(settings):
    class Learning(ColorPatches):
        scale = torch.nn.Parameter(torch.ones(()))

        def __call__(self, images, indices=None):
            assert not torch.is_grad_enabled()
            return super().__call__(images, indices) * self.scale

    assert len(soft_maps(settings, Learning(device="cpu"))) == 6


def test_batches_of_frames_change_nothing(settings):
    frames = [picture(step) for step in range(5)]
    batched = settings.model_copy(update={"features": settings.features.model_copy(update={"batch_size": 3})})
    for one, other in zip(
        track(frames, first_mask(), settings=settings), track(frames, first_mask(), settings=batched), strict=True
    ):
        np.testing.assert_array_equal(one.mask.ids, other.mask.ids)


def test_a_correction_in_mid_video_is_taken(settings):
    frames = [picture(step) for step in range(6)]
    corrected = Mask(np.where(first_mask().ids == 7, 9, 0).astype(np.uint8))
    shifted = Mask(np.roll(corrected.ids, 24, axis=1))
    predictions = list(track(frames, {0: first_mask(), 3: shifted}, settings=settings))
    np.testing.assert_array_equal(predictions[3].mask.ids, shifted.ids)
    assert predictions[2].mask.objects == (7,)
    assert 9 in predictions[5].mask.objects


def test_frames_may_start_anywhere(settings):
    frames = [Frame(picture(step), index=step + 40, time_s=step / 10) for step in range(3)]
    predictions = list(track(frames, {40: first_mask()}, settings=settings))
    assert [prediction.index for prediction in predictions] == [40, 41, 42]
    assert predictions[2].time_s == pytest.approx(0.2)


@pytest.mark.parametrize("codec", ["masks=soft", "masks=dift", "masks=crw", "keypoints=subpixel", "keypoints=jhmdb"])
def test_predictions_have_the_names_of_their_frames(settings, codec):
    kind, name = codec.split("=")
    chosen = getattr(settings.labels, kind).model_copy(update={"codec": name})
    labels = settings.labels.model_copy(update={kind: chosen})
    label = first_mask() if kind == "masks" else Keypoints(np.array([[24.0, 40.0]], np.float32), ("a",))
    frames = [Frame(picture(step), step, step / 25, f"img_{step}") for step in range(3)]
    predictions = track(frames, label, settings=settings.model_copy(update={"labels": labels}))
    assert [prediction.name for prediction in predictions] == ["img_0", "img_1", "img_2"]


def test_an_extractor_of_ones_own(settings):
    extractor = build_extractor("rgb", device="cpu")
    predictions = list(track([picture(0), picture(1)], first_mask(), extractor=extractor, settings=settings))
    assert iou(predictions[1].mask.ids, 1) > 0.85


def test_soft_labels_on_request(settings):
    asked = settings.model_copy(update={"output": settings.output.model_copy(update={"soft": True})})
    predictions = list(track([picture(0), picture(1)], first_mask(), settings=asked))
    assert predictions[1].soft.shape == (2, 12, 16)
    assert next(track([picture(0)], first_mask(), settings=settings)).soft is None


def test_a_mask_of_another_size_names_both_sizes(settings):
    with pytest.raises(InputError, match=r"The mask is 64x32, frame 0 is 128x96\..*--resize-mask"):
        list(track([picture(0)], Mask(np.ones((32, 64), np.uint8)), settings=settings))


def test_joints_outside_the_frame_are_named_with_its_size(settings):
    names, inside = ("nose", "tail", "paw"), Keypoints([[3, 4], [5, 6], [np.nan, np.nan]], ("nose", "tail", "paw"))
    far = Keypoints([[127.6, 3], [127.5, 95.5], [5, -0.6]], names)
    for anchors, frame in ((far, 0), ({0: inside, 1: far}, 1)):
        with pytest.raises(InputError, match=f"outside the frame: nose, paw; frame {frame} is 128x96"):
            track([picture(0), picture(1)], anchors, settings=settings)
    # the codec of that data set draws what reaches in from outside
    settings = settings.model_copy(update={"labels": LabelSettings(keypoints=KeypointLabelSettings(codec="jhmdb"))})
    assert len(list(track([picture(0), picture(1)], far, settings=settings))) == 2


def test_an_object_that_the_grid_has_no_cell_for_is_said(settings):
    ids = first_mask().ids.copy()
    ids[5, 5] = 3
    masks = settings.labels.masks.model_copy(update={"encode": "nearest"})
    coarse = settings.model_copy(update={"labels": settings.labels.model_copy(update={"masks": masks})})
    with pytest.warns(PropagateWarning, match=r"Not carried from frame 0, having no cell of the grid: object 3\."):
        list(track([picture(0), picture(1)], ids, settings=coarse))
    list(track([picture(0), picture(1)], ids, settings=settings))


@pytest.mark.filterwarnings("ignore:Pictures have no clock")
def test_notes_on_a_path_are_warnings(settings, tmp_path):
    for step in (0, 1, 3):
        Image.fromarray(picture(step)).save(tmp_path / f"{step}.png")
    with pytest.warns(PropagateWarning, match="have gaps, 1 missing: 2"):
        assert len(list(track(tmp_path, first_mask(), settings=settings))) == 3


def test_no_frames(settings):
    with pytest.raises(InputError, match="has no frames"):
        list(track([], first_mask(), settings=settings))


def test_a_first_frame_without_anchor(settings):
    with pytest.raises(UsageError, match=r"The first frame, 0, has no mask or keypoints; there are some for \[3\]"):
        track([picture(step) for step in range(4)], {3: first_mask()}, settings=settings)


@pytest.mark.parametrize("as_frames", [False, True])
def test_an_annotated_frame_that_will_not_be_read_is_known_before_the_run(settings, as_frames):
    frames = [Frame(picture(step), 2 * step, step / 25) if as_frames else picture(step) for step in range(3)]
    unread = 3 if as_frames else 5
    with pytest.raises(UsageError, match=f"Frame {unread} is annotated and not among the frames that are read"):
        track(frames, {0: first_mask(), unread: first_mask()}, settings=settings, extractor=NeverCalled())


@pytest.mark.parametrize(
    ("selection", "unread"),
    [({"stride": 2}, "Frame 3 is"), ({"to_frame": 3}, "Frames 3, 4 are"), ({"from_frame": 4}, "Frames 0, 3 are")],
)
def test_a_readers_range_and_stride_count(settings, tmp_path, selection, unread):
    for step in range(5):
        Image.fromarray(picture(step)).save(tmp_path / f"{step}.png")
    anchors = dict.fromkeys((0, 3, 4), first_mask())
    with pytest.raises(UsageError, match=f"{unread} annotated"):
        track(open_video(tmp_path, **selection), anchors, settings=settings, extractor=NeverCalled())


def test_an_annotated_frame_beyond_the_end_of_an_iterator_is_an_error_behind_the_last_frame(settings):
    predictions = track(iter([picture(0), picture(1)]), dict.fromkeys((0, 5), first_mask()), settings=settings)
    assert [next(predictions).index, next(predictions).index] == [0, 1]
    with pytest.raises(UsageError, match="Frame 5 is annotated"):
        next(predictions)


class NeverCalled:
    """An extractor that no frame may reach."""

    stride, channels, multiple = 8, 3, 8

    def __call__(self, images: torch.Tensor, indices: object = None) -> torch.Tensor:
        raise AssertionError("a frame was looked at")


def two_objects(step: int) -> np.ndarray:
    ids = np.zeros(SIZE, np.uint8)
    ids[32:64, 16 + 8 * step : 48 + 8 * step] = 7
    ids[72:88, 96:120] = 2
    return ids


def without(ids: np.ndarray, object_id: int) -> np.ndarray:
    return np.where(ids == object_id, 0, ids).astype(np.uint8)


@pytest.mark.parametrize("finer", [False, True])
def test_an_object_that_a_later_anchor_leaves_out_keeps_its_prediction(settings, finer):
    run = partial(
        track,
        [picture(step) for step in range(6)],
        settings=finely(settings) if finer else settings,
        extractor=TwoMaps() if finer else None,
    )
    plain = list(run(Mask(two_objects(0))))
    corrected = list(run({0: Mask(two_objects(0)), 3: Mask(without(two_objects(3), 2))}))
    for before, after in zip(plain[:3], corrected[:3], strict=True):
        np.testing.assert_array_equal(before.mask.ids, after.mask.ids)
    np.testing.assert_array_equal(corrected[3].mask.ids == 7, two_objects(3) == 7)
    np.testing.assert_array_equal(corrected[3].mask.ids == 2, plain[3].mask.ids == 2)
    assert corrected[3].confidence[7] == 1
    assert corrected[3].confidence[2] == pytest.approx(plain[3].confidence[2], abs=0.05)
    for before, after in zip(plain[4:], corrected[4:], strict=True):
        overlap = ((before.mask.ids == 2) & (after.mask.ids == 2)).sum()
        assert overlap > 0.9 * (before.mask.ids == 2).sum() > 0


def test_an_object_that_a_later_anchor_calls_absent_is_gone(settings):
    anchors = {0: Mask(two_objects(0)), 3: Mask(without(two_objects(3), 2), absent={2})}
    exact = settings.model_copy(
        update={"propagation": settings.propagation.model_copy(update={"n_last": 1, "top_k": 1})}
    )
    found = list(track([picture(step) for step in range(6)], anchors, settings=exact))
    assert 2 in found[2].mask.objects
    assert found[3].mask.objects == (7,)
    assert found[3].confidence == {2: 0.0, 7: 1.0}


def test_joints_that_a_later_anchor_does_not_name_keep_their_prediction(settings):
    first = Keypoints(np.array([[24.0, 40.0], [40.0, 56.0]], np.float32), ("a", "b"))
    later = Keypoints(np.array([[50.0, 41.0]], np.float32), ("a",))
    frames = [picture(step) for step in range(4)]
    plain = list(track(frames, first, settings=settings))
    corrected = list(track(frames, {0: first, 2: later}, settings=settings))
    assert corrected[2].keypoints.names == ("a", "b")
    np.testing.assert_array_equal(corrected[2].keypoints.positions[0], [50, 41])
    np.testing.assert_allclose(corrected[2].keypoints.positions[1], plain[2].keypoints.positions[1], atol=1e-3)
    assert corrected[3].keypoints.present.all()


def test_anchors_come_in_the_order_of_their_frames(settings):
    frames = [picture(step) for step in range(3)]
    named = {0: Keypoints(np.array([[24.0, 40.0], [40.0, 56.0]], np.float32), ("a", "b"))}
    later = {2: Keypoints(np.array([[41.0, 41.0]], np.float32), ("b",))}
    one, two = (list(track(frames, given, settings=settings)) for given in (named | later, later | named))
    assert one[2].keypoints.names == two[2].keypoints.names == ("a", "b")


def test_masks_and_keypoints_do_not_mix(settings):
    points = Keypoints(np.zeros((1, 2), np.float32), ("a",))
    with pytest.raises(UsageError, match="masks and keypoints together"):
        track([picture(0), picture(1)], {0: first_mask(), 1: points}, settings=settings)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError,  # classes and texts: an error that outlives the test keeps its frames, and with them their threads
        partial(torch.OutOfMemoryError, "CUDA out of memory"),
        partial(RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
)
def test_out_of_memory_is_one_error_with_a_remedy(settings, monkeypatch, error):
    def fail(*args: object, **options: object) -> None:
        raise error()

    monkeypatch.setattr(pipeline.LabelPropagator, "step", fail)
    with pytest.raises(OutOfMemoryError, match=r"Memory ran out\. Lower video\.short_side"):
        list(track([picture(0), picture(1)], first_mask(), settings=settings))


def test_other_runtime_errors_are_not_called_out_of_memory(settings, monkeypatch):
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(pipeline.LabelPropagator, "step", fail)
    with pytest.raises(RuntimeError, match="something else"):
        list(track([picture(0), picture(1)], first_mask(), settings=settings))


class ShortOfMemory:
    """Color patches on a device that holds `room` frames."""

    def __init__(self, room: int) -> None:
        self.patches, self.room = build_extractor("rgb", device="cpu"), room
        self.stride, self.channels, self.multiple = 8, 48, 8
        self.batches: list[int] = []

    def __call__(self, images, indices=None):
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append(len(images))
        return self.patches(images, indices)


def soft_maps(settings: Settings, extractor=None, **options) -> list[torch.Tensor]:
    asked = settings.model_copy(update={"output": settings.output.model_copy(update={"soft": True})})
    frames = [picture(step) for step in range(6)]
    return [p.soft for p in track(frames, first_mask(), extractor=extractor, settings=asked, **options)]


def test_a_gpu_whose_memory_runs_out_changes_no_bit(settings):
    batched = settings.model_copy(update={"features": settings.features.model_copy(update={"batch_size": 4})})
    extractor = ShortOfMemory(room=2)
    with pytest.warns(SmallerPassWarning, match="going on with 2 frames x 1 draw"):
        found = soft_maps(batched, extractor)
    assert extractor.batches == [2, 2, 2]
    for one, other in zip(found, soft_maps(batched), strict=True):
        assert torch.equal(one, other)


def test_a_gpu_whose_memory_runs_out_twice_is_an_error(settings):
    batched = settings.model_copy(update={"features": settings.features.model_copy(update={"batch_size": 4})})
    with pytest.warns(SmallerPassWarning), pytest.raises(OutOfMemoryError, match=r"Memory ran out.*--max-memory"):
        soft_maps(batched, ShortOfMemory(room=1))


def test_a_memory_limit_changes_nothing(settings, monkeypatch):
    monkeypatch.setattr("propagate.features.passes.is_on_cpu", lambda extractor: False)  # which takes one at a time
    batched = settings.model_copy(update={"features": settings.features.model_copy(update={"batch_size": 3})})
    free = plan_memory(build_extractor("rgb", device="cpu"), SIZE, batched)
    rest = free.estimate.total - max(free.estimate.activations, free.estimate.transfer)
    # a little less than the network takes, which is less than the transfer does: tiles and passes become smaller
    assert free.estimate.transfer > free.estimate.activations
    limited = batched.model_copy(update={"max_memory": rest + free.estimate.activations * 9 // 10})
    extractor = ShortOfMemory(room=3)
    found = soft_maps(limited, extractor)
    assert extractor.batches[-6:] == [1] * 6  # before these the estimate's
    for one, other in zip(found, soft_maps(batched), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_plan_is_kept_to(settings):
    batched = settings.model_copy(update={"features": settings.features.model_copy(update={"batch_size": 3})})
    extractor = ShortOfMemory(room=3)
    plan = replace(plan_memory(build_extractor("rgb", device="cpu"), SIZE, batched), passes=PassSize(1), tile_scores=99)
    for one, other in zip(soft_maps(batched, extractor, plan=plan), soft_maps(settings), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert extractor.batches == [1] * 6


def test_a_limit_that_is_too_little_is_said_before_the_second_frame(settings):
    limited = settings.model_copy(update={"max_memory": 10**6})
    with pytest.raises(OutOfMemoryError, match="max_memory = 1 MiB"):
        track([picture(0)], first_mask(), settings=limited)


def test_frames_that_do_not_fit_the_features_are_said_before_they_are_looked_at(settings):
    small = Mask(np.ones((7, 40), np.uint8))
    own = settings.model_copy(update={"video": settings.video.model_copy(update={"short_side": None})})
    with pytest.raises(InputError, match="The frames are 40x7, and the features need at least 8 pixels a side"):
        track([np.zeros((7, 40, 3), np.uint8)], small, settings=own)


class TwoMaps:
    """The pixels of every 8 x 8, and of every 4 x 4."""

    channels, stride, multiple, finer_stride, finer_channels = 192, 8, 8, 4, 48

    def __call__(self, images, indices=None):
        return F.pixel_unshuffle(images - 0.5, 8)

    def with_finer(self, images, indices=None):
        return pack(self(images), F.pixel_unshuffle(images - 0.5, 4))


def finely(settings: Settings, **options) -> Settings:
    propagation = settings.propagation.model_copy(update={"finer": True, **options})
    output = settings.output.model_copy(update={"soft": True})
    return settings.model_copy(update={"propagation": propagation, "output": output})


def test_labels_are_carried_on_the_finer_grid(settings):
    plain = [
        p.soft.shape
        for p in track(
            [picture(s) for s in range(2)],
            first_mask(),
            extractor=TwoMaps(),
            settings=settings.model_copy(update={"output": settings.output.model_copy(update={"soft": True})}),
        )
    ]
    predictions = list(
        track([picture(s) for s in range(4)], first_mask(), extractor=TwoMaps(), settings=finely(settings))
    )
    _, rows, columns = plain[1]
    for step, prediction in enumerate(predictions):
        assert prediction.soft.shape == (2, 2 * rows, 2 * columns)
        assert iou(prediction.mask.ids, step) > 0.85


def test_keypoints_on_the_finer_grid_follow_their_object(settings):
    points = Keypoints(np.array([[24.0, 40.0], [40.0, 56.0]], np.float32), ("a", "b"))
    fine = finely(settings, top_k=1)
    for step, prediction in enumerate(
        track([picture(s) for s in range(4)], points, extractor=TwoMaps(), settings=fine)
    ):
        expected = points.positions + np.array([8 * step, 0])
        assert np.abs(prediction.keypoints.positions - expected).max() < 4  # one finer cell


def test_a_memory_limit_changes_nothing_on_the_finer_grid(settings):
    free = soft_maps(finely(settings), TwoMaps())
    limited = finely(settings).model_copy(update={"max_memory": 600 * 2**20})
    for soft, expected in zip(soft_maps(limited, TwoMaps()), free, strict=True):
        assert torch.equal(soft, expected)


def test_features_without_a_finer_map_are_refused_at_once(settings):
    with pytest.raises(UsageError, match=r"propagation\.finer: the features have no map"):
        track([picture(0)], first_mask(), settings=finely(settings))


@pytest.mark.filterwarnings("ignore:Pictures have no clock")
def test_a_path_and_an_array_are_a_video_and_a_mask(tmp_path, settings):
    for step in range(3):
        Image.fromarray(picture(step)).save(tmp_path / f"{step:05d}.png")
    wanted = [prediction.mask.ids for prediction in track(open_video(tmp_path), first_mask(), settings=settings)]
    ids = first_mask().ids.astype(np.int64)
    for frames, label in ((str(tmp_path), ids), (tmp_path, {0: ids}), ([picture(i) for i in range(3)], first_mask())):
        found = [prediction.mask.ids for prediction in track(frames, label, settings=settings)]
        np.testing.assert_array_equal(found, wanted)
    later = settings.model_copy(update={"video": settings.video.model_copy(update={"from_frame": 1})})
    assert [prediction.index for prediction in track(tmp_path, ids > 0, settings=later)] == [1, 2]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (np.zeros((4, 2), np.float32), "positions without names.*Keypoints"),
        ({0: np.full(SIZE, 255, np.uint8)}, "Frame 0: The mask has no object"),
        ("mask.png", "read_mask"),
    ],
)
def test_what_is_no_label_is_refused_before_anything_is_read(label, words, settings):
    with pytest.raises(InputError, match=words):
        track("nowhere.mp4", label, settings=settings)


class Broken(ColorPatches):
    def __init__(self, value: float) -> None:
        super().__init__(device="cpu")
        self.value = value

    def __call__(self, images, indices=None):
        features = super().__call__(images, indices)
        for place, index in enumerate(indices):
            if index == 2:
                features[place, 3, 1, 1] = self.value
        return features


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_features_that_are_no_numbers_are_an_error_that_names_their_extractor(value, settings):
    predictions = track([picture(i) for i in range(4)], first_mask(), extractor=Broken(value), settings=settings)
    assert next(predictions).index == 0
    with pytest.raises(WeightsError, match=r"features of frame 2 from Broken contain NaN or infinity"):
        list(predictions)
