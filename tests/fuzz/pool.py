"""Worker processes that run cases, each with limits of time and memory."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tests.fuzz.case import CRASH, HANG, Verdict, head_file, run_case
from tests.fuzz.variant import Variant

SECONDS = 20.0
_ADDRESSES = 3 * 2**30  # bytes of address space beside what a fresh worker has
_RECYCLED = 400  # cases of one process

Case = tuple[str, int]


def run_cases(
    variants: Mapping[str, Sequence[Variant]],
    cases: Sequence[Case],
    *,
    seed: int,
    root: Path,
    workers: int = 2,
    seconds: float = SECONDS,
) -> Iterator[tuple[Case, Verdict]]:
    """Run cases in processes that are forked from this one.

    Args:
        variants: of each kind.
        cases: kind and number.
        seed: of all of them.
        root: folder for what is temporary.
        workers: processes.
        seconds: a case hangs that computes for longer than this, or waits for longer without computing.

    Yields:
        Each case with its verdict, in the order in which they end.
    """
    coming = list(reversed(cases))
    pool = [_Worker(variants, seed, root / f"worker{place}", seconds) for place in range(min(workers, len(cases)))]
    try:
        busy = [worker for worker in pool if worker.give(coming)]
        while busy:
            ready = wait([worker.line for worker in busy], timeout=1.0)
            for worker in busy:
                late = worker.line not in ready and worker.is_late
                if late or worker.line in ready:
                    yield worker.result(late)
                    worker.give(coming)
            busy = [worker for worker in pool if worker.case is not None]
    finally:
        for worker in pool:
            worker.stop()


class _Worker:
    def __init__(self, variants: Mapping[str, Sequence[Variant]], seed: int, root: Path, seconds: float) -> None:
        self._arguments = variants, seed, root
        self._root, self._seconds = root, seconds
        self.case: Case | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.line, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self.line, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._count = 0

    @property
    def is_late(self) -> bool:
        """Return whether the case hangs, by its CPU time as well, since other processes may use the machine."""
        if self.case is None or (waited := time.monotonic() - self._since) < self._seconds:
            return False
        computed = _processor_time(self._process.pid) - self._computed
        return computed > self._seconds or waited > 10 * self._seconds or _sleeps(self._process.pid)

    def give(self, coming: list[Case]) -> bool:
        """Send the next case, if any."""
        if not coming:
            self.case = None
            return False
        if self._count >= _RECYCLED:
            self.stop()
            self._start()
        self._count += 1
        self.case, self._since, self._computed = coming.pop(), time.monotonic(), _processor_time(self._process.pid)
        self.line.send(self.case)
        return True

    def result(self, late: bool) -> tuple[Case, Verdict]:
        """Return the verdict of the case; replace a process that has died or hangs."""
        assert self.case is not None
        if not late:
            with suppress(EOFError, OSError):  # the process has died
                return self.case, self.line.recv()
        seconds = time.monotonic() - self._since
        trace = self._root.with_name(f"{self._root.name}.trace")
        if late:
            os.kill(self._process.pid or 0, signal.SIGUSR1)  # faulthandler's
            time.sleep(0.5)
        self.stop()
        head = head_file(self._root)
        report = head.read_text(encoding="utf-8") if head.exists() else ""
        report += f"over {self._seconds:g} s\n" if late else f"the process ended with {self._process.exitcode}\n"
        case = self.case
        self._start()
        return case, Verdict(HANG if late else CRASH, report + trace.read_text(errors="replace")[:12_000], seconds)

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self.line.close()
        shutil.rmtree(self._root, ignore_errors=True)


def _work(
    line: Connection,
    other_end: Connection,
    variants: Mapping[str, Sequence[Variant]],
    seed: int,
    root: Path,
) -> None:
    """Run cases until the parent ends."""
    other_end.close()
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    root.parent.mkdir(parents=True, exist_ok=True)
    trace = (root.parent / f"{root.name}.trace").open("w")
    # what libraries print past Python, too
    os.dup2(trace.fileno(), 1)
    os.dup2(trace.fileno(), 2)
    sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123
    faulthandler.enable(trace)
    faulthandler.register(signal.SIGUSR1, trace)
    _limit_memory()
    while True:
        # other workers hold the parent's end of the line too, so that it does not end with the parent
        while not line.poll(2.0):
            if os.getppid() != parent:
                return
        try:
            kind, number = line.recv()
        except EOFError:
            return
        trace.seek(0)
        trace.truncate()
        verdict = run_case(variants[kind], seed, kind, number, root)
        line.send(verdict)


def _processor_time(process: int | None) -> float:
    """Return the CPU seconds of a process."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _sleeps(process: int | None) -> bool:
    """Return whether all threads of a process sleep, in ten samples."""
    for _ in range(10):
        for thread in Path(f"/proc/{process}/task").glob("*/stat"):
            with suppress(OSError):  # it has just ended
                if thread.read_text().rpartition(")")[2].split()[0] not in "SDt":
                    return False
        time.sleep(0.05)
    return True


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ADDRESSES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
