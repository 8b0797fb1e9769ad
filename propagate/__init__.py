"""Carry a first-frame mask or pose through a video with the features of image diffusion models.

>>> import propagate
>>> video = propagate.open_video("clip.mp4")
>>> mask = propagate.read_mask("first_frame.png")
>>> for prediction in propagate.track(video, mask):
...     propagate.write_mask(f"{prediction.index:05d}.png", prediction.mask)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from propagate.version import __version__ as __version__

if TYPE_CHECKING:
    from propagate.errors import InputError, OutOfMemoryError, PropagateError, UsageError, WeightsError
    from propagate.features import FeatureExtractor, build_extractor
    from propagate.formats import read_keypoints, read_mask, write_keypoints, write_mask
    from propagate.pipeline import track
    from propagate.propagation.propagator import LabelPropagator
    from propagate.references.label_from_references import Reference, label_from_references
    from propagate.settings import Settings, load_settings
    from propagate.types import Frame, FrameInfo, Keypoints, Mask, Prediction
    from propagate.video import open_video

_HOMES = {
    "propagate.errors": ["InputError", "OutOfMemoryError", "PropagateError", "UsageError", "WeightsError"],
    "propagate.features": ["FeatureExtractor", "build_extractor"],
    "propagate.formats": ["read_keypoints", "read_mask", "write_keypoints", "write_mask"],
    "propagate.pipeline": ["track"],
    "propagate.propagation.propagator": ["LabelPropagator"],
    "propagate.references.label_from_references": ["Reference", "label_from_references"],
    "propagate.settings": ["Settings", "load_settings"],
    "propagate.types": ["Frame", "FrameInfo", "Keypoints", "Mask", "Prediction"],
    "propagate.video": ["open_video"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "FeatureExtractor",
    "Frame",
    "FrameInfo",
    "InputError",
    "Keypoints",
    "LabelPropagator",
    "Mask",
    "OutOfMemoryError",
    "Prediction",
    "PropagateError",
    "Reference",
    "Settings",
    "UsageError",
    "WeightsError",
    "build_extractor",
    "label_from_references",
    "load_settings",
    "open_video",
    "read_keypoints",
    "read_mask",
    "track",
    "write_keypoints",
    "write_mask",
]


def __getattr__(name: str) -> Any:
    # lazy: `import propagate` and the command line's help must not wait for torch
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'propagate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
