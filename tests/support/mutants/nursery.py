"""Runs tests with a fault: a process that has imported the slow libraries forks for each fault.

    python -m support.mutants.nursery TREE

A line of JSON on stdin is one order, a line on stdout its outcome.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

SLOW_IMPORTS = (
    *("numpy", "PIL.Image", "sentencepiece", "click", "hypothesis", "jsonschema", "pydicom"),
    *("onnx", "onnxruntime", "ml_dtypes", "safetensors.numpy", "xdist", "pytest_cov.plugin"),
)
KILLED, SURVIVED, TIMEOUT = "killed", "survived", "timeout"


@dataclass(frozen=True)
class Order:
    """One fault and the tests to run.

    Attributes:
        file: relative to the tree.
        source: the file with the fault.
        tests: node ids.
        test_seconds: after which one test counts as failed, because it hangs.
        seconds: after which the fault counts as found, because nothing ends.
    """

    file: str
    source: str
    tests: tuple[str, ...]
    test_seconds: float
    seconds: float

    def line(self) -> str:
        """As the nursery reads it."""
        return json.dumps(asdict(self)) + "\n"


def run(order: Order, tree: Path) -> str:
    """Put the fault into the tree, run the tests in a child, and take it out again.

    Returns:
        `KILLED` if a test failed, `TIMEOUT` if they did not end, `SURVIVED` if all passed.
    """
    path = tree / order.file
    before = path.read_bytes()
    path.write_text(order.source, "utf-8")
    try:
        return _outcome(_fork(order), order.seconds)
    finally:
        path.write_bytes(before)


def _fork(order: Order) -> int:
    child = os.fork()
    if child:
        return child
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # orders and outcomes go through the first two
        os.dup2(nothing, stream)
    sys.dont_write_bytecode = True
    code = 1
    try:
        options = ["-x", "-q", "-p", "no:cacheprovider", "-n", "0"]
        # The thread's way ends the process, whatever else still runs in it.
        options += [f"--timeout={order.test_seconds}", "--timeout-method=thread"]
        code = pytest.main([*options, *order.tests])
    finally:
        os._exit(int(code))


def _outcome(child: int, seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            _end_group(child)
            return SURVIVED if status == 0 else KILLED
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    _end_group(child)
    os.waitpid(child, 0)
    return TIMEOUT


def _end_group(child: int) -> None:
    """End what the child started, too. It leads a group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def main() -> None:
    tree = Path(sys.argv[1])
    os.chdir(tree)
    for name in SLOW_IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        print(run(Order(**json.loads(line)), tree), flush=True)


if __name__ == "__main__":
    main()
