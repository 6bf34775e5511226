"""`pulse-edge bench`: latency and memory of a bundle on this machine."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.cli.options import default_bundle, engine_options, numbers
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show_json, show_text
from pulse_edge.engines.options import EngineOptions


@click.command("bench")
@click.argument("bundle", required=False)
@click.option("--image", type=click.Path(), help="Page to ask about [default: a sample page].")
@click.option("-r", "--repetitions", type=int, help="Of every measurement [default: 5; quick: 2].")
@click.option("--warmup", type=int, help="Repetitions before those, thrown away [default: 1].")
@click.option(
    "-n",
    "--new-tokens",
    type=int,
    help="Of a request and of a tg run [default: 128; quick: 16].",
)
@click.option(
    "--prompt-lengths",
    callback=numbers,
    help="Of pp runs [default: 128,512,1024,2048,2933; quick: 128].",
)
@click.option(
    "--depths",
    callback=numbers,
    help="Cached tokens before tg runs [default: 0,512,3000; quick: 0].",
)
@click.option("--quick", is_flag=True, help="A smoke test: few, short repetitions; rough figures.")
@engine_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print the record as JSON (docs/bench.schema.json)."
)
@click.option(
    "--append",
    metavar="FILE",
    type=click.Path(),
    help="Add the record to this file, a line of JSON each.",
)
@click.option(
    "--compare",
    metavar="BASELINE",
    type=click.Path(),
    help="A record (JSON), or a file's last (JSONL).",
)
@click.option(
    "--fail-over",
    default="10%",
    show_default=True,
    help="Exit with 9 where a median is worse by more.",
)
def bench_command(
    bundle: str | None,
    image: str | None,
    quick: bool,
    options: EngineOptions,
    as_json: bool,
    append: str | None,
    compare: str | None,
    fail_over: str,
    **counts: Any,
) -> None:
    """Measure latency and memory of BUNDLE on this machine, from a whole request down to the
    engine."""
    from pulse_edge.measure import baseline, bench, sweep, tables

    named = {name: value for name, value in counts.items() if value is not None}
    settings = dataclasses.replace(sweep.QUICK if quick else sweep.FULL, **named)
    # Mistakes in these two are found before the minutes of measuring, not after them.
    against = None if compare is None else baseline.Baseline(compare, fail_over)
    if append is not None:
        baseline.append(append)
    with Status() as status:
        path = default_bundle() if bundle is None else bundle
        page = SAMPLE_PAGE if image is None else image
        record = bench.run(path, options, settings, page, status)
    if as_json:
        show_json(record)
    else:
        show_text(tables.record_text(record))
    if append is not None:
        baseline.append(append, record)
    if against is not None:
        show_text(against.table(record), err=as_json)
        against.check(record)
