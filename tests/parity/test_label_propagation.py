"""The published implementations' own numbers: DIFT's `label_propagation` and CRW's `test`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from propagate.propagation.affinity import normalize, propagate_labels
from propagate.propagation.window import Window
from tests.places import PARITY_DATA

DATA = PARITY_DATA


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))


@pytest.mark.parametrize("number", range(7))
def test_dift_transfer_step(number):
    golden = np.load(DATA / f"label_propagation_{number}.npz")
    radius = int(golden["radius"])
    soft = propagate_labels(
        normalize(tensor(golden["target_features"])),
        normalize(tensor(golden["context_features"])),
        tensor(golden["context_labels"]),
        window=Window("square", radius) if radius else None,
        top_k=int(golden["topk"]),
        temperature=float(golden["temperature"]),
        ties="keep",
    )
    torch.testing.assert_close(soft, tensor(golden["labels"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("number", range(7))
def test_cutting_ties_only_matters_where_there_are_ties(number):
    golden = np.load(DATA / f"label_propagation_{number}.npz")
    radius, top_k = int(golden["radius"]), int(golden["topk"])
    soft = propagate_labels(
        normalize(tensor(golden["target_features"])),
        normalize(tensor(golden["context_features"])),
        tensor(golden["context_labels"]),
        window=Window("square", radius) if radius else None,
        top_k=top_k,
        temperature=float(golden["temperature"]),
    )
    untied = torch.from_numpy(golden["kept"] <= top_k)
    difference = (soft - tensor(golden["labels"])).abs()[:, untied]
    assert difference.numel() == 0 or difference.max() < 1e-5


@pytest.mark.parametrize("number", [0, 1])
def test_dift_clip(number):
    from propagate.propagation.propagator import LabelPropagator

    golden = np.load(DATA / f"label_propagation_clip_{number}.npz")
    propagator = LabelPropagator(
        n_last=int(golden["n_last_frames"]),
        top_k=int(golden["topk"]),
        temperature=float(golden["temperature"]),
        radius=int(golden["radius"]),
        ties="keep",
    )
    features = tensor(golden["features"])
    propagator.anchor(features[0], tensor(golden["first_labels"]))
    for frame, expected, contexts in zip(features[1:], golden["soft_labels"], golden["n_context"], strict=True):
        assert len(propagator.memory) == contexts
        torch.testing.assert_close(propagator.step(frame), tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("number", [0, 1])
def test_crw_clip(number):
    """Closed loop over the padded clip; the long-memory slots come first and are free of the window."""
    golden = np.load(DATA / f"crw_clip_{number}.npz")
    features = normalize(tensor(golden["features"]))
    padding, free = int(golden["n_context"]), len(golden["long_mem"])
    labels = {0: tensor(golden["first_labels"])}
    for target in range(1, len(features)):
        context = [max(int(index) - padding, 0) for index in golden["context_index"][target]]
        labels[target] = propagate_labels(
            features[target],
            features[context],
            torch.stack([labels[index] for index in context]),
            window=Window("circle", float(golden["radius"]), exempt=tuple(range(free))),
            top_k=int(golden["topk"]),
            temperature=float(golden["temperature"]),
        )
        torch.testing.assert_close(labels[target], tensor(golden["soft_labels"][target]), atol=1e-5, rtol=0)
