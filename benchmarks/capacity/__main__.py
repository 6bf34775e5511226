"""Carts that one GPU serves: from measured rates by a formula, checked by simulation.

    python -m benchmarks.capacity --per-hour 6 --deadline 10
    python -m benchmarks.capacity --write docs/capacity.md --html capacity.html
    python -m benchmarks.capacity --views 400 --prefill 16000 --decode 290

Arrivals: carts send ECGs independently, at random times of the busiest hour. Service: an engine
does one ECG after the other. Rates come from benchmarks/results/compare.jsonl, or from the options.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.capacity.queueing import most_carts, waiting
from benchmarks.capacity.service import Ecg, Rates, ServiceTime, measured_rates, service_time
from benchmarks.capacity.simulation import PLACES, Scenario, simulate
from benchmarks.report import page as report_page
from benchmarks.report.charts import Curve, lines
from benchmarks.report.page import html_table, markdown

RESULTS = Path(__file__).parent.parent / "results" / "compare.jsonl"
BEGIN, END = "<!-- capacity -->", "<!-- /capacity -->"
FIRST = "engine: machine and precision"
LOADS = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95)
RUSH = 2.0


@dataclass(frozen=True)
class Demand:
    """What is asked of an engine.

    Attributes:
        per_hour: ECGs of a cart in its busiest hour.
        deadline: seconds from the ECG's arrival to its last answer.
        late: share of ECGs that may miss it.
        hours: that are simulated.
    """

    per_hour: float
    deadline: float
    late: float
    hours: int


def carts_table(rates: dict[str, Rates], ecg: Ecg, demand: Demand) -> list[list[str]]:
    """Carts that each engine serves, by formula, and how late they are in a simulation."""
    bound = f"carts at {demand.late:.1%} late"
    rows = [
        [
            FIRST,
            "seconds an ECG",
            bound,
            "load",
            "late, simulated",
            "late, rush x2",
            "p99, simulated",
        ]
    ]
    for name, of in rates.items():
        service = service_time(of, ecg)
        carts = most_carts(service, demand.per_hour, demand.deadline, demand.late)
        if not carts:
            rows.append([name, f"{service.mean:.2f}", "0", *["-"] * 4])
            continue
        load = waiting(carts * demand.per_hour / 3600, service, demand.deadline).load
        even = simulate(
            Scenario(carts, demand.per_hour, hours=demand.hours), service, demand.deadline
        )
        rush = simulate(
            Scenario(carts, demand.per_hour, rush=RUSH, hours=demand.hours),
            service,
            demand.deadline,
        )
        row = [name, f"{service.mean:.2f}", f"{carts:,}", f"{load:.0%}"]
        rows.append([*row, f"{even.late:.2%}", f"{rush.late:.2%}", f"{even.p99:.1f} s"])
    return rows


def check_table(service: ServiceTime, demand: Demand) -> list[list[str]]:
    """The formula against the simulation of one engine at several loads."""
    rows = [["load", "mean wait, formula", "simulated", "late, formula", "simulated", "ECGs"]]
    for load in LOADS:
        carts = max(1, round(load * 3600 / service.mean / demand.per_hour))
        told = waiting(carts * demand.per_hour / 3600, service, demand.deadline)
        seen = simulate(
            Scenario(carts, demand.per_hour, hours=demand.hours), service, demand.deadline
        )
        row = [f"{told.load:.0%}", f"{told.wait:.3f} s", f"{seen.wait:.3f} s"]
        rows.append([*row, f"{told.late:.2%}", f"{seen.late:.2%}", f"{seen.ecgs:,}"])
    return rows


def placing_table(service: ServiceTime, demand: Demand) -> list[list[str]]:
    """Several engines, and three ways to choose one for a new page."""
    rows = [["engines", "carts", "load", *(f"wait / late, {place}" for place in PLACES)]]
    one = most_carts(service, demand.per_hour, demand.deadline, demand.late)
    for engines in (1, 2, 4, 8):
        carts = max(1, one) * engines
        cells = []
        for place in PLACES:
            scenario = Scenario(
                carts, demand.per_hour, engines, place, hours=max(1, demand.hours // engines)
            )
            seen = simulate(scenario, service, demand.deadline)
            cells.append(f"{seen.wait:.2f} s / {seen.late:.2%}")
        rows.append([str(engines), f"{carts:,}", f"{seen.load:.0%}", *cells])
    return rows


def plot(rates: dict[str, Rates], ecg: Ecg, demand: Demand) -> str:
    """Mean seconds from arrival to the last answer over the number of carts, as SVG."""
    curves = []
    for name, of in rates.items():
        service = service_time(of, ecg)
        full = 3600 / service.mean / demand.per_hour
        points = []
        for share in (0.05, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95):
            carts = share * full
            told = waiting(carts * demand.per_hour / 3600, service, demand.deadline)
            points.append((carts, told.wait + service.mean))
        curves.append(Curve(name, points))
    return lines(curves, "carts", "seconds", "Seconds from arrival to the last answer")


def settings(ecg: Ecg, demand: Demand) -> str:
    """In a sentence, what the tables are for."""
    return (
        f"A page of {ecg.views} views and {ecg.page_tokens:,} tokens, {ecg.questions} questions, "
        f"answers of {ecg.answer_tokens:g} tokens (deviation {ecg.spread:.0%}); "
        f"{demand.per_hour:g} ECGs a cart and hour; deadline {demand.deadline:g} s; "
        f"{demand.hours:,} simulated hours."
    )


def tables_of(rates: dict[str, Rates], ecg: Ecg, demand: Demand) -> list[list[list[str]]]:
    """All tables; those of the queue are of the fastest engine."""
    fastest = min((service_time(of, ecg) for of in rates.values()), key=lambda s: s.mean)
    return [
        carts_table(rates, ecg, demand),
        check_table(fastest, demand),
        placing_table(fastest, demand),
    ]


def write_block(page: Path, text: str) -> None:
    """Put a text between the markers of a document.

    Raises:
        click.ClickException: it has no markers.
    """
    old = page.read_text("utf-8")
    if BEGIN not in old or END not in old:
        raise click.ClickException(f"{page} has no lines {BEGIN} and {END}")
    before, _, rest = old.partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def document(title: str, tables: Iterable[Sequence[Sequence[str]]], chart: str) -> str:
    """An HTML page that needs nothing else."""
    parts = [f"<h1>pulse-edge: carts per engine</h1><p>{html.escape(title)}</p>", chart]
    parts += [html_table(table) for table in tables]
    return report_page.document("pulse-edge: capacity", parts)


def _given(views: float | None, prefill: float | None, decode: float | None) -> dict[str, Rates]:
    if views is not None and prefill is not None and decode is not None:
        return {"as given": Rates(views, prefill, decode, "given")}
    if (views, prefill, decode) != (None, None, None):
        raise click.UsageError("--views, --prefill and --decode go together")
    return {}


POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command(context_settings={"show_default": True})
@click.option("--results", type=click.Path(path_type=Path, exists=True), default=RESULTS)
@click.option("--views", type=POSITIVE, help="A second through the tower, instead of records.")
@click.option("--prefill", type=POSITIVE, help="Tokens a second.")
@click.option("--decode", type=POSITIVE, help="Tokens a second, after a page.")
@click.option("--per-hour", type=POSITIVE, default=6.0, help="ECGs of a cart in its busiest hour.")
@click.option("--deadline", type=POSITIVE, default=10.0, help="Seconds to the last answer.")
@click.option("--late", type=click.FloatRange(0, 1, True, True), default=0.01, help="Share.")
@click.option("--questions", type=click.IntRange(min=1), default=3, help="About each ECG.")
@click.option("--answer-tokens", type=POSITIVE, default=100.0, help="Mean of an answer.")
@click.option("--spread", type=click.FloatRange(min=0), default=0.5, help="Deviation / mean.")
@click.option("--hours", type=click.IntRange(min=1), default=200, help="To simulate.")
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--write", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(
    results: Path,
    views: float | None,
    prefill: float | None,
    decode: float | None,
    per_hour: float,
    deadline: float,
    late: float,
    questions: int,
    answer_tokens: float,
    spread: float,
    hours: int,
    page: Path | None,
    write: Path | None,
) -> None:
    """Print carts per engine as Markdown."""
    rates = _given(views, prefill, decode) or measured_rates(results)
    if not rates:
        raise click.ClickException(f"{results} has no whole model's rates; give the three options")
    ecg = Ecg(questions=questions, answer_tokens=answer_tokens, spread=spread)
    demand = Demand(per_hour, deadline, late, hours)
    tables = tables_of(rates, ecg, demand)
    title = settings(ecg, demand)
    sources = "\n".join(
        f"* {name}: {of.views:,.0f} views/s, prefill {of.prefill:,.0f} and decode {of.decode:,.0f} "
        f"tokens/s ({of.source})"
        for name, of in rates.items()
    )
    text = "\n\n".join([title, sources, *map(markdown, tables)])
    if write:
        write_block(write, text)
    if page:
        page.write_text(document(title, tables, plot(rates, ecg, demand)), encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
