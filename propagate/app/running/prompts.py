"""Learning the first frame's label before a run, for extractors that do (`prompt_attention`)."""

from __future__ import annotations

from pathlib import Path

from propagate.app.terminal.console import Terminal
from propagate.app.terminal.progress import progress
from propagate.errors import UsageError
from propagate.features import FeatureExtractor
from propagate.features.learned_prompts.label_reader import LabelReader
from propagate.files.atomic import atomic_path
from propagate.pipeline import for_label
from propagate.planning.fitting import check_fit
from propagate.settings import Settings
from propagate.types import Label, Mask
from propagate.video import VideoReader

PROMPTS = "prompt.safetensors"


def learn_label(
    extractor: FeatureExtractor, reader: VideoReader, label: Label, output: Path, settings: Settings, terminal: Terminal
) -> FeatureExtractor:
    """The extractor that knows the label, with progress shown and what was learned kept in the output folder.

    Any extractor but a `LabelReader` is given back as it is, without a look at the video.

    Args:
        extractor: of the run.
        reader: the video.
        label: of its first frame.
        output: folder of the results.
        settings: of the run.
        terminal: where to print.

    Raises:
        PropagateError: see `pipeline.for_label`.
    """
    if not isinstance(extractor, LabelReader):
        return extractor
    check_fit((reader.info.height, reader.info.width), extractor, settings, masks=isinstance(label, Mask))
    frame = next(iter(reader), None)
    if frame is None:
        return extractor  # `track` says so
    if not (steps := extractor.learning_steps(label)):
        return for_label(extractor, label, frame, settings)
    with progress(terminal, "learning", steps, unit="steps") as advance:

        def on_step(name: str, loss: float, taken: int) -> None:
            advance.describe(f"learning {name}, loss {loss:.3g}")
            advance(taken)

        learned = for_label(extractor, label, frame, settings, on_step)
    assert isinstance(learned, LabelReader)
    with atomic_path(output / PROMPTS) as temporary:
        learned.save(temporary)
    return learned


def refuse_cache(name: str) -> None:
    """Features of a `LabelReader` are another label's with another label; they are not kept.

    Raises:
        UsageError: the extractor of this name is one.
    """
    if name == "prompt_attention":
        raise UsageError(
            "--cache: what prompt_attention reads of a frame depends on the first frame's label and is not kept.",
            "Leave it out; learned prompts are kept in the output folder, for --set features.embedding=FILE.",
        )
