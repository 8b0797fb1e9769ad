"""Settings: every value with its default, its range and its origin. They are frozen.

A preset is a YAML file that names only what differs from the defaults; `--set a.b=c` changes single values. An unknown
key is an error that suggests the nearest known one.
"""

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
from propagate.settings.names import nearest
from propagate.settings.presets import (
    DEFAULT_PRESET,
    ResolvedSettings,
    load_settings,
    load_with_origins,
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
