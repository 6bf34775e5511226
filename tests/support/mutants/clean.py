"""A copy of the tree, and what its tests do without a fault: who runs which line, how fast."""

from __future__ import annotations

import compileall
import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import coverage

from support.mutants import times
from support.paths import ROOT

LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "build", "dist", "*.egg-info", ".*_cache")


@dataclass(frozen=True)
class CleanRun:
    """The tests without a fault.

    Attributes:
        seconds: of each test that passed, by its node id.
        failed: tests that fail without a fault, and so say nothing.
        lines: tests by the file and the line that they run. Lines that run at import are missing.
    """

    seconds: dict[str, float]
    failed: tuple[str, ...]
    lines: dict[tuple[str, int], frozenset[str]]

    def covering(self, file: str, line: int) -> list[str]:
        """Tests that run a line, quickest first."""
        tests = self.lines.get((file, line), frozenset()) & self.seconds.keys()
        return sorted(tests, key=lambda test: (self.seconds[test], test))

    def of(self, paths: list[str]) -> list[str]:
        """Tests in these files and folders, quickest first."""
        heads = tuple(f"{path}::" if path.endswith(".py") else f"{path}/" for path in paths)
        tests = [test for test in self.seconds if test.startswith(heads)]
        return sorted(tests, key=lambda test: (self.seconds[test], test))


def copy_tree(to: Path) -> Path:
    """The clone without its history and environments, compiled so that a change in a file is seen.

    Modules are recognised by their content: by time and size, a fault of the same length within a
    second would not be.
    """
    shutil.copytree(ROOT, to, ignore=LEFT_OUT)
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    for folder in ("pulse_edge", "export", "tests"):
        compileall.compile_dir(to / folder, quiet=2, invalidation_mode=mode)
    return to


def environment(tree: Path) -> dict[str, str]:
    """Of processes that run the tree's tests: they, and their children, import the tree's code."""
    path = os.pathsep.join(str(tree / part) for part in (".", "export", "tests"))
    return os.environ | {
        "PYTHONPATH": path,
        "OPENBLAS_NUM_THREADS": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(tree / ".hypothesis"),
    }


def run_clean(tree: Path, tests: list[str], workers: int) -> CleanRun:
    """Run tests once, with the lines that each of them takes.

    Args:
        tree: a copy.
        tests: files and folders, relative to it.
        workers: processes.
    """
    record = tree / "times.json"
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "-p", times.__name__]
    command += ["-m", "not parity and not tensorrt and not gpu"]
    command += ["--cov", "--cov-context=test", "--cov-report=", *tests]
    variables = environment(tree) | {times.VARIABLE: str(record)}
    done = subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True)
    if not record.exists():
        raise SystemExit(f"the tests do not run without a fault:\n{done.stdout}{done.stderr}")
    seen = json.loads(record.read_text())
    failed = set(seen["failed"])
    seconds = {test: taken for test, taken in seen["seconds"].items() if test not in failed}
    return CleanRun(seconds, tuple(sorted(failed)), _lines(tree))


def _lines(tree: Path) -> dict[tuple[str, int], frozenset[str]]:
    data = coverage.CoverageData(str(tree / ".coverage"))
    data.read()
    lines: dict[tuple[str, int], frozenset[str]] = defaultdict(frozenset)
    for path in data.measured_files():
        file = str(Path(path).relative_to(tree))
        for line, contexts in data.contexts_by_lineno(path).items():
            tests = frozenset(context.rpartition("|")[0] for context in contexts if context)
            if tests:
                lines[file, line] = tests
    return dict(lines)
