"""A peer for tests and CI: sleeps a moment a token.

Variants: a speed in tokens/s, or a way to fail.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import serve


class Fake:
    def __init__(self, path: Path, variant: str) -> None:
        self._variant, self._length = variant, 0
        self._fed = 0
        self._log = path / "calls.log"
        self.engine: dict[str, Any] = {
            "engine": "fake",
            "engine_version": (path / "model").read_text(),
        }

    def feed(self, tokens: list[int]) -> None:
        self._length += len(tokens)
        self._fed += 1
        with self._log.open("a") as file:
            file.write(f"{time.monotonic_ns()} feed {len(tokens)} to {self._length}\n")
        if self._variant == "crash" and self._fed == 3:
            sys.stderr.write("fake: assertion failed\n")
            sys.stderr.flush()
            os._exit(3)
        if self._variant == "raise":
            raise MemoryError("no room for the cache")
        if self._variant == "hang":
            time.sleep(3600)
        if self._variant.isdigit():
            time.sleep(len(tokens) / int(self._variant))

    def rewind(self, length: int) -> None:
        self._length = length


def convert(checkpoint: Path, out: Path, variant: str) -> None:
    if variant == "inconvertible":
        raise ValueError("unknown architecture")
    out.mkdir()
    (out / "model").write_text(variant)
    print("a library's chatter")


def load(path: Path, variant: str, threads: int, context: int) -> Fake:
    if variant == "unloadable":
        raise RuntimeError("bad magic")
    return Fake(path, variant)


if __name__ == "__main__":
    if "noise" in sys.argv[1:]:
        print("not JSON", flush=True)
        sys.stdin.readline()
    serve(convert, load)
