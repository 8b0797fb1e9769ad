from __future__ import annotations

import pytest
import torch

from propagate.errors import UsageError
from propagate.features import build_extractor, extractor_names, extractor_options
from propagate.features.device import available_devices, resolve_device


def test_our_own_are_there():
    assert {"compact", "rgb"} <= set(extractor_names())


def test_options_are_the_builders_keywords():
    assert extractor_options("rgb") == {"device": "auto"}
    assert extractor_options("compact")["timestep"] == 51


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("compacts", {}, "features.name = compacts: there is no such extractor. Did you mean compact?"),
        ("compact", {"timesteps": 3}, "features.timesteps: compact has no such option. Did you mean timestep?"),
        ("compact", {"timestep": 1000}, "features.timestep = 1000: Input should be less than or equal to 999"),
        ("compact", {"dtype": "int8"}, "features.dtype = 'int8'"),
        ("fusion", {}, "features.parts: fusion needs it."),
        ("rgb", {"device": "abacus"}, "device abacus: there is no such kind of device"),
        ("rgb", {"device": "cuda:99"}, "device cuda:99 is not available on this machine"),
    ],
)
def test_a_wrong_name_or_option_is_explained(name, options, words):
    with pytest.raises(UsageError) as error:
        build_extractor(name, **options)
    assert words in str(error.value)


def test_auto_takes_the_best_device_there_is():
    assert resolve_device("auto").type == available_devices()[0]
    assert resolve_device("cpu") == torch.device("cpu")
