from __future__ import annotations

import pytest
import torch

from propagate.errors import UsageError
from propagate.features import EXTRACTORS, build_extractor, extractor_names, extractor_options
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


NUMBERS = [
    (name, option)
    for name in EXTRACTORS
    for option, default in extractor_options(name).items()
    if isinstance(default, int | float) and not isinstance(default, bool)
]
OF_THE_MODEL = {"up_ft_index", "layer"}  # which blocks there are its weights say


@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_a_number_that_is_none_is_refused_before_weights_are_looked_for(name: str, option: str) -> None:
    for value in (True, False, float("nan"), float("inf"), "nan", "much", [], {}, [1, 2]):
        with pytest.raises(UsageError, match=rf"features\.{option} = "):
            build_extractor(name, **{option: value})


@pytest.mark.parametrize(("name", "option"), [pair for pair in NUMBERS if pair[1] not in OF_THE_MODEL])
@pytest.mark.parametrize("value", [10**12, -(10**12), 1e300])
def test_a_number_beyond_all_sense_is_refused_before_weights_are_looked_for(
    name: str, option: str, value: float
) -> None:
    with pytest.raises(UsageError, match=rf"features\.{option} = "):
        build_extractor(name, **{option: value})


def test_numbers_in_lists_are_checked_too() -> None:
    for mean in ([0.5, 0.5, True], [0.5, 0.5, float("inf")], [0.5, 0.5, "inf"]):
        with pytest.raises(UsageError, match=r"features\.mean = "):
            build_extractor("dino", mean=mean)


def test_parts_are_checked_too() -> None:
    for key, value in (("weight", 0), ("weight", True), ("weight", float("inf")), ("weight", 1e300), ("pca", True)):
        with pytest.raises(UsageError, match=rf"features\.parts\.1\.{key} = "):
            build_extractor("fusion", parts=[{"name": "rgb"}, {"name": "rgb", key: value}])


def test_auto_takes_the_best_device_there_is():
    assert resolve_device("auto").type == available_devices()[0]
    assert resolve_device("cpu") == torch.device("cpu")
