from __future__ import annotations

import numpy as np
import pytest
import torch

import propagate
from propagate.errors import InputError, OutOfMemoryError, UsageError
from propagate.features import build_extractor
from propagate.features.rgb import ColorPatches
from propagate.planning.plan import MemoryPlan, plan_memory
from propagate.propagation.torch.transfer import default_tile_scores
from propagate.references import label_from_references as reference_labels
from propagate.references.crop import SHARES, pieces
from propagate.references.label_from_references import Reference, label_from_references
from propagate.references.search import label_frame
from propagate.settings import load_settings
from propagate.types import VOID, Frame, Keypoints, Mask

SETTINGS = load_settings("rgb", ["video.short_side=64"])


def cells(seed: int) -> torch.Tensor:
    return torch.randn(24, 8, 12, generator=torch.Generator().manual_seed(seed))


def split(columns: int) -> torch.Tensor:
    labels = torch.zeros(2, 8, 12)
    labels[1, :, :columns] = 1
    labels[0] = 1 - labels[1]
    return labels


def test_labels_are_found_wherever_they_lie_in_the_frame():
    reference = cells(0)
    found = label_frame(reference.roll(6, 2), reference[None], split(3)[None])
    assert torch.equal(found.soft[1] > 0.5, split(3).roll(6, 2)[1] > 0.5)
    assert found.mutual.all()
    torch.testing.assert_close(found.cosine, torch.ones(8, 12))


def test_cells_without_a_mutual_match_take_the_labels_around_them():
    reference = cells(0)
    frame = reference.clone()
    frame[:, 4, 2] = reference[:, 4, 3] + 0.3 * cells(1)[:, 0, 0]  # between them, and (4, 3) has a better match
    frame[:, 2, 9] = 0
    found = label_frame(frame, reference[None], split(6)[None])
    assert not found.mutual[2, 9]
    assert found.soft[1, 4, 2] > 0.5
    torch.testing.assert_close(found.soft.sum(0), torch.ones(8, 12))


def test_void_cells_of_a_reference_are_not_looked_at():
    reference, labels = cells(0), split(6)
    labels[:, :, :6] = 0
    found = label_frame(reference, reference[None], labels[None])
    assert found.cosine[:, :6].max() < 0.95
    torch.testing.assert_close(found.cosine[:, 6:], torch.ones(8, 6))
    assert found.soft[1].max() == 0


def test_a_reference_of_nothing_but_void_finds_nothing():
    found = label_frame(cells(0), cells(1)[None], torch.zeros(1, 2, 8, 12))
    assert not found.mutual.any()
    assert found.soft[0].min() == 1


def test_opposite_features_find_nothing():
    one = torch.ones(24, 8, 12)
    assert not label_frame(one, -one[None], split(3)[None]).mutual.any()


def test_the_box_has_its_share_of_the_canvas_and_keeps_its_shape():
    ids = np.zeros((300, 500), np.uint8)
    ids[100:150, 200:280] = 3
    for share, piece in zip(SHARES, pieces(Mask(ids), (300, 500), (64, 96)), strict=True):
        rows, columns = np.nonzero(piece.mask(Mask(ids)).ids == 3)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert max(height / 64, width / 96) == pytest.approx(share, abs=0.05)
        assert width / height == pytest.approx(80 / 50, rel=0.12)


def test_where_the_picture_ends_the_piece_is_void_and_repeats_the_border():
    ids = np.full((20, 20), 1, np.uint8)
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:, -1] = 200
    piece = pieces(Mask(ids), (20, 20), (64, 96))[0]
    mask, canvas = piece.mask(Mask(ids)).ids, piece.pixels(pixels)
    height, width = piece.size
    assert mask.shape == canvas.shape[:2] == (64, 96)
    assert (mask[:height, :width] == 1).all()
    assert (mask[height:] == VOID).all()
    assert (mask[:, width:] == VOID).all()
    assert (canvas[:height, width:] == 200).all()
    assert piece.shows((8, 12)).sum() == round(height / 8) * round(width / 8)


