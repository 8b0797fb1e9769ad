"""Check that frames, extractor and settings fit together, before the first frame is processed."""

from __future__ import annotations

from propagate.errors import InputError, UsageError
from propagate.features import FeatureExtractor
from propagate.features.finer import both_maps
from propagate.geometry import working_size
from propagate.settings import Settings


def check_fit(frame_size: tuple[int, int], extractor: FeatureExtractor, settings: Settings, *, masks: bool) -> None:
    """Check that frames of (height, width), extractor and settings can give a meaningful result.

    Raises:
        UsageError: `video.short_side` is below the extractor's multiple, the window reaches no cell, the mask codec
            needs a working size of whole cells (if `masks`), or there is no finer map for `propagation.finer`.
        InputError: the frames, at their own size, are smaller than the extractor's multiple or one cell.
    """
    extractor = both_maps(extractor) if settings.propagation.finer else extractor
    least, short_side = max(extractor.multiple, extractor.stride), settings.video.short_side
    if short_side is not None and short_side < least:
        raise UsageError(
            f"video.short_side = {short_side}: the features need at least {least} pixels.",
            f"Set it to {least} or more.",
        )
    if short_side is None and min(frame_size) < least:
        raise InputError(
            f"The frames are {frame_size[1]}x{frame_size[0]}, and the features need at least {least} pixels a side.",
            f"Enlarge them with --set video.short_side={least}, or more.",
        )
    size = working_size(frame_size, multiple=extractor.multiple, **settings.video.sizing)
    if masks and settings.labels.masks.codec == "dift" and any(side % extractor.stride for side in size):
        raise UsageError(
            f"labels.masks.codec = dift: the frames are resized to {size[1]}x{size[0]}, not a multiple of the "
            f"features' stride, {extractor.stride}.",
            f"Set video.short_side or features.multiple to a multiple of {extractor.stride}, or use codec=soft.",
        )
    window = settings.propagation
    if window.window == "circle" and window.radius == 0 and not window.exempt_anchors:
        raise UsageError(
            "propagation.radius = 0: with window = circle (distance less than the radius) no cell is reached.",
            f"Give a radius above 0, in cells of {extractor.stride} pixels.",
        )
