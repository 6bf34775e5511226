"""The worker's side of compare.py: commands in, answers out, a line of JSON each.

    {"do": "convert", "checkpoint": …, "out": …, "variant": …}      {}
    {"do": "load", "path": …, "variant": …, "threads": …, "context": …, "vocab": …, "cpu_time":
        false} {"seconds": …, "engine": {…}}      cpu_time: all seconds are the process's, not the
        wall clock's
    {"do": "prefill", "tokens": n}      {"seconds": …}      n tokens into an empty cache, the last
    one's logits {"do": "decode", "tokens": n, "depth": d}      {"seconds": …}      n single steps
    after d cached tokens {"do": "vision", "views": n}      {"seconds": …}, or {"seconds": null}
    from a peer without a vision tower {"do": "memory"}      {"peak": bytes} {"do": "quit"}      {},
    and the process ends

What fails is answered with {"error": …}. Imports nothing but the standard library: it runs in every
environment.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

# tokens at a time where a peer would otherwise take a whole prompt: as ours, and llama.cpp's
# n_ubatch
BATCH = 512


class Peer(Protocol):
    """A model that is loaded. Its cache holds what was fed; `feed` returns when the last token's
    logits are known.

    Those with a vision tower have `see(views)`, too: the tower and the projector over so many views
    of noise.
    """

    engine: dict[str, Any]  # version and settings, for the record

    def feed(self, tokens: list[int]) -> None:
        """Append to the cache. One token is a decode step."""

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens."""


Convert = Callable[
    [Path, Path, str], None
]  # checkpoint (LLaVA directory), directory to write, variant
Load = Callable[[Path, str, int, int], Peer]  # converted directory, variant, threads, context


class Session:
    """Answers commands."""

    def __init__(self, convert: Convert, load: Load) -> None:
        self._convert, self._load = convert, load
        self._peer: Peer | None = None
        self._length = 0
        self._vocab = 0
        self._now = time.perf_counter

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        done: dict[str, Any] = getattr(self, "do_" + command.pop("do"))(**command)
        return done

    def do_convert(self, checkpoint: str, out: str, variant: str) -> dict[str, Any]:
        self._convert(Path(checkpoint), Path(out), variant)
        return {}

    def do_load(
        self,
        path: str,
        variant: str,
        threads: int,
        context: int,
        vocab: int,
        cpu_time: bool = False,
    ) -> dict[str, Any]:
        self._now = time.process_time if cpu_time else time.perf_counter
        start = self._now()
        self._peer = self._load(Path(path), variant, threads, context)
        self._vocab = vocab
        return {"seconds": self._now() - start, "engine": self._peer.engine}

    def do_prefill(self, tokens: int) -> dict[str, Any]:
        self._rewind(0)
        return {"seconds": self._feed(tokens)}

    def do_decode(self, tokens: int, depth: int) -> dict[str, Any]:
        if self._length < depth:
            self._rewind(0)
            self._feed(depth)
        self._rewind(depth)
        return {"seconds": sum(self._feed(1) for _ in range(tokens))}

    def do_vision(self, views: int) -> dict[str, Any]:
        see = getattr(self._peer, "see", None)
        if see is None:
            return {"seconds": None}
        start = self._now()
        see(views)
        return {"seconds": self._now() - start}

    def do_memory(self) -> dict[str, Any]:
        return {"peak": peak_memory()}

    def do_quit(self) -> dict[str, Any]:
        return {}

    def _rewind(self, length: int) -> None:
        assert self._peer is not None, "nothing is loaded"
        if length != self._length:
            self._peer.rewind(length)
        self._length = length

    def _feed(self, count: int) -> float:
        """Seconds that `count` tokens take; which they are depends on their place only."""
        if count == 0:
            return 0.0
        assert self._peer is not None, "nothing is loaded"
        draw = random.Random(self._length)
        tokens = [draw.randrange(3, self._vocab) for _ in range(count)]
        start = self._now()
        self._peer.feed(tokens)
        seconds = self._now() - start
        self._length += count
        return seconds


def serve(convert: Convert, load: Load) -> None:
    """Until told to quit, or until nobody is there to tell."""
    # Libraries print to file descriptor 1 as well: it becomes stderr, which the parent keeps in a
    # file.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    session = Session(convert, load)
    for line in sys.stdin:
        command = json.loads(line)
        last = command["do"] == "quit"
        try:
            answer = session.answer(command)
        except Exception as error:  # of any library
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()
        if last:
            break
    out.close()
    os._exit(0)  # some libraries hang or crash when they are torn down


def peak_memory() -> int:
    """Largest resident set of this process so far, in bytes; mapped file pages count.

    As pulse_edge.system has it.
    """
    try:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )
