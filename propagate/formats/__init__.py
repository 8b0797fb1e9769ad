"""Read and write masks, keypoints, overlay pictures and videos, and the record of a run, without torch."""

from propagate.formats.keypoints.reading import KeypointsFile, read_keypoints, read_keypoints_file
from propagate.formats.keypoints.writing import KeypointsFormat, KeypointsWriter, write_keypoints
from propagate.formats.masks.reading import MaskFile, read_indexed_png, read_mask, read_mask_file, write_mask
from propagate.formats.output.folder import held_output, prepare_output
from propagate.formats.output.run_record import settings_hash, write_run_record
from propagate.formats.overlay import draw_keypoints, draw_mask
from propagate.formats.palette import DAVIS_PALETTE
from propagate.formats.video import VideoWriter

__all__ = [
    "DAVIS_PALETTE",
    "KeypointsFile",
    "KeypointsFormat",
    "KeypointsWriter",
    "MaskFile",
    "VideoWriter",
    "draw_keypoints",
    "draw_mask",
    "held_output",
    "prepare_output",
    "read_indexed_png",
    "read_keypoints",
    "read_keypoints_file",
    "read_mask",
    "read_mask_file",
    "settings_hash",
    "write_keypoints",
    "write_mask",
    "write_run_record",
]
