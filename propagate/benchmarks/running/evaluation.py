"""From methods to scores: plan the clips to run, and score all clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from propagate.benchmarks.benchmark import Benchmark, Scores
from propagate.benchmarks.report.summary import MethodResult
from propagate.benchmarks.running.clip_folder import differences, is_complete
from propagate.benchmarks.running.evaluation_folder import Output
from propagate.benchmarks.running.methods import Method
from propagate.benchmarks.running.records import ClipRecord, read_record
from propagate.benchmarks.running.runner import Outcome, Task
from propagate.errors import InputError, UsageError
from propagate.files.names import reading, real_path

_NOTHING = Scores({}, {}, (), ())


@dataclass(frozen=True)
class Plan:
    """The clips to run."""

    tasks: tuple[Task, ...]  # clips to run, grouped by method
    finished: int  # number of finished clips
    notes: tuple[str, ...]  # sentences about finished clips that run again or differ in versions
    # number of threads of finished clips whose last digits may depend on it; None without such clips
    threads: int | None = None


def plan(benchmark: Benchmark, methods: Sequence[Method], output: Output, threads: int | None = None) -> Plan:
    """Find the clips that must run, and clear the output folder for them; old scores are removed.

    Without `threads`, clips run with as many threads as the finished ones.

    Raises:
        UsageError: a finished clip has other settings, input, or number of threads where it matters, or there are
            files that an evaluation did not write. Nothing was removed.
    """
    tasks, finished, notes = list[Task](), list[tuple[ClipRecord, Method]](), list[str]()
    counts: set[int] = set()
    for method in methods:
        for clip in benchmark.clips:
            folder = output.of(method.name) / clip.name
            record = read_record(folder, ClipRecord)
            if record is not None and output.keeps_clips:
                if changed := differences(record, method, benchmark, clip):
                    raise UsageError(
                        f"{folder} was made with other settings: {'; '.join(changed)}.",
                        "Give the same ones, another --output, or --overwrite.",
                    )
                if is_complete(folder, record):
                    if method.depends_on_threads:
                        counts.add(record.threads)
                        if threads not in (None, record.threads):
                            raise UsageError(
                                f"{folder} was made with --threads {record.threads}, on which last digits may depend.",
                                f"Give --threads {record.threads}, or none; or another --output, or --overwrite.",
                            )
                    finished.append((record, method))
                    continue
                notes.append(f"{folder} has missing or changed files. The clip runs again.")
            tasks.append(Task(method, clip, folder))
    output.clear([task.folder for task in tasks])
    if len(counts) > 1:
        mixed = ", ".join(map(str, sorted(counts)))
        notes.append(f"Finished clips were made with different numbers of threads ({mixed}): last digits may differ.")
    return Plan(tuple(tasks), len(finished), (*notes, *_version_notes(finished)), min(counts, default=None))


def score(
    benchmark: Benchmark, methods: Sequence[Method], outcomes: Sequence[Outcome], output: Output
) -> tuple[MethodResult, ...]:
    """Score all methods. A method without any scored clip gets empty scores, with a remark where it has results.

    Raises:
        InputError: there are finished clips, but none of any method could be scored.
    """
    failed: dict[str, dict[str, str]] = {method.name: {} for method in methods}
    for outcome in outcomes:
        if outcome.run is None:
            failed[outcome.task.method.name][outcome.task.clip.name] = outcome.error
    results, errors = list[MethodResult](), list[InputError]()
    for method in methods:
        folder = output.of(method.name)
        found = (read_record(folder / clip.name, ClipRecord) for clip in benchmark.clips)
        records = [record for record in found if record is not None]
        seconds = sum(record.seconds for record in records)
        peaks = [record.peak_memory for record in records if record.peak_memory is not None]
        results.append(
            MethodResult(
                name=method.name,
                settings=method.settings,
                origins=method.origins,
                settings_hash=method.settings_hash,
                scores=_score(benchmark, folder, errors) if records else _NOTHING,
                results=folder,
                frames_per_second=sum(record.frames for record in records) / seconds if seconds else None,
                failed=failed[method.name],
                peak_memory=max(peaks, default=None),
            )
        )
    if errors and not any(result.scores.clips for result in results):
        raise errors[0]
    return tuple(results)


def score_existing(benchmark: Benchmark, folders: Sequence[Path]) -> tuple[MethodResult, ...]:
    """Score existing results, named after their folders. Without any scored clip, a remark says why.

    Raises:
        InputError: no folder could be scored; the error of the first one.
        UsageError: two folders have the same name.
    """
    names = [real_path(folder).name for folder in folders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"--results: two folders are called {twice[0]}.", "Rename one: rows are known by that name.")
    errors: list[InputError] = []
    scores = [_score(benchmark, folder, errors) for folder in folders]
    if errors and len(errors) == len(folders):
        raise errors[0]
    return tuple(
        MethodResult(name, {}, {}, "", own, folder) for name, own, folder in zip(names, scores, folders, strict=True)
    )


def _score(benchmark: Benchmark, folder: Path, errors: list[InputError]) -> Scores:
    """Score results; append an error and return it as a remark where nothing could be scored."""
    try:
        if not folder.is_dir():
            raise InputError(f"--results {folder}: there is no such folder.", "Give one with a folder per clip.")
        with reading(folder):
            return benchmark.score(folder)
    except InputError as error:
        errors.append(error)
        return replace(_NOTHING, remarks=(error.message,))


def _version_notes(finished: Sequence[tuple[ClipRecord, Method]]) -> tuple[str, ...]:
    """Warn where finished clips were made with other versions: results may differ in a few pixels."""
    then, current = set[str](), set[str]()
    for record, method in finished:
        now = method.versions
        for name, version in record.versions.items():
            if version != now.get(name):
                then.add(f"{name} {version}")
                current.add(f"{name} {now.get(name)}")
    if not then:
        return ()
    before, after = (", ".join(sorted(texts)) for texts in (then, current))
    return (f"Finished clips were made with {before}; now it is {after}. Results of both are mixed.",)
