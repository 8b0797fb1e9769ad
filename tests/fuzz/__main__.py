"""The command line of the fuzzer."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # before anything imports torch or huggingface_hub
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", NO_COLOR="1")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fuzzer; return 1 where there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="cases of all kinds together")
    parser.add_argument("--each", type=int, help="cases of each kind, instead of -n")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", help="only this kind; may be repeated")
    parser.add_argument("--case", metavar="KIND:NUMBER", help="repeat one case and print what became of it")
    parser.add_argument("--save", type=Path, metavar="DIR", help="of --case: keep its damaged input there, run nothing")
    parser.add_argument("--findings", type=Path, default=Path("fuzz_findings"), help="folder for findings")
    parser.add_argument("--seconds", type=float, default=20.0, help="after which a case counts as hanging")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    given = parser.parse_args(arguments)
    from tests.fuzz.kinds import KINDS

    if given.case:
        kind, _, number = given.case.rpartition(":")
        if kind not in KINDS or not number.lstrip("-").isdecimal():
            parser.error(f"--case {given.case} is not KIND:NUMBER; kinds: {', '.join(KINDS)}")
        chosen, cases = [kind], [(kind, int(number))]
    else:
        chosen = given.kind or list(KINDS)
        if unknown := set(chosen) - set(KINDS):
            parser.error(f"--kind {unknown.pop()} is none of {', '.join(KINDS)}")
        whole = sum(KINDS[kind].share for kind in chosen)
        each = {kind: given.n * KINDS[kind].share / whole for kind in chosen}
        counts = {kind: round(each[kind]) if given.each is None else given.each for kind in chosen}
        # kinds take turns, so that a run that is stopped has seen all of them
        cases = sorted(
            ((kind, number) for kind in chosen for number in range(counts[kind])),
            key=lambda case: (case[1] / counts[case[0]], case[0]),
        )
    root = Path(tempfile.mkdtemp(prefix="propagate-fuzz-"))
    try:
        return _run(chosen, cases, given, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _run(kinds: Sequence[str], cases: Sequence[tuple[str, int]], given: argparse.Namespace, root: Path) -> int:
    from tests.fuzz.bases import make_variants
    from tests.fuzz.case import FINDINGS, prepare
    from tests.fuzz.pool import run_cases

    variants = make_variants(kinds, root / "bases")
    if given.save is not None:
        kind, number = cases[0]
        _, arguments, done = prepare(variants[kind], (given.seed, kind, number), given.save.absolute() / "case")
        print(f"cd {given.save / 'case'} && propagate {' '.join(map(repr, arguments))}", *done, sep="\n")
        return 0
    if not given.case:  # first of all, whether undamaged inputs are read
        cases = [*((kind, -1 - place) for kind, found in variants.items() for place in range(len(found))), *cases]
    start, counts, slowest, peak, seen = time.monotonic(), Counter[str](), (0.0, ""), 0, Counter[str]()
    ended = run_cases(variants, cases, seed=given.seed, root=root, workers=given.workers, seconds=given.seconds)
    by_kind: dict[str, Counter[str]] = {}
    for (kind, number), verdict in ended:
        counts[verdict.outcome] += 1
        by_kind.setdefault(kind, Counter())[verdict.outcome] += 1
        slowest, peak = max(slowest, (verdict.seconds, f"{kind}:{number}")), max(peak, verdict.peak)
        if given.case:
            print(verdict.outcome, verdict.report, sep="\n")
        elif verdict.outcome in FINDINGS:
            summary = _summary(verdict.report)
            seen[summary] += 1
            place = given.findings / f"{kind}_{number}_{verdict.outcome.replace(' ', '_')}.txt"
            if seen[summary] <= 5:  # more of the same would hide the others
                place.parent.mkdir(parents=True, exist_ok=True)
                again = f"python -m tests.fuzz --seed {given.seed} --case {kind}:{number}"
                place.write_text(f"{again}\n{verdict.report}\n", encoding="utf-8", errors="backslashreplace")
            if seen[summary] == 1:
                print(
                    f"{kind}:{number} {verdict.outcome}: {summary}".encode("ascii", "backslashreplace").decode(),
                    flush=True,
                )
    for kind, found in sorted(by_kind.items()):
        print(f"{kind:>13}  " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.items())))
    for summary, count in seen.most_common():
        print(f"{count:6d} x {summary}".encode("ascii", "backslashreplace").decode())
    counted = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("ok", "our error", *FINDINGS) if counts[outcome])
    seconds = time.monotonic() - start
    print(
        f"{sum(counts.values())} cases in {seconds:.0f} s: {counted}; "
        f"peak {peak / 1e9:.2f} GB, slowest {slowest[1]} {slowest[0]:.1f} s"
    )
    return int(any(counts[outcome] for outcome in FINDINGS))


def _summary(report: str) -> str:
    """Return the last place in the package and the exception, the same for findings with one cause."""
    places = re.findall(r'File "[^"]*?(propagate/[\w/]+\.py)", line (\d+),? in (\w+)', report)
    lines = [
        line
        for line in report.splitlines()
        if re.match(r"[\w.]*([Ee]rror|Exception|Timeout|Warning)\b(?!: preset)", line)
    ]
    last = next((line for line in report.splitlines()[1:] if line and not line.startswith("b'")), "")
    if "(most recent call first)" in report:
        places.reverse()
    name = re.sub(r"\d+", "N", (lines[-1] if lines else last)[:100])
    return f"{':'.join(places[-1]) if places else ''} {name}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
