"""`PYTHONPATH=tests python -m support.mutants`: a run, as a table or as JSON.

    --minutes 10            a sample of all rooms that fits this time (the default)
    --all decode text       every mutant of these rooms, or files, however long it takes

The run works in copies of the tree. It exits with 1 if fewer than `--floor` per cent are killed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from support.mutants.clean import copy_tree, run_clean
from support.mutants.hunt import Hunt, Verdict
from support.mutants.nursery import SURVIVED, TIMEOUT
from support.mutants.rooms import ROOMS
from support.paths import ROOT


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of the whole run")
    parser.add_argument("--all", nargs="+", metavar="NAME", help="all mutants of rooms or files")
    parser.add_argument("--seed", type=int, default=16, help="of the sample")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--floor", type=float, default=0, help="per cent that must be killed")
    parser.add_argument("--json", type=Path, help="add a line for each verdict to this file")
    return parser.parse_args()


def chosen(names: list[str] | None) -> tuple[dict[str, str], list[str]]:
    """(room by file, tests) of rooms or files; None: of all rooms that are sampled."""
    files: dict[str, str] = {}
    tests: set[str] = set()
    for room, entry in ROOMS.items():
        paths = entry.paths(ROOT)
        taken = entry.sampled if names is None else room in names
        selected = paths if taken else [path for path in paths if path in (names or ())]
        files |= dict.fromkeys(selected, room)
        tests |= set(entry.test_paths(ROOT)) if selected else set()
    if not files:
        raise SystemExit(f"{names} are neither rooms ({', '.join(ROOMS)}) nor files of theirs")
    return files, sorted(tests)


def table(verdicts: list[Verdict]) -> str:
    """Counts by file. Equivalent mutants are not counted: they were not run."""
    lines = [f"{'file':<42}{'mutants':>9}{'killed':>8}{'hung':>6}{'survived':>10}{'score':>8}"]
    for file in [*sorted({v.mutant.file for v in verdicts}), "all"]:
        outcomes = [v.outcome for v in verdicts if file in ("all", v.mutant.file)]
        survived, hung = outcomes.count(SURVIVED), outcomes.count(TIMEOUT)
        score = f"{100 * (1 - survived / max(1, len(outcomes))):.1f}%"
        killed = len(outcomes) - survived - hung
        lines.append(f"{file:<42}{len(outcomes):>9}{killed:>8}{hung:>6}{survived:>10}{score:>8}")
    return "\n".join(lines)


def main() -> int:
    options = arguments()
    end = None if options.all else time.monotonic() + 60 * options.minutes
    files, tests = chosen(options.all)
    log = options.json.open("a", encoding="utf-8") if options.json else None
    with tempfile.TemporaryDirectory() as scratch, log or nullcontext():
        trees = [copy_tree(Path(scratch) / str(i)) for i in range(options.workers)]
        clean = run_clean(trees[0], tests, options.workers)
        print(f"{len(clean.seconds)} tests pass without a fault", file=sys.stderr)
        for test in clean.failed:
            print(f"left out, because it fails without a fault: {test}", file=sys.stderr)
        hunt = Hunt(files, clean, trees, end, log)
        verdicts = hunt.run(options.seed)
    for verdict in verdicts:
        if verdict.outcome == SURVIVED:
            print(verdict.mutant.diff((ROOT / verdict.mutant.file).read_text("utf-8")))
    print(table(verdicts))
    print(f"{len(hunt.equivalent)} equivalent mutants were not run, {hunt.left} had no time")
    killed = sum(v.outcome != SURVIVED for v in verdicts)
    return int(100 * killed < options.floor * len(verdicts))


if __name__ == "__main__":
    sys.exit(main())
