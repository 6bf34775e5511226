"""Asks a model the questions of a benchmark, and goes on where an earlier run ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.answers_file import AnswersFile, answer_id
from pulse_edge.evaluate.ecgbench.ask import Asker, answer_line
from pulse_edge.evaluate.ecgbench.items import BenchItem
from pulse_edge.evaluate.ecgbench.run_file import FINAL
from pulse_edge.progress import Progress

MEASURED = 3  # items from whose seconds the whole time is predicted


@dataclass(frozen=True)
class RunPrediction:
    """How long the rest of a run takes.

    Attributes:
        items: that are left.
        each_s: seconds of an item, the mean of those that were measured.
    """

    items: int
    each_s: float

    @property
    def seconds(self) -> float:
        """Of all items that are left."""
        return self.items * self.each_s


Announce = Callable[[RunPrediction], None]


@dataclass
class RunCounts:
    """What a run did.

    Attributes:
        asked: items that were answered now.
        before: items that an earlier run had answered.
        failed: items of both that have no answer, such as for want of their page.
    """

    asked: int = 0
    before: int = 0
    failed: int = 0


@dataclass
class _Clock:
    """Seconds of items, and whether the whole time was announced."""

    left: int
    announce: Announce
    seconds: list[float] = field(default_factory=list)
    announced: bool = False

    def check(self) -> None:
        """Announce once enough is known. What `announce` raises ends the run."""
        if not self.announced and self.left and len(self.seconds) >= MEASURED:
            self.announced = True
            self.announce(RunPrediction(self.left, sum(self.seconds) / len(self.seconds)))


def run_items(
    asker: Asker,
    plan: Mapping[str, Sequence[BenchItem]],
    images: Path,
    out: Path,
    announce: Announce,
    progress: Progress | None = None,
) -> RunCounts:
    """Ask all items of a plan that `out` has no answer to.

    Args:
        asker: the model.
        plan: items by configuration, in the order in which they are asked.
        images: folder of the pages.
        out: the RUN; answers go to `<config>/step-final.jsonl`.
        announce: told the predicted time once, before the first item if an earlier run has measured
            some, else after the first three. What it raises ends the run.
        progress: told after each item.

    Raises:
        ParameterError: `out` holds answers of another model or mode.
        PulseEdgeError: the model failed, or a file cannot be written.
    """
    counts = RunCounts()
    total = sum(map(len, plan.values()))
    files = {config: AnswersFile(out / config / FINAL) for config in plan}
    try:
        clock = _Clock(total, announce)
        for config, file in files.items():
            _check_lines(file, asker)
            known = [file.lines[item.id] for item in plan[config] if item.id in file.lines]
            counts.before += len(known)
            counts.failed += sum("error" in line["metadata"] for line in known)
            clock.seconds += [t for line in known if (t := _line_seconds(line)) is not None]
        clock.left -= counts.before
        if progress and counts.before:
            progress("asking", counts.before, total)
        for config, file in files.items():
            for item in plan[config]:
                if item.id in file.lines:
                    continue
                clock.check()
                _ask_item(asker, item, images, file, counts, clock)
                if progress:
                    progress("asking", 1, total)
    finally:
        for file in files.values():
            file.close()
    return counts


def _ask_item(
    asker: Asker,
    item: BenchItem,
    images: Path,
    file: AnswersFile,
    counts: RunCounts,
    clock: _Clock,
) -> None:
    begun = time.perf_counter()
    line = answer_line(asker, item, images)
    failed = "error" in line["metadata"]
    if not failed:
        line["metadata"].setdefault("timings", {"total": time.perf_counter() - begun, "ttft": None})
        clock.seconds.append(time.perf_counter() - begun)
    clock.left -= 1
    if file.append(line):
        counts.asked += 1
        counts.failed += failed


def _line_seconds(line: Mapping[str, Any]) -> float | None:
    timings = line["metadata"].get("timings")
    seconds = timings.get("total") if isinstance(timings, dict) else None
    return float(seconds) if isinstance(seconds, int | float) else None


def _check_lines(file: AnswersFile, asker: Asker) -> None:
    """Refuse to mix answers of two models, or of two modes, in one file."""
    for question, line in file.lines.items():
        metadata = line.get("metadata")
        if not isinstance(metadata, dict):
            raise ParameterError(
                f"{file.path}: holds answers of another program; name another --out"
            )
        if line.get("answer_id") != answer_id(asker.identity, question):
            other = str(line.get("model_id"))
            raise ParameterError(
                f"{file.path}: holds answers of another model, {other:.80}; name another --out"
            )
        if metadata.get("mode") != asker.mode:
            raise ParameterError(
                f"{file.path}: was asked in mode {metadata.get('mode')!r:.40}, not {asker.mode}; "
                "use that mode, or name another --out"
            )
