"""From methods to scores: which clips are still to be run, and what all of them are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from propagate.benchmarks.benchmark import Benchmark, Scores
from propagate.benchmarks.report.summary import MethodResult
from propagate.benchmarks.running.clip_folder import differences, is_whole
from propagate.benchmarks.running.methods import Method
from propagate.benchmarks.running.output import Output
from propagate.benchmarks.running.records import ClipRecord, read_record
from propagate.benchmarks.running.runner import Outcome, Task
from propagate.errors import InputError, UsageError
from propagate.files.names import reading, real_path

_NOTHING = Scores({}, {}, (), ())


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        tasks: clips to run, those of one method together.
        finished: how many are finished already.
        notes: sentences about those that are not taken as they are.
        threads: with which finished clips were run whose last digits may depend on it; None where there are none.
    """

    tasks: tuple[Task, ...]
    finished: int
    notes: tuple[str, ...]
    threads: int | None = None


def plan(benchmark: Benchmark, methods: Sequence[Method], output: Output, threads: int | None = None) -> Plan:
    """Which clips are still to be run. When all is well, what stands in their way is removed, and so are old scores.

    Args:
        benchmark: the data set.
        methods: what is run on it.
        output: where to.
        threads: of each process, where the user says so; else clips are gone on with as they were begun.

    Raises:
        UsageError: to resume, a clip was finished with other settings, another number of threads that matters, or from
            other data, each difference named; or something that is not ours lies in a place of ours. Nothing has been
            removed then.
        InputError: a picture cannot be read.
    """
    tasks, kept, notes = list[Task](), list[tuple[ClipRecord, Method]](), list[str]()
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
                if is_whole(folder, record):
                    if method.depends_on_threads:
                        counts.add(record.threads)
                        if threads not in (None, record.threads):
                            raise UsageError(
                                f"{folder} was made with --threads {record.threads}, on which last digits may depend.",
                                f"Give --threads {record.threads}, or none; or another --output, or --overwrite.",
                            )
                    kept.append((record, method))
                    continue
                notes.append(f"{folder} has lost files, or they were changed; the clip is run again.")
            tasks.append(Task(method, clip, folder))
    output.make_way([task.folder for task in tasks])
    if len(counts) > 1:
        mixed = ", ".join(map(str, sorted(counts)))
        notes.append(f"Finished clips were made with different numbers of threads ({mixed}): last digits may differ.")
    return Plan(tuple(tasks), len(kept), (*notes, *_version_notes(kept)), min(counts, default=None))


def score(
    benchmark: Benchmark, methods: Sequence[Method], outcomes: Sequence[Outcome], output: Output
) -> tuple[MethodResult, ...]:
    """What every method's clips are worth.

    A method of which every clip failed has no scores, and is here all the same; so is one of which none could be
    scored, with a remark that says why.

    Raises:
        InputError: of the first method, where there are finished clips and not one of all methods could be scored.
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
        scores = _NOTHING
        if records:
            try:
                scores = _scored(benchmark, folder)
            except InputError as error:
                errors.append(error)
                scores = replace(_NOTHING, remarks=(error.message,))
        peaks = [record.peak_memory for record in records if record.peak_memory is not None]
        results.append(
            MethodResult(
                name=method.name,
                settings=method.settings,
                origins=method.origins,
                settings_hash=method.settings_hash,
                scores=scores,
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
    """What results that lie somewhere are worth, whoever made them; each is named after its folder.

    A folder that does not exist, or in which nothing could be scored, has no scores and a remark that says why.

    Raises:
        InputError: of the first folder, where there are some and none of them could be scored.
        UsageError: two of one name.
    """
    names = [real_path(folder).name for folder in folders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"--results: two folders are called {twice[0]}.", "Rename one: rows are known by that name.")
    results, errors = list[MethodResult](), list[InputError]()
    for name, folder in zip(names, folders, strict=True):
        try:
            if not folder.is_dir():
                raise InputError(f"--results {folder}: there is no such folder.", "Give one with a folder per clip.")
            scores = _scored(benchmark, folder)
        except InputError as error:
            errors.append(error)
            scores = replace(_NOTHING, remarks=(error.message,))
        results.append(MethodResult(name, {}, {}, "", scores, folder))
    if errors and len(errors) == len(results):
        raise errors[0]
    return tuple(results)


def _scored(benchmark: Benchmark, folder: Path) -> Scores:
    """The scores of results.

    Raises:
        InputError: nothing could be scored, or a file cannot be read.
    """
    with reading(folder):
        return benchmark.score(folder)


def _version_notes(kept: Sequence[tuple[ClipRecord, Method]]) -> tuple[str, ...]:
    """A sentence where clips that are kept were made with other versions: they may differ in a few pixels."""
    then, current = set[str](), set[str]()
    for record, method in kept:
        now = method.versions
        for name, version in record.versions.items():
            if version != now.get(name):
                then.add(f"{name} {version}")
                current.add(f"{name} {now.get(name)}")
    if not then:
        return ()
    before, after = (", ".join(sorted(texts)) for texts in (then, current))
    return (f"Finished clips were made with {before}; now it is {after}. Results of both are mixed.",)
