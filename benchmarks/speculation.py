"""What prompt lookup saves on reports: pulse-nano's own, and those tokens at another bundle's cost
a step.

    python -m benchmarks.speculation    # pulse-nano: plain and with drafts, page by page
    python -m benchmarks.speculation --replay work/ours/…/int4-128    # through a 7B geometry

Pages are asked for their reports one after the other, as on a ward, so that drafts come from the
reports before. A bundle with random weights writes no reports: its engine runs every step in
earnest, and of each row the reported token is made the likeliest, so that tokens, drafts and their
verification are pulse-nano's, and the time is the bundle's.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.compare import commit
from pulse_edge import load, system
from pulse_edge.arrays import Numbers
from pulse_edge.assets import EMBEDDED, REPORT_QUESTION
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.decode.loop import generate
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.result import Generation
from pulse_edge.engines.engine import Engine, Rows
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.measure import baseline, tables
from pulse_edge.model import Model
from pulse_edge.params import GenerationParams
from pulse_edge.simulation import cases as evaluate
from pulse_edge.text.detokenizer import TextStream

KIND, SCHEMA = "speculation", 1  # of a record
RESULTS = Path(__file__).parent / "results" / "speculation.jsonl"
PROMPT = 32  # positions before a replayed report, random


class Scripted:
    """An engine whose likeliest tokens are a script's, at the cost of the engine inside."""

    def __init__(self, engine: Engine, script: list[int], start: int) -> None:
        self._engine, self._script, self._start = engine, script, start
        self.row_cost, self.capacity = engine.row_cost, engine.capacity
        self.draft_cost, self.most_rows = engine.draft_cost, engine.most_rows

    @property
    def length(self) -> int:
        return self._engine.length

    def rewind(self, length: int) -> None:
        self._engine.rewind(length)

    def rows(self, numbers: Numbers) -> Rows:
        return self._engine.rows(numbers % self._engine.table_rows)

    def choose(self, rows: Rows) -> Numbers:
        """The row of position p gets the script's token p + 1; a row after a wrong draft is never
        looked at.
        """
        at = self._engine.length - self._start
        self._engine.choose(rows)
        ahead = range(at + 1, at + 1 + len(rows))
        return np.array([self._script[min(i, len(self._script) - 1)] for i in ahead])


def replay(
    engine: Engine, eos: int, reports: list[list[int]], ngrams: Ngrams | None
) -> list[float]:
    """Seconds of each report's steps."""
    prompt = np.random.default_rng(0).integers(0, engine.table_rows, PROMPT)
    seconds = []
    for report in reports:
        script = [*report, eos]
        engine.rewind(0)
        logits = np.zeros(len(engine.prefill(engine.rows(prompt))), np.float32)
        logits[script[0]] = 1
        if ngrams is not None:
            ngrams.begin([eos] * 2)
        out, params = Generation(), GenerationParams(max_new_tokens=len(script))
        scripted: Any = Scripted(engine, script, PROMPT)
        start = time.perf_counter()
        steps = generate(scripted, logits, params, (eos,), _NoText(), out, ngrams)
        list(steps)
        seconds.append(time.perf_counter() - start)
        assert out.tokens == report, "a replay gave other tokens"
    return seconds


class _NoText(TextStream):
    """No tokenizer: tokens of one model mean nothing to another."""

    def __init__(self) -> None:
        self.stopped = False

    def push(self, token: int) -> str:
        return ""

    def finish(self) -> str:
        return ""


class Asked(NamedTuple):
    """A report; seconds: after its first token."""

    tokens: list[int]
    seconds: float
    drafted: int
    accepted: int


def ask(model: Model, pages: list[Any], speculate: bool) -> list[Asked]:
    model.forget()
    made = []
    for page in pages:
        answer = model.ask(page, REPORT_QUESTION, max_new_tokens=256, speculate=speculate)
        assert answer.timings.ttft is not None
        after = answer.timings.total - answer.timings.ttft
        usage = answer.usage
        made.append(
            Asked(list(answer.token_ids), after, usage.drafted_tokens, usage.accepted_tokens)
        )
    return made


