"""Exports that are killed at any moment.

What lies in the output's place afterwards is a whole bundle or does not load, and another export
to the same place succeeds.
"""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pulse_edge
from pulse_edge.errors import PulseEdgeError
from pulse_export.pipeline import export

from fuzz.campaign import ESCAPE, SILENT, Counts, Finding, attempt
from fuzz.children import in_child
from support import tiny

QUESTION = "What is the rate?"


class KilledExports:
    """The campaign."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "place"
        self._checkpoint = tiny.make_checkpoint(folder / "checkpoint", layers=2)
        self._folder.mkdir()
        self._answers = {}
        for precision in ("int8", "fp32"):
            start = time.monotonic()
            export(self._checkpoint, folder / precision, precision=precision)
            self._seconds = 1.2 * (time.monotonic() - start)  # a little longer than an export
            self._answers[precision] = self._answer(folder / precision)
        self._old = folder / "int8"

    def case(self, number: int, rng: random.Random) -> Counts:
        out = self._folder / "bundle"
        replaced = rng.random() < 0.5
        if replaced:
            shutil.copytree(self._old, out)
        moment = rng.uniform(0, self._seconds)
        try:
            in_child(
                lambda: export(self._checkpoint, out, precision="fp32", force=replaced),
                self._folder, moment, silent=True,
            )  # fmt: skip
            state = self._state(out, replaced)
            again = attempt(lambda: export(self._checkpoint, out, precision="fp32", force=True))
            if isinstance(again, PulseEdgeError):
                raise Finding(ESCAPE, f"after a kill at {moment:.3f} s: {again}")
            if self._answer(out) != self._answers["fp32"]:
                raise Finding(SILENT, "the next export answers otherwise")
        finally:
            shutil.rmtree(self._folder)
            self._folder.mkdir()
        return {state: 1}

    def _state(self, out: Path, replaced: bool) -> str:
        """What a killed export has left."""
        loading = [path for path in self._folder.iterdir() if path != out and self._loads(path)]
        if loading:
            raise Finding(SILENT, f"{loading[0].name} loads")
        if not out.exists():
            return "nothing there"
        if not self._loads(out):
            return "does not load"
        answer = self._answer(out)
        if answer == self._answers["fp32"]:
            return "the whole new one"
        if replaced and answer == self._answers["int8"]:
            return "the whole old one"
        raise Finding(SILENT, "half a bundle answers")

    @staticmethod
    def _loads(path: Path) -> bool:
        return not isinstance(attempt(lambda: pulse_edge.open_bundle(path)), PulseEdgeError)

    @staticmethod
    def _answer(path: Path) -> tuple[str, tuple[int, ...]]:
        answer = pulse_edge.load(path, threads=1).ask(None, QUESTION, max_new_tokens=4)
        precision = pulse_edge.open_bundle(path).manifest.precision.name
        return precision, answer.token_ids
