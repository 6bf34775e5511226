"""Random deadlines: by how much answers are late, how fast refusals are, how good predictions.

    python -m benchmarks.deadlines my-bundle --count 1000
    python -m benchmarks.deadlines --clients 1 --json

Deadlines are a tenth to twice what such a request takes alone, at random. A quarter as many
requests have a deadline that nobody feels. They tell how good the predictions are: only whole
answers do, and hurried ones are cut off. The process remembers nothing of earlier ones.
"""

from __future__ import annotations

import json
import os
import random
import sys
from datetime import UTC, datetime
from typing import Any

import click

import pulse_edge
from benchmarks.deadlines import KIND, SCHEMA
from benchmarks.deadlines.bystander import bystander
from benchmarks.deadlines.cases import UNHURRIED, NumberedPages, random_cases
from benchmarks.deadlines.hurry import HurriedRun
from benchmarks.deadlines.punctuality import bars, rows_of_hurry, summarise_hurry
from pulse_edge import state
from pulse_edge import system as machine
from pulse_edge.errors import PulseEdgeError
from pulse_edge.measure.tables import table


def text_of(record: dict[str, Any]) -> str:
    """A record for people."""
    host, figures, plan = record["machine"], record["figures"], record["plan"]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    alone = ", ".join(f"{name} {1e3 * s:.0f} ms" for name, s in record["alone"].items())
    longest = ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in figures["longest"].items())
    ended = ", ".join(f"{name} {count}" for name, count in sorted(figures["ended"].items()))
    verdicts = {True: "met", False: "MISSED", None: "not measured"}
    return "\n".join(
        (
            f"{record['bundle']} on {host['name']}, {host['usable_cores']} cores, load "
            f"{host['load_average']} to {record['load_average_after']}, threads {plan['threads']}, "
            f"{plan['clients']} clients, seed {plan['seed']}",
            versions,
            f"alone: {alone}",
            f"{figures['hurried']} hurried requests, {figures['in_time']} answers in time: {ended}",
            f"longest: {longest}",
            "",
            table(rows_of_hurry(figures)),
            "",
            ", ".join(f"{name} {verdicts[met]}" for name, met in record["bars"].items()),
        )
    )


@click.command(context_settings={"show_default": True})
@click.argument("bundle", required=False)
@click.option("--count", default=1000, type=click.IntRange(min=1), help="Hurried requests.")
@click.option("--clients", default=2, type=click.IntRange(min=1), help="That ask at once.")
@click.option("--alone", default=5, type=click.IntRange(min=1), help="Of each kind, before.")
@click.option("--threads", default=1, type=click.IntRange(min=1), help="Of the engine.")
@click.option("--seed", default=0)
@click.option("--json", "as_json", is_flag=True, help="Print the record instead of a table.")
def main(
    bundle: str | None,
    count: int,
    clients: int,
    alone: int,
    threads: int,
    seed: int,
    as_json: bool,
) -> None:
    """Ask BUNDLE, by default the one inside the package, with random deadlines."""
    os.environ[state.VARIABLE] = state.OFF
    host = machine.describe()
    cases = random_cases(count, random.Random(seed))
    try:
        model = pulse_edge.load(bundle, threads=threads)
        run = HurriedRun(model, NumberedPages())
        run.measure_alone(alone)
        length = round((1 + UNHURRIED) * count)
        with bystander() as lateness, click.progressbar(length=length, file=sys.stderr) as bar:
            outcomes = run.ask_all(cases, clients, bar.update)
    except PulseEdgeError as error:
        raise click.ClickException(str(error)) from None
    figures = summarise_hurry(outcomes, run.probe.longest, lateness)
    record = {
        "kind": KIND,
        "schema": SCHEMA,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "bundle": model.bundle.manifest.checkpoint.name,
        "versions": {"pulse-edge": pulse_edge.__version__, **run.versions},
        "machine": host,
        "load_average_after": machine.describe()["load_average"],
        "plan": {"count": count, "clients": clients, "threads": threads, "seed": seed},
        "alone": {" ".join(kind): seconds for kind, seconds in run.alone.items()},
        "figures": figures,
        "bars": bars(figures),
    }
    click.echo(json.dumps(record) if as_json else text_of(record))


if __name__ == "__main__":
    main()