def record(
    name: str, plain: list[float], fast: list[float], more: dict[str, Any]
) -> dict[str, Any]:
    """speedups: plain / with drafts, of each report in order; the first has nothing to
    draft from.
    """
    speedups = [a / b for a, b in zip(plain, fast, strict=True)]
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "machine": system.describe(),
        "name": name,
        "reports": len(plain),
        "seconds_plain": sum(plain),
        "seconds_drafted": sum(fast),
        "speedup": sum(plain) / sum(fast),
        "median": statistics.median(speedups),
        "least": min(speedups),
        "speedups": [round(s, 3) for s in speedups],
        **more,
    }


@click.command(context_settings={"show_default": True})
@click.option(
    "--model",
    "bundle",
    type=click.Path(path_type=Path),
    default=EMBEDDED,
    help="Writes the reports.",
)
@click.option(
    "--replay",
    "others",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Runs them again; repeatable.",
)
@click.option("--device", default="cpu", help="Of the replays.")
@click.option("--engine", default="auto", help="Of the replays.")
@click.option("--reports", default=12, help="How many pages.")
@click.option("--threads", default=0)
@click.option(
    "-r", "--repetitions", default=3, help="Of the whole sequence of reports; medians are taken."
)
@click.option(
    "--append", "out", type=click.Path(path_type=Path), default=RESULTS, help="[default: results/…]"
)
def main(
    bundle: Path,
    others: tuple[Path, ...],
    device: str,
    engine: str,
    reports: int,
    threads: int,
    repetitions: int,
    out: Path,
) -> None:
    threads = threads or system.physical_cores()
    model = load(bundle, threads=threads, device="cpu")
    pages = [evaluate.heldout_case(index).image for index in range(reports)]
    runs = {
        speculate: [ask(model, pages, speculate) for _ in range(repetitions)]
        for speculate in (False, True)
    }
    tokens = [made.tokens for made in runs[False][0]]
    others_tokens = [[made.tokens for made in run] for both in runs.values() for run in both]
    same = all(found == tokens for found in others_tokens)
    drafted, accepted = (
        sum(getattr(made, name) for made in runs[True][0]) for name in ("drafted", "accepted")
    )
    counts = {"tokens": sum(map(len, tokens)), "drafted": drafted, "accepted": accepted}
    more = {"threads": threads, "identical": same, **counts}
    seconds = {s: [[made.seconds for made in run] for run in found] for s, found in runs.items()}
    plain, fast = (_medians(seconds[s]) for s in (False, True))
    records = [record(model.bundle.manifest.checkpoint.name, plain, fast, more)]
    for other in others:
        opened = open_bundle(other, check_hashes=False)
        text = opened.manifest.model.text
        runs_on = open_engine(opened, EngineOptions(device, threads, context=1024, engine=engine))
        twice: dict[bool, list[list[float]]] = {False: [], True: []}
        for _ in range(repetitions):
            for speculate in (False, True):
                ngrams = Ngrams(model.tokenizer.numbers) if speculate else None
                twice[speculate].append(replay(runs_on, text.eos[0], tokens, ngrams))
        precision = opened.manifest.precision.name
        described = runs_on.describe()
        where = "" if device == "cpu" else f" on {described['device']} by {described['engine']}"
        name = f"{text.layers} x {text.hidden}, {precision}{where}, the same reports replayed"
        plain, fast = (_medians(twice[s]) for s in (False, True))
        records.append(record(name, plain, fast, more))
    out.parent.mkdir(exist_ok=True)
    for made in records:
        baseline.append(out, made)
    click.echo(tables.table(rows_of(records)))


def _medians(runs: list[list[float]]) -> list[float]:
    """Of each report, over repetitions."""
    return [statistics.median(report) for report in zip(*runs, strict=True)]


def rows_of(records: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("prompt lookup", "reports", "tokens the same", "accepted", "speedup", "least")
    ]
    for r in records:
        accepted = f"{r['accepted']} of {r['tokens']}"
        cells = (
            str(r["reports"]),
            "yes" if r["identical"] else "NO",
            accepted,
            f"{r['speedup']:.2f}",
        )
        rows.append((r["name"], *cells, f"{r['least']:.2f}"))
    return rows


if __name__ == "__main__":
    main()
