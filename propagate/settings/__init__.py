"""Settings: every value with its default, its range and its origin; frozen. Imports only files and errors."""

from propagate.settings.model import (
    MOST_FRAMES,
    FeatureSettings,
    KeypointLabelSettings,
    LabelSettings,
    MaskLabelSettings,
    OutputSettings,
    PropagationSettings,
    Settings,
    VideoSettings,
    memory_size,
)
from propagate.settings.presets import (
    DEFAULT_PRESET,
    ResolvedSettings,
    load_settings,
    load_with_origins,
    nearest,
    preset_names,
    preset_summary,
)

__all__ = [
    "DEFAULT_PRESET",
    "MOST_FRAMES",
    "FeatureSettings",
    "KeypointLabelSettings",
    "LabelSettings",
    "MaskLabelSettings",
    "OutputSettings",
    "PropagationSettings",
    "ResolvedSettings",
    "Settings",
    "VideoSettings",
    "load_settings",
    "load_with_origins",
    "memory_size",
    "nearest",
    "preset_names",
    "preset_summary",
]
