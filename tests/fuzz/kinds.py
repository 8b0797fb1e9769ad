"""The table of kinds."""

from __future__ import annotations

from tests.fuzz import file_kinds, folder_kinds
from tests.fuzz.variant import Kind

KINDS: dict[str, Kind] = {
    "video": Kind(file_kinds.video, 2.5),
    "mask": Kind(file_kinds.masks, 2),
    "frames": Kind(file_kinds.frames, 1.5),
    "keypoints": Kind(file_kinds.keypoints, 1.5),
    "preset": Kind(file_kinds.presets, 1.5),
    "set": Kind(file_kinds.assignments, 1.5),
    "weights": Kind(folder_kinds.weights, 1.5),
    "tree": Kind(folder_kinds.trees),
    "results": Kind(folder_kinds.results),
    "resultfolder": Kind(folder_kinds.result_folders, 1.5),
    "cache": Kind(folder_kinds.caches),
    "match": Kind(file_kinds.matches),
    "size": Kind(file_kinds.sizes, 0.2),
}