def test_points_move_with_their_pixels():
    ids = np.zeros((120, 160), np.uint8)
    ids[40:80, 60:90] = 1
    dot = ids.copy()
    dot[50:54, 70:74] = 2
    for piece in pieces(Mask(ids), (120, 160), (64, 96)):
        rows, columns = np.nonzero(piece.mask(Mask(dot)).ids == 2)
        moved = piece.points(np.array([[71.5, 51.5]]))
        np.testing.assert_allclose(moved[0], [columns.mean(), rows.mean()], atol=0.6)


def test_pieces_of_an_empty_label_are_refused():
    with pytest.raises(InputError, match="no object"):
        pieces(Mask(np.zeros((8, 8), np.uint8)), (8, 8), (64, 96))
    with pytest.raises(InputError, match="no joint"):
        pieces(Keypoints(np.full((1, 2), np.nan, np.float32), ("a",)), (8, 8), (64, 96))


def scene(left: int, top: int, side: int = 24, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """A checkered square of saturated colors on a smooth dark ground: (pixels, ids)."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 2, (4, 4, 3)) * 200 + 55
    pixels = np.full((64, 96, 3), (20, 30, 60), np.uint8)
    square = blocks.repeat(side // 4, 0).repeat(side // 4, 1).astype(np.uint8)
    pixels[top : top + side, left : left + side] = square
    ids = np.zeros((64, 96), np.uint8)
    ids[top : top + side, left : left + side] = 1
    return pixels, ids


def find(frame: np.ndarray, *references: Reference):
    return label_from_references(Frame(frame, 0, 0.0), references, ColorPatches("cpu"), SETTINGS)


def test_a_mask_is_found_elsewhere_with_what_it_rests_on():
    pixels, ids = scene(16, 24)
    frame, truth = scene(56, 16)
    found = find(frame, Reference(pixels, Mask(ids)))
    assert isinstance(found.label, Mask)
    inside, expected = found.label.ids == 1, truth == 1
    assert (inside & expected).sum() / (inside | expected).sum() > 0.6
    evidence = found.evidence[1]
    assert found.confidence[1] == pytest.approx(evidence.mutual * evidence.cosine)
    assert "match both ways" in found.notes[0]


def test_the_objects_of_several_references_are_united():
    first, ids = scene(16, 24, seed=7)
    other, other_ids = scene(40, 8, seed=11)
    frame, truth = scene(64, 32, seed=7)
    second = scene(8, 8, seed=11)
    frame[second[1] == 1] = second[0][second[1] == 1]
    found = find(frame, Reference(first, Mask(ids)), Reference(other, Mask(other_ids * np.uint8(5))))
    assert set(found.confidence) == {1, 5}
    assert isinstance(found.label, Mask)
    for object_id, expected in ((1, truth == 1), (5, second[1] == 1)):
        inside = found.label.ids == object_id
        assert (inside & expected).sum() / (inside | expected).sum() > 0.5


def test_keypoints_are_found_elsewhere():
    pixels, _ = scene(16, 24)
    frame, _ = scene(56, 16)
    names = ("corner", "center", "hidden")
    positions = np.array([[20, 28], [28, 36], [np.nan, np.nan]], np.float32)
    found = find(frame, Reference(pixels, Keypoints(positions, names)))
    assert isinstance(found.label, Keypoints)
    np.testing.assert_allclose(found.label.positions[1], [68, 28], atol=8)
    assert np.isnan(found.label.positions[2]).all()
    assert found.confidence["hidden"] == 0
    assert any("hidden" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["mask", "keypoints"])
def test_a_label_that_matches_nothing_is_an_error_with_a_remedy(kind):
    pixels, _ = scene(16, 24)
    dark, bright = np.zeros_like(pixels), np.full_like(pixels, 255)  # `rgb` turns these into opposite features
    ids = np.ones(pixels.shape[:2], np.uint8)
    label = Mask(ids) if kind == "mask" else Keypoints(np.array([[30, 30]], np.float32), ("a",))
    with pytest.raises(InputError, match="matches") as caught:
        find(bright, Reference(dark, label))
    assert "Choose a reference" in caught.value.remedy


def test_unrelated_pictures_are_called_weak():
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    ids = np.zeros((64, 96), np.uint8)
    ids[16:48, 24:72] = 1
    found = find(noise[0], Reference(noise[1], Mask(ids)))
    assert found.evidence[1].weak
    assert "That is weak" in found.notes[0]


def test_a_mask_of_another_size_than_its_picture():
    pixels, ids = scene(16, 24)
    with pytest.raises(InputError, match="mask is 48x32, the reference is 96x64"):
        find(pixels, Reference(pixels, Mask(ids[::2, ::2].copy())))


def test_masks_and_keypoints_together_are_refused():
    pixels, ids = scene(16, 24)
    points = Keypoints(np.array([[30, 30]], np.float32), ("a",))
    with pytest.raises(UsageError, match="together"):
        find(pixels, Reference(pixels, Mask(ids)), Reference(pixels, points))


def test_a_reference_of_another_size_than_the_video():
    pixels, ids = scene(16, 24)
    larger, larger_ids = (array.repeat(3, 0).repeat(3, 1)[:180, :250] for array in (pixels, ids))
    frame, truth = scene(56, 16)
    found = find(frame, Reference(larger, Mask(larger_ids)))
    assert isinstance(found.label, Mask)
    inside, expected = found.label.ids == 1, truth == 1
    assert (inside & expected).sum() / (inside | expected).sum() > 0.5


def limited(max_memory: int):
    return SETTINGS.model_copy(update={"max_memory": max_memory})


def test_a_memory_limit_is_kept_to_and_changes_nothing(monkeypatch):
    plans: list[MemoryPlan] = []
    monkeypatch.setattr(
        reference_labels, "plan_memory", lambda *given, **named: plans.append(plan_memory(*given, **named)) or plans[-1]
    )
    pixels, ids = scene(16, 24)
    frame, _ = scene(56, 16)
    free = find(frame, Reference(pixels, Mask(ids)))
    assert plans == []
    given = Frame(frame, 0, 0.0), [Reference(pixels, Mask(ids))], ColorPatches("cpu")
    label_from_references(*given, limited(2**40))
    assert plans[0].tile_scores == default_tile_scores("cpu")
    limit = plans[0].estimate.total - 1
    found = label_from_references(*given, limited(limit))
    assert plans[1].estimate.total <= limit
    assert plans[1].tile_scores < plans[0].tile_scores
    assert isinstance(found.label, Mask)
    assert isinstance(free.label, Mask)
    np.testing.assert_array_equal(found.label.ids, free.label.ids)
    # each reference has to be held, and is counted
    label_from_references(given[0], given[1] * 2, given[2], limited(2**40))
    bank = 64 // 8 * 96 // 8 * 4 * (ColorPatches.channels + 2)
    assert plans[2].estimate.bank - plans[0].estimate.bank >= len(SHARES) * bank


def test_a_memory_limit_that_is_too_little():
    pixels, ids = scene(16, 24)
    with pytest.raises(OutOfMemoryError, match="max_memory = 1 MiB"):
        label_from_references(
            Frame(pixels, 0, 0.0), [Reference(pixels, Mask(ids))], ColorPatches("cpu"), limited(2**20)
        )


def test_what_a_memory_limit_does_not_count_is_said():
    pixels, ids = scene(16, 24)
    fusion = build_extractor("fusion", parts=[{"name": "rgb", "pca": 8}], device="cpu")
    given = Frame(pixels, 0, 0.0), [Reference(pixels, Mask(ids))], fusion
    assert "max_memory does not count" in label_from_references(*given, limited(2**40)).notes[-1]
    assert not any("max_memory" in note for note in label_from_references(*given, SETTINGS).notes)


def test_references_are_public():
    assert propagate.Reference is Reference
    assert propagate.label_from_references is label_from_references
