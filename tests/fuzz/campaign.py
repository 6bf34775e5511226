"""What a campaign is, and what can be wrong with a case."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from pulse_edge.errors import PulseEdgeError

T = TypeVar("T")
Counts = Mapping[str, int]  # what became of the operations of a case

ESCAPE, SILENT, HANG, MEMORY = "escape", "silent", "hang", "memory"
KINDS = (ESCAPE, SILENT, HANG, MEMORY)
GROWTH = 512 << 20  # bytes
LONGEST = 2000  # characters of an error's one line


class Finding(Exception):
    """What must not happen.

    Args:
        kind: one of `KINDS`: an exception that is no `PulseEdgeError`, or a message of several
            lines; a result that is another than the input says; over 2 s; too much memory.
        text: what happened.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text


class Campaign(Protocol):
    """A kind of input. Every worker process has one of its own."""

    def __init__(self, folder: Path) -> None:
        """Make the seeds. `folder`: an empty one that the campaign may use."""

    def case(self, number: int, rng: random.Random) -> Counts:
        """Run one case.

        Args:
            number: of the case.
            rng: its only source of chance, so that number and seed give the same case again.

        Returns:
            How many operations ended how: {"refused": 1}.

        Raises:
            Finding: something happened that must not.
        """


@dataclass(frozen=True)
class Entry:
    """A row of the table of campaigns.

    Attributes:
        title: what is put in.
        open: the campaign's class, at the top of its module, where a worker finds it.
        cases: of the full campaign.
        seconds: of the processor that one case may take.
        memory: bytes that a process may grow by in one case.
    """

    title: str
    open: type[Campaign]
    cases: int
    seconds: float = 2.0
    memory: int = GROWTH


def attempt(call: Callable[[], T]) -> T | PulseEdgeError:
    """A call's result, or its refusal.

    Raises:
        Finding: the refusal is not one line that a terminal can show.
    """
    try:
        return call()
    except PulseEdgeError as error:
        text = str(error)
        if not text.strip() or len(text.splitlines()) > 1 or len(text) > LONGEST:
            raise Finding(ESCAPE, f"no single line: {type(error).__name__} {text!r}") from None
        return error
