"""A campaign that tests the runner: each case ends badly in its own way."""

from __future__ import annotations

import os
import random
from pathlib import Path

from fuzz.campaign import SILENT, Counts, Finding

LARGE = 100_000_000  # bytes


class Odd:
    """1 fails, 2 hangs, 3 ends its process, 4 is silent, 5 takes memory, all others are fine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def case(self, number: int, rng: random.Random) -> Counts:
        match number:
            case 1:
                raise OSError(28, "no space")
            case 2:
                while True:
                    number += 1
            case 3:
                os._exit(9)
            case 4:
                raise Finding(SILENT, "another picture")
            case 5:
                len(b"x" * LARGE)
        return {"fine": 2}
