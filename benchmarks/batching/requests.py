"""Requests at the same time through a loaded model: tokens a second of 1, 2, 4 and 8 of them.

    python -m benchmarks.batching.requests BUNDLE --append benchmarks/results/batched_requests.jsonl

Every request asks about a page of its own. The pages are prefilled before, so that the time goes
into the questions' few tokens and the decode steps. Numbers of requests are interleaved, in a
random order. The answers are compared with those of one request at a time.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pulse_edge
from benchmarks.batching import REQUESTS_KIND, SCHEMA
from benchmarks.batching.options import numbers_option
from pulse_edge import system as machine
from pulse_edge.assets import REPORT_QUESTION, SAMPLE_PAGE
from pulse_edge.measure.tables import table


@dataclass(frozen=True)
class Batch:
    """Requests that ran at the same time.

    Args:
        answers: of each request.
        seconds: from the first one's submission to the last one's end.
        cpu_seconds: of the process meanwhile. With one thread, and on a busy machine, they tell
            more than `seconds`.
    """

    answers: tuple[pulse_edge.Answer, ...]
    seconds: float
    cpu_seconds: float

    @property
    def tokens(self) -> int:
        """New ones, of all together."""
        return sum(answer.usage.new_tokens for answer in self.answers)

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    @property
    def cpu_rate(self) -> float:
        """Tokens a second of the process's time."""
        return self.tokens / self.cpu_seconds


class Requests:
    """A question about each of several pages.

    Args:
        model: with as many slots.
        count: of the pages.
        tokens: of an answer, at most.
        pages: False asks without a page.
    """

    def __init__(self, model: pulse_edge.Model, count: int, tokens: int, pages: bool) -> None:
        self.model = model
        self._tokens = tokens
        self._looks = [model.look(_page(number)) if pages else None for number in range(count)]
        for number in range(count):  # the next time, only the prompt's last token is computed
            self._ask(number)
        self.alone = [self._ask(number) for number in range(count)]

    def __call__(self, numbers: list[int]) -> Batch:
        """Ask the questions of these numbers at the same time."""
        answers: dict[int, pulse_edge.Answer] = {}

        def ask(number: int) -> None:
            answers[number] = self._ask(number)

        cpu = time.process_time()
        threads = [threading.Thread(target=ask, args=(number,)) for number in numbers]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
        return Batch(tuple(answers[n] for n in numbers), seconds, time.process_time() - cpu)

    def _ask(self, number: int) -> pulse_edge.Answer:
        return self.model.ask(
            self._looks[number],
            REPORT_QUESTION,
            max_new_tokens=self._tokens,
            speculate=False,
        )


def _page(number: int) -> NDArray[np.uint8]:
    """The sample page with another pixel, which makes it another page."""
    pixels = np.array(Image.open(SAMPLE_PAGE).convert("RGB"))
    pixels[0, number] = 254
    return pixels


def measure(
    requests: Requests, counts: list[int], repetitions: int, seed: int
) -> dict[int, list[Batch]]:
    """Batches of each count, interleaved."""
    rng = np.random.default_rng(seed)
    batches: dict[int, list[Batch]] = defaultdict(list)
    for repetition in range(repetitions + 1):
        for count in rng.permutation(counts):
            batch = requests([*range(count)])
            if repetition:  # the first round warms up
                batches[int(count)].append(batch)
    return batches


def points(requests: Requests, batches: dict[int, list[Batch]]) -> list[dict[str, Any]]:
    """Figures of each count; `gain` is tokens a second over those of one request."""
    ones = batches[min(batches)]
    rows = []
    for count in sorted(batches):
        runs = batches[count]
        answers = [answer for batch in runs for answer in batch.answers]
        equal = sum(
            answer.token_ids == requests.alone[number].token_ids
            for batch in runs
            for number, answer in enumerate(batch.answers)
        )
        rows.append(
            {
                "requests": count,
                "count": len(runs),
                **_rates("rate", runs, ones, lambda batch: batch.rate),
                **_rates("cpu_rate", runs, ones, lambda batch: batch.cpu_rate),
                "ttft_median": _median(answers, lambda answer: answer.timings.ttft),
                "tpot_median": _median(answers, lambda answer: answer.timings.tpot),
                "new_tokens": answers[0].usage.new_tokens,
                "prompt_tokens": answers[0].usage.prompt_tokens,
                "answers": len(answers),
                "equal_answers": equal,
            }
        )
    return rows


