"""What an evaluation leaves behind when it is interrupted, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from propagate.app.terminal.interrupt import Stopped
from propagate.benchmarks.benchmark import Benchmark
from propagate.benchmarks.report.summary import SUMMARY
from propagate.benchmarks.running.methods import Method
from propagate.benchmarks.running.output import Output
from propagate.benchmarks.running.records import RECORD


@contextmanager
def keeping_clips(benchmark: Benchmark, methods: Sequence[Method], output: Output) -> Iterator[None]:
    """Make an interruption anywhere in the block say what lies in the folder; remove a new folder that holds nothing.

    Raises:
        Stopped: the block was interrupted.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if output.forget_if_empty():
            raise Stopped("Interrupted before the first clip was finished; nothing was written.") from interrupt
        raise Stopped(_what_stays(benchmark, methods, output)) from interrupt
    except BaseException:
        output.forget_if_empty()
        raise


def _what_stays(benchmark: Benchmark, methods: Sequence[Method], output: Output) -> str:
    """Read from the folder itself, so that it is true whenever the interrupt came."""
    clips = [output.of(method.name) / clip.name for method in methods for clip in benchmark.clips]
    done = sum((clip / RECORD).is_file() for clip in clips)
    if not done:
        return f"Interrupted before the first clip was finished; {output.folder} holds none of this run."
    if (output.folder / SUMMARY).is_file():
        return (
            f"The scores are in {output.folder / SUMMARY}. What comes after them was not finished; go on with --resume."
        )
    if done == len(clips):
        return f"All {done} clips are finished and stay in {output.folder}; score them with --resume."
    return f"{done} of {len(clips)} clips are finished and stay in {output.folder}; go on with --resume."
