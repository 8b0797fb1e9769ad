from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from propagate.errors import OutOfMemoryError, UsageError
from propagate.features import build_extractor
from propagate.features.passes import PassSize
from propagate.formats import VideoWriter, write_mask
from propagate.planning.dry_run import dry_run
from propagate.planning.estimate import BATCHES_AHEAD, MIB, Load
from propagate.planning.plan import plan_memory
from propagate.propagation.affinity import propagate_labels
from propagate.propagation.memory import MemoryBank
from propagate.propagation.propagator import LabelPropagator
from propagate.propagation.torch import transfer as tiled
from propagate.propagation.window import Window
from propagate.settings import PropagationSettings, load_settings
from propagate.types import Mask
from tests.places import CHECKOUT

SIZE = (96, 160)


class Draws:
    """A network of 2 MiB of weights that makes 10 MiB per draw and frame."""

    stride, channels, multiple, draws_per_pass = 8, 4, 8, 8

    def __init__(self) -> None:
        self.weights = torch.ones(2 * MIB // 4)

    def __call__(self, images, indices=None):
        made = torch.empty(len(images) * self.draws_per_pass, 10 * MIB // 4)
        made += self.weights[:1]
        return images.new_empty(len(images), 4, images.shape[-2] // 8, images.shape[-1] // 8)


class Stubborn(Draws):
    def __call__(self, images, indices=None):
        return images * float(images.mean())


def plan(extractor=None, limit=None, size=SIZE, labels=2, **assignments):
    overrides = [f"{key.replace('__', '.')}={value}" for key, value in assignments.items()]
    if limit is not None:
        overrides.append(f"max_memory={limit}")
    settings = load_settings("rgb", ["video.short_side=null", *overrides])
    return plan_memory(extractor or Draws(), size, settings, labels=labels)


def load(grid=(20, 32), channels=96, labels=3, anchors=1, **options) -> Load:
    return Load(SIZE, SIZE, 1, grid, channels, labels, anchors, PropagationSettings(**options))


@pytest.mark.parametrize(("anchors", "n_last", "dtype"), [(1, 7, "float32"), (3, 0, "float16"), (2, 5, "bfloat16")])
def test_the_bank_is_what_a_bank_takes(anchors, n_last, dtype):
    bank = MemoryBank(n_last, anchors=anchors, dtype=getattr(torch, dtype))
    bank.add_anchor(torch.zeros(96, 20, 32), torch.zeros(3, 20, 32))
    assert load(anchors=anchors, n_last=n_last, memory_dtype=dtype).bank_bytes == bank.nbytes


def test_the_banks_with_older_frames_and_finer_features_are_what_they_take():
    propagator = LabelPropagator(n_last=3, n_older=2, finer=True, memory_dtype="float16", anchors=2)
    propagator.anchor(torch.zeros(96, 20, 32), torch.zeros(3, 60, 96), torch.zeros(5, 60, 96))
    case = load(anchors=2, n_last=3, n_older=2, finer=True, memory_dtype="float16")
    assert propagator.finer_memory is not None
    case = replace(case, factor=3, finer_channels=5)
    assert case.bank_bytes == propagator.memory.nbytes + propagator.finer_memory.nbytes


@pytest.mark.parametrize("tile_scores", [2**20, 2**16])
@pytest.mark.parametrize(
    "options", [{}, {"memory_dtype": "float16"}, {"finer_from": 30, "n_older": 4}, {"window": "none"}], ids=str
)
def test_a_step_from_coarse_to_fine_takes_what_is_estimated_or_a_little_less(options, tile_scores):
    case = replace(load(finer=True, **options), factor=2, finer_channels=64)

    def step() -> torch.Tensor:
        propagator = LabelPropagator(**case.propagation.model_dump(), tile_scores=tile_scores)
        given_maps = torch.empty(96, *case.grid), torch.empty(64, 2 * case.grid[0], 2 * case.grid[1])
        propagator.anchor(given_maps[0], torch.empty(case.labels, *given_maps[1].shape[1:]), given_maps[1])
        propagator.memory._predictions = propagator.finer_memory._predictions = (
            case.slots - 1 - case.propagation.n_older
        )
        before.append(case.bank_bytes + sum(given_map.nbytes for given_map in given_maps))
        try:
            return propagator.step(*given_maps)
        finally:
            tiled.hiding_mask.cache_clear()

    before: list[int] = []
    tiled.hiding_mask.cache_clear()
    made = dry_run(step).created - before[0]
    assert 0.8 < case.transfer_bytes(tile_scores) / made < 1.8


def transfer_in_fact(case: Load, tile_scores: int) -> int:
    """Bytes of all tensors that a transfer step makes, without those it is given."""
    options, slots = case.propagation, case.anchors + case.propagation.n_last
    exempt = tuple(range(case.anchors)) if options.exempt_anchors else ()
    given_bytes = 0

    def step() -> torch.Tensor:
        nonlocal given_bytes
        query, labels = torch.empty(case.channels, *case.grid), torch.empty(slots, case.labels, *case.grid)
        keys = torch.empty(
            slots,
            case.channels,
            *case.grid,
            dtype=torch.float32 if options.memory_dtype == "auto" else getattr(torch, options.memory_dtype),
            memory_format=torch.channels_last,
        )
        given_bytes = sum(tensor.nbytes for tensor in (query, keys, labels))
        try:
            return propagate_labels(
                query,
                keys,
                labels,
                window=None if options.window == "none" else Window(options.window, options.radius, exempt),
                top_k=options.top_k,
                temperature=options.temperature,
                ties=options.ties,
                tile_scores=tile_scores,
            )
        finally:
            tiled.hiding_mask.cache_clear()  # of masks without content

    tiled.hiding_mask.cache_clear()
    return dry_run(step).created - given_bytes


@pytest.mark.parametrize("tile_scores", [2**20, 2**18])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ties": "keep"},
        {"memory_dtype": "float16"},
        {"window": "none"},
        {"window": "none", "ties": "keep", "memory_dtype": "float16"},
        {"window": "circle"},
        {"exempt_anchors": True},
        {"n_last": 0},
        {"n_last": 12, "top_k": 15, "radius": 8, "ties": "keep"},
    ],
    ids=str,
)
def test_the_transfer_takes_what_is_estimated_or_a_little_less(options, tile_scores):
    case = load(**options)
    assert 0.95 < case.transfer_bytes(tile_scores) / transfer_in_fact(case, tile_scores) < 1.6


def test_the_parts_of_an_estimate():
    found = plan().estimate
    assert found.weights == 2 * MIB
    assert found.activations >= 80 * MIB  # eight draws, and more for what convolutions take
    assert found.activations < 2 * 81 * MIB
    assert found.bank == 8 * 12 * 20 * (4 * 4 + 2 * 4 + (4 + 12))  # features, labels, features as int8
    assert found.total == found.program + found.frames + found.weights + found.bank + found.activations
    for name in ("program", "frames", "weights 2 MiB", "activations", "memory bank", "transfer"):
        assert name in str(found)


def test_larger_frames_take_more():
    small, large = plan(size=(96, 160)).estimate, plan(size=(1080, 1920), video__short_side=96).estimate
    # 12 bytes per pixel as resized: 96 x 160 and 96 x 168
    assert large.frames - 96 * 168 * 12 == (small.frames - 96 * 160 * 12) * 1080 * 1920 // (96 * 160)


def test_frames_that_wait_between_stages_take_their_part():
    one, four = (plan(features__batch_size=batch).estimate.frames for batch in (1, 4))
    # three frames more in work and three more read ahead, and three more resized ahead
    assert four - one == 96 * 160 * (3 * 3 * (1 + BATCHES_AHEAD) + 3 * 12 * BATCHES_AHEAD)


def test_without_a_limit_the_extractors_own_choice_is_taken():
    assert plan(features__batch_size=3).passes == PassSize(3, 8)
    assert plan().tile_scores == tiled.default_tile_scores("cpu")
    assert plan(limit="100GB").passes == PassSize(1, 8)


def test_a_limit_halves_what_goes_through_the_network():
    free = plan(features__batch_size=2).estimate
    for draws in (8, 4, 2, 1):
        spared = (free.activations - free.activations * draws // 8) - 4 * MIB
        found = plan(limit=free.total - spared, features__batch_size=2)
        assert found.passes == PassSize(2, draws)
        assert found.estimate.total <= free.total - spared


def test_after_the_draws_the_frames_are_halved():
    least = plan(limit="100GB", features__batch_size=1).estimate
    one_draw = least.total - least.activations * 7 // 8 + 4 * MIB
    assert plan(limit=one_draw, features__batch_size=4).passes == PassSize(1, 1)


def test_a_limit_makes_the_tiles_smaller_where_these_take_most():
    extractor, size = build_extractor("rgb", device="cpu"), (480, 856)
    free = plan(extractor, size=size, propagation__n_last=20)
    assert free.estimate.transfer > free.estimate.activations
    least = free.estimate.total - free.estimate.transfer + free.estimate.activations
    found = plan(extractor, least, size, propagation__n_last=20)
    assert found.estimate.total <= least
    assert found.tile_scores < free.tile_scores
    assert found.passes == free.passes


@given(spared=st.floats(0, 1), batch=st.integers(1, 4))
@hypothesis_settings(deadline=None, max_examples=25)
def test_a_plan_fits_into_its_limit_or_is_refused(spared, batch):
    free = plan(features__batch_size=batch).estimate
    limit = int(free.total - spared * (free.total - free.program) * 1.1)
    try:
        assert plan(limit=limit, features__batch_size=batch).estimate.total <= limit
    except OutOfMemoryError as error:
        least = int(re.search(r"the smallest steps take about (\d+) MiB", error.message)[1])
        assert least >= limit // MIB


def test_a_limit_that_nothing_fits_into():
    with pytest.raises(OutOfMemoryError) as caught:
        plan(limit="100MiB")
    message, remedy = caught.value.message, caught.value.remedy
    assert message.startswith("max_memory = 100 MiB: the smallest steps take about ")
    for part in ("program", "frames", "weights", "activations", "memory bank", "transfer"):
        assert part in message
    assert re.match(r"Raise it to \d+ MiB, or lower video.short_side", remedy)
    assert "propagation.n_last" in remedy
    assert caught.value.exit_code == 5


def test_where_the_bank_is_largest_its_settings_are_named_first():
    with pytest.raises(OutOfMemoryError, match=r"or lower propagation\.n_last or propagation\.memory_dtype, then"):
        plan(build_extractor("rgb", device="cpu"), "300MiB", (480, 856), propagation__n_last=400)


def test_an_extractor_that_looks_at_its_tensors_cannot_be_estimated():
    with pytest.raises(UsageError, match=r"The memory of Stubborn cannot be estimated.*Leave out max_memory"):
        plan(Stubborn(), limit="6GB")


def test_the_record_has_all_numbers():
    found = plan(features__batch_size=2)
    record = found.record
    assert record["estimate"]["total"] == found.estimate.total
    assert record["estimate"]["bank"] == found.estimate.bank
    assert (record["frames"], record["draws"], record["tile_scores"]) == (2, 8, found.tile_scores)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "wait4"), reason="the peak of a process is not told")
@pytest.mark.parametrize(("preset", "size"), [("rgb", (480, 856)), ("compact", (480, 856)), ("rgb", (1080, 1920))])
def test_a_process_takes_about_what_is_estimated(preset, size, tmp_path):
    """Resident memory depends on what else the machine does, so the bounds are wide."""
    tile = torch.randint(0, 255, (size[0] // 8, size[1] // 8, 3), dtype=torch.uint8).numpy().repeat(8, 0).repeat(8, 1)
    with VideoWriter(tmp_path / "clip.mp4", rate=10) as video:
        for _ in range(20):
            video.write(tile)
    write_mask(tmp_path / "mask.png", Mask((tile[..., 0] > 200).astype("uint8")))
    clip, mask, out = (str(tmp_path / name) for name in ("clip.mp4", "mask.png", "out"))
    command = ["segment", clip, "-m", mask, "-o", out, "-c", preset, "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-m", "propagate", *command], cwd=CHECKOUT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    estimated = record["memory"]["estimate"]["total"]
    assert 1 / 1.5 < usage.ru_maxrss * 1024 / estimated < 1.5
