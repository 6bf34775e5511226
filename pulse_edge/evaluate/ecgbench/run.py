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

MEASURED = 3  # answers from which the whole time is predicted where no speed is known
BY_RATES = "by the speeds that this machine has measured"
BY_RUN = "as long as the earlier answers of this RUN took"
BY_FIRST = f"as long as the first {MEASURED} took"
UNKNOWN = f"known after {MEASURED} answers, as this machine has no earlier speeds of such requests"


@dataclass(frozen=True)
class RunPrediction:
    """How long the rest of a run takes.

    Attributes:
        items: that are left.
        each_s: mean seconds of an item; None if nothing is known yet.
        source: where that is from, in words.
    """

    items: int
    each_s: float | None
    source: str

    @property
    def seconds(self) -> float | None:
        """Of all items that are left."""
        return None if self.each_s is None else self.items * self.each_s


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
class _Forecast:
    """Announces the whole time: before the first item, or else after the first ones."""

    left: int
    announce: Announce
    seconds: list[float] = field(default_factory=list)
    open: bool = False

    def begin(self, predicted: float | None, earlier: Sequence[float]) -> None:
        """Announce before the first item.

        Args:
            predicted: seconds of all items by the speeds of this machine.
            earlier: seconds of items that this RUN has answered.
        """
        if not self.left:
            return
        if predicted is not None:
            self.announce(RunPrediction(self.left, predicted / self.left, BY_RATES))
        elif len(earlier) >= MEASURED:
            self.announce(RunPrediction(self.left, _mean_seconds(earlier), BY_RUN))
        else:
            self.open = True
            self.announce(RunPrediction(self.left, None, UNKNOWN))

    def check(self) -> None:
        """Announce after the first items. What `announce` raises ends the run."""
        if self.open and self.left and len(self.seconds) >= MEASURED:
            self.open = False
            self.announce(RunPrediction(self.left, _mean_seconds(self.seconds), BY_FIRST))


def _mean_seconds(seconds: Sequence[float]) -> float:
    return sum(seconds) / len(seconds)


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
        announce: told the predicted time before the first item. If nothing is known then, it is
            told that, and the time after the first three. What it raises ends the run.
        progress: told after each item.

    Raises:
        ParameterError: `out` holds answers of another model or mode.
        PulseEdgeError: the model failed, or a file cannot be written.
    """
    counts = RunCounts()
    total = sum(map(len, plan.values()))
    files = {config: AnswersFile(out / config / FINAL) for config in plan}
    try:
        earlier: list[float] = []
        left: list[BenchItem] = []
        for config, file in files.items():
            _check_lines(file, asker)
            known = [file.lines[item.id] for item in plan[config] if item.id in file.lines]
            left += [item for item in plan[config] if item.id not in file.lines]
            counts.before += len(known)
            counts.failed += sum("error" in line["metadata"] for line in known)
            earlier += [t for line in known if (t := _line_seconds(line)) is not None]
        forecast = _Forecast(len(left), announce)
        forecast.begin(asker.predict(left, images) if left else None, earlier)
        if progress and counts.before:
            progress("asking", counts.before, total)
        for item in left:
            forecast.check()
            _ask_item(asker, item, images, files[item.config], counts, forecast)
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
    forecast: _Forecast,
) -> None:
    begun = time.perf_counter()
    line = answer_line(asker, item, images)
    failed = "error" in line["metadata"]
    if not failed:
        line["metadata"].setdefault("timings", {"total": time.perf_counter() - begun, "ttft": None})
        forecast.seconds.append(time.perf_counter() - begun)
    forecast.left -= 1
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
