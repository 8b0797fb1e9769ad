from __future__ import annotations

import av

import propagate.provenance
import propagate.video.decord_reader
from propagate.app.doctor import _FRAME_SIZE
from propagate.features import build_extractor
from propagate.propagation.memory import MemoryBank


def test_everything_is_there(run):
    result = run("doctor", "--config", "rgb")
    assert result.exit_code == 0, result.output
    for topic in ("python", "torch", "devices", "readers", "H.264 encoder", "presets", "features rgb", "memory"):
        assert topic in result.stdout
    assert "missing" not in result.stdout


def test_the_memory_estimate_is_what_the_bank_takes(run):
    import torch

    extractor = build_extractor("rgb", device="cpu")
    assert _FRAME_SIZE == (480, 854)
    grid = (480 // 8, 848 // 8)  # rgb accepts multiples of 8: 854 becomes 848
    bank = MemoryBank(3, dtype=torch.float16)
    bank.add_anchor(torch.zeros(extractor.channels, *grid), torch.zeros(2, *grid))
    result = run("doctor", "-c", "rgb", "--set", "propagation.n_last=3", "--set", "propagation.memory_dtype=float16")
    rounded = 4 * grid[0] * grid[1] * (extractor.channels + 12)  # of its four frames, as int8
    assert f"memory bank {(bank.nbytes + rounded) / 2**20:.0f} MiB" in result.stdout


def test_a_memory_limit_is_planned_with(run):
    result = run("doctor", "-c", "rgb", "--device", "cpu", "--max-memory", "6GB")
    assert result.exit_code == 0, result.output
    assert "1 frame x 1 draw and 1048576 scores at a time" in result.stdout
    result = run("doctor", "-c", "rgb", "--max-memory", "1MiB")
    assert result.exit_code == 5
    assert "max_memory = 1 MiB: the smallest steps take" in result.stdout


def test_missing_weights_are_named_with_a_remedy(run, tmp_path):
    result = run("doctor", "--set", f"features.weights={tmp_path}")
    assert result.exit_code == 4
    assert "missing" in result.stdout
    assert "features.weights" in " ".join(result.stdout.split())


def test_a_missing_encoder_is_essential(run, monkeypatch):
    def no_codec(name, mode):
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(av, "Codec", no_codec)
    result = run("doctor", "--config", "rgb")
    assert result.exit_code == 1
    assert "--no-overlay" in result.stdout


def test_a_missing_decord_is_not_essential(run, monkeypatch):
    monkeypatch.setattr(propagate.video.decord_reader, "import_decord", lambda: None)
    result = run("doctor", "--config", "rgb")
    assert result.exit_code == 0, result.output
    assert "pip install decord2" in result.stdout


def test_a_missing_package_is_essential(run, monkeypatch):
    monkeypatch.setitem(propagate.provenance.DISTRIBUTIONS, "diffusers", ("no-such-distribution",))
    result = run("doctor", "--config", "rgb")
    assert result.exit_code == 1
    assert "not installed" in result.stdout


def test_unknown_preset(run):
    result = run("doctor", "--config", "nope")
    assert result.exit_code == 2
    assert "nope" in result.stderr