def _rates(
    name: str, runs: list[Batch], ones: list[Batch], rate: Callable[[Batch], float]
) -> dict[str, float]:
    """The largest and the median rate, and what they gain over single requests."""
    rates = [*map(rate, runs)]
    single = [*map(rate, ones)]
    return {
        f"{name}_max": max(rates),
        f"{name}_median": statistics.median(rates),
        f"{name}_gain_max": max(rates) / max(single),
        f"{name}_gain_median": statistics.median(rates) / statistics.median(single),
    }


def _median(
    answers: list[pulse_edge.Answer], figure: Callable[[pulse_edge.Answer], float | None]
) -> float:
    return statistics.median(figure(answer) or 0.0 for answer in answers)


def shown(record: dict[str, Any]) -> list[list[str]]:
    """A record as a table for people: rates at the fastest and at the median."""
    rows = [["requests", "tokens/s", "gain", "tokens/CPU s", "gain", "TPOT, ms", "equal"]]
    for p in record["points"]:
        rows.append(
            [
                str(p["requests"]),
                f"{p['rate_max']:.1f} / {p['rate_median']:.1f}",
                f"{p['rate_gain_max']:.2f} / {p['rate_gain_median']:.2f}",
                f"{p['cpu_rate_max']:.1f} / {p['cpu_rate_median']:.1f}",
                f"{p['cpu_rate_gain_max']:.2f} / {p['cpu_rate_gain_median']:.2f}",
                f"{1e3 * p['tpot_median']:.2f}",
                f"{p['equal_answers']} of {p['answers']}",
            ]
        )
    return rows


@click.command(context_settings={"show_default": True})
@click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path, exists=True))
@click.option("--counts", default="1,2,4,8", callback=numbers_option, help="Requests at a time.")
@click.option("--tokens", default=64, type=click.IntRange(min=2), help="Of an answer, at most.")
@click.option("--pages/--no-pages", default=True, help="Ask about pages.")
@click.option("--threads", default=2, type=click.IntRange(min=1))
@click.option("--repetitions", default=10, type=click.IntRange(min=1))
@click.option("--seed", default=0)
@click.option("--json", "as_json", is_flag=True, help="Print the record instead of a table.")
@click.option("--append", type=click.Path(path_type=Path, dir_okay=False))
def main(
    path: Path,
    counts: list[int],
    tokens: int,
    pages: bool,
    threads: int,
    repetitions: int,
    seed: int,
    as_json: bool,
    append: Path | None,
) -> None:
    """Ask a model with BUNDLE several questions at a time."""
    slots = max(counts)
    model = pulse_edge.load(path, threads=threads, slots=slots)
    load_before = machine.describe()["load_average"]
    resident = machine.peak_memory()
    requests = Requests(model, slots, tokens, pages)
    batches = measure(requests, counts, repetitions, seed)
    manifest = model.bundle.manifest
    text = manifest.model.text
    record = {
        "kind": REQUESTS_KIND,
        "schema": SCHEMA,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe() | {"load_average": load_before},
        "engine": model.engine.describe(),
        "bundle": manifest.checkpoint.name,
        "precision": manifest.precision.name,
        "kv_cache": manifest.precision.kv_cache,
        "hidden": text.hidden,
        "layers": text.layers,
        "peak_bytes": machine.peak_memory(),
        "peak_bytes_before": resident,
        "points": points(requests, batches),
    }
    if append:
        append.parent.mkdir(parents=True, exist_ok=True)
        with append.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    click.echo(json.dumps(record) if as_json else table(shown(record)))


if __name__ == "__main__":
    main()
