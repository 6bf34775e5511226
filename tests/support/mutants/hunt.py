"""Every mutant, or a sample of them, against the tests that run its line."""

from __future__ import annotations

import json
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from support.mutants import nursery
from support.mutants.clean import CleanRun, environment
from support.mutants.equivalents import equivalents
from support.mutants.operators import Mutant, mutants_of
from support.mutants.rooms import ROOMS
from support.paths import ROOT

SLOWER = 3  # times the seconds of the clean run, after which tests hang
TEST_PATIENCE = 3.0  # seconds on top for each test, for fixtures that another test had made before
PATIENCE = 20.0  # seconds on top for all, for imports on a busy machine
STEP = 100  # mutants between two lines of progress


@dataclass(frozen=True)
class Verdict:
    """A mutant and how it ended, after how many tests and seconds."""

    mutant: Mutant
    outcome: str
    tests: int
    seconds: float

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "file": self.mutant.file,
            "line": self.mutant.line,
            "text": self.mutant.text,
            "change": self.mutant.change,
            "outcome": self.outcome,
            "tests": self.tests,
            "seconds": round(self.seconds, 2),
        }


class Hunt:
    """A run over files.

    Attributes:
        equivalent: mutants that are known to change nothing.
        left: mutants that the time did not suffice for.
    """

    def __init__(
        self,
        files: dict[str, str],
        clean: CleanRun,
        trees: list[Path],
        end: float | None,
        log: TextIO | None = None,
    ) -> None:
        """
        Args:
            files: room by file.
            clean: the tests without a fault.
            trees: a copy of the tree for each worker.
            end: by the monotonic clock, None for no end.
            log: gets a line of JSON for each verdict at once, so that a run that is stopped has
                not been for nothing.
        """
        self._log = log
        self._files = files
        self._clean = clean
        self._trees = trees
        self._end = end
        known = equivalents()
        every = [m for file in files for m in mutants_of(file, (ROOT / file).read_text("utf-8"))]
        self.equivalent = [m for m in every if any(row.covers(m) for row in known)]
        self._mutants = [m for m in every if not any(row.covers(m) for row in known)]
        self.left = 0

    def run(self, seed: int) -> list[Verdict]:
        """Take the mutants in an order that the seed gives, until none is left or time is up."""
        waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
        for mutant in random.Random(seed).sample(self._mutants, len(self._mutants)):
            waiting.put(mutant)
        verdicts: list[Verdict] = []
        threads = [
            threading.Thread(target=self._work, args=(tree, waiting, verdicts))
            for tree in self._trees
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.left = len(self._mutants) - len(verdicts)
        return sorted(verdicts, key=lambda v: (v.mutant.file, v.mutant.line, v.mutant.change))

    def _work(
        self, tree: Path, waiting: queue.SimpleQueue[Mutant], verdicts: list[Verdict]
    ) -> None:
        command = [sys.executable, "-m", nursery.__name__, str(tree)]
        with subprocess.Popen(
            command,
            env=environment(tree),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            while self._end is None or time.monotonic() < self._end:
                try:
                    mutant = waiting.get_nowait()
                except queue.Empty:
                    break
                verdict = self._verdict(process, mutant)
                verdicts.append(verdict)
                if self._log:
                    self._log.write(json.dumps(verdict.record()) + "\n")
                    self._log.flush()
                if len(verdicts) % STEP == 0:
                    print(f"{len(verdicts)} of {len(self._mutants)}", file=sys.stderr)
            if process.stdin:
                process.stdin.close()

    def _verdict(self, process: subprocess.Popen[str], mutant: Mutant) -> Verdict:
        """The tests that run the line first. If none notices, the other tests of the room: a
        fixture that many tests share runs its lines in one of them only."""
        start = time.monotonic()
        covering = self._clean.covering(mutant.file, mutant.line)
        room = ROOMS[self._files[mutant.file]].test_paths(ROOT)
        others = [test for test in self._clean.of(room) if test not in set(covering)]
        outcome = nursery.SURVIVED
        for tests in (covering, others):
            if tests and outcome == nursery.SURVIVED:
                outcome = self._outcome(process, mutant, tests)
        count = len(covering) + len(others)
        return Verdict(mutant, outcome, count, time.monotonic() - start)

    def _outcome(self, process: subprocess.Popen[str], mutant: Mutant, tests: Iterable[str]) -> str:
        chosen = tuple(tests)
        taken = [self._clean.seconds[test] for test in chosen]
        order = nursery.Order(
            file=mutant.file,
            source=mutant.source,
            tests=chosen,
            test_seconds=TEST_PATIENCE + SLOWER * max(taken),
            seconds=PATIENCE + SLOWER * sum(taken),
        )
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the nursery has no pipes")
        process.stdin.write(order.line())
        process.stdin.flush()
        outcome = process.stdout.readline().strip()
        if not outcome:
            raise RuntimeError(f"the nursery ended at {mutant.file}:{mutant.line}")
        return outcome
