"""`pulse-edge bench`: latency and memory of bundles on this machine."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import click

from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.cli.failure import FORMATS as FAILURE_FORMATS
from pulse_edge.cli.failure import PARENT
from pulse_edge.cli.options import capped_threads, default_bundle, numbers, options_from
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show, show_json, show_text
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import PulseEdgeError

FORMATS = ("text", "json", "jsonl", "csv", "md")  # llama-bench's, and text
ENGINE_FIELDS = [f.name for f in dataclasses.fields(EngineOptions) if f.name != "threads"]
START = "from pulse_edge.cli import main; main()"


@click.command("bench")
@click.argument("bundles", metavar="[BUNDLE]...", nargs=-1)
@click.option("--image", type=click.Path(), help="Page to ask about [default: a sample page].")
@click.option("-r", "--repetitions", type=int, help="Of every measurement [default: 5].")
@click.option(
    "--warmup",
    type=int,
    help="Repetitions before those, thrown away; more follow until two in a row take as long. "
    "0: none [default: 1].",
)
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
@click.option("--quick", is_flag=True, help="A smoke test: short measurements, rough figures.")
@click.option(
    "--threads",
    callback=numbers,
    default="0",
    show_default=True,
    help="CPU threads, or a list such as 1,2; 0 lets the engine choose.",
)
@options_from(EngineOptions, "options", ENGINE_FIELDS)
@click.option(
    "--goodput",
    "goodputs",
    metavar="KEY:VALUE ...",
    multiple=True,
    help="Objectives in milliseconds, as vLLM's: ttft, tpot and e2el, such as ttft:3000 tpot:100.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="What to print.",
)
@click.option("--json", "output", flag_value="json", help="The same as -o json.")
@click.option("--csv", "output", flag_value="csv", help="The same as -o csv.")
@click.option("--markdown", "output", flag_value="md", help="The same as -o md.")
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
    help="A record (JSON), or the last one of the same bundle and options in a file (JSONL).",
)
@click.option(
    "--fail-over",
    default="10%",
    show_default=True,
    help="Exit with 9 where a median is worse by more, beyond its bootstrap interval.",
)
def bench_command(
    bundles: tuple[str, ...],
    image: str | None,
    quick: bool,
    threads: tuple[int, ...],
    options: EngineOptions,
    goodputs: tuple[str, ...],
    output: str | None,
    append: str | None,
    compare: str | None,
    fail_over: str,
    **counts: Any,
) -> None:
    """Measure latency and memory of each BUNDLE on this machine, from a whole request down to the
    engine.

    Several bundles, or several numbers of threads, are measured one after the other, each in a
    process of its own. Ctrl-C prints what was measured until then. --compare gives no verdict
    (exit code 14) where the machine was busy with other work.
    """
    from pulse_edge.measure import baseline, bench, goodput, sweep

    # Mistakes are found before the minutes of measuring, not after them.
    named = {name: value for name, value in counts.items() if value is not None}
    settings = dataclasses.replace(sweep.QUICK if quick else sweep.FULL, **named)
    bundles, more = _objectives_apart(bundles, bool(goodputs))
    slo = goodput.objectives([*goodputs, *more])
    variants = [
        (bundle, dataclasses.replace(options, threads=count))
        for bundle in bundles or (str(default_bundle()),)
        for count in dict.fromkeys(map(capped_threads, threads or (0,)))
    ]
    output = output or "text"  # click 8.2 takes None from the flags that name the same parameter
    against = None if compare is None else baseline.Baseline(compare, fail_over)
    if append is not None:
        baseline.append(append)
    if len(variants) == 1:
        page = SAMPLE_PAGE if image is None else image
        with Status() as status:
            records = [bench.run(*variants[0], settings, page, status, slo)]
        _finish(records[0], records, output, append)
        if records[0]["interrupted"]:
            raise KeyboardInterrupt
    else:
        shared = [*_arguments(image, quick, named), *_goodput_arguments(slo)]
        records, code = _each_in_a_child(variants, shared, output in FAILURE_FORMATS)
        _finish(records, records, output, append)
        if code:
            sys.exit(code)  # the child has said why
    if against is not None:
        _compare(against, records, quiet=output != "text")


def _finish(
    as_json: Any, records: Sequence[dict[str, Any]], output: str, append: str | None
) -> None:
    """Print the records, and add them to a file.

    Args:
        as_json: what JSON shows: the one record, or a list of several.
        records: at least one, or nothing is printed.
        output: one of `FORMATS`.
        append: the file; None for none.
    """
    from pulse_edge.measure import baseline, formats, tables

    if not records:
        return
    if output == "json":
        show_json(as_json)
    elif output == "jsonl":
        show_text(formats.json_lines(records), end="")
    elif output == "csv":
        show_text(formats.csv_text(records), end="")
    elif output == "md":
        show_text(formats.markdown_text(records), end="")
    else:
        show_text("\n\n\n".join(tables.record_text(record) for record in records))
    if output in ("csv", "md"):  # a table of figures alone
        for line in dict.fromkeys(line for record in records for line in tables.doubts(record)):
            show(f"warning: {line}", err=True)
    if append is not None:
        for record in records:
            baseline.append(append, record)


def _compare(against: Any, records: Sequence[dict[str, Any]], quiet: bool) -> None:
    """Show every comparison, then raise the first failure; a regression before no verdict.

    Args:
        against: a `Baseline`.
        records: of this call.
        quiet: the tables go to stderr, because stdout holds the records.
    """
    failures: list[PulseEdgeError] = []
    for record in records:
        show_text(against.table(record), err=quiet)
        try:
            against.check(record)
        except PulseEdgeError as failure:
            failures.append(failure)
    if failures:
        raise min(failures, key=lambda failure: failure.exit_code)


def _objectives_apart(
    words: tuple[str, ...], wanted: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(bundles, objectives): `--goodput ttft:3000 tpot:100` is one option with vLLM."""
    from pulse_edge.measure.goodput import METRICS

    pairs = tuple(w for w in words if wanted and w.partition(":")[0] in METRICS and ":" in w)
    return tuple(w for w in words if w not in pairs), pairs


def _arguments(image: str | None, quick: bool, counts: dict[str, Any]) -> list[str]:
    """The options that say how much to measure, as on the command line."""
    return [*["--quick"] * quick, *_as_options(counts | {"image": image})]


def _goodput_arguments(slo: dict[str, float]) -> list[str]:
    return [f"--goodput={metric}:{limit!r}" for metric, limit in slo.items()]


def _as_options(values: dict[str, Any]) -> list[str]:
    """Options from values by name; a None is left out."""
    return [
        f"--{name.replace('_', '-')}="
        + (",".join(map(str, value)) if isinstance(value, tuple) else str(value))
        for name, value in values.items()
        if value is not None
    ]


def _each_in_a_child(
    variants: Sequence[tuple[str, EngineOptions]], shared: list[str], as_json: bool
) -> tuple[list[dict[str, Any]], int]:
    """Measure each variant in a process of its own.

    Peak memory is a process's, and a library keeps the memory and threads that it took.

    Args:
        variants: bundles, and how to run them.
        shared: further arguments.
        as_json: whether a child shows its error as JSON.

    Returns:
        The records, and the exit code of the child that failed or was interrupted, at which this
        stops; 0 if none was.
    """
    variables = os.environ | {PARENT: "json" if as_json else "text"}
    records = []
    for bundle, options in variants:
        own = _as_options(dataclasses.asdict(options))
        command = [sys.executable, "-c", START, "bench", "--json", *own, *shared, "--", bundle]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables)
        out = _output_of(child)
        records += [json.loads(out)] if out else []
        if child.returncode:
            return records, child.returncode if child.returncode > 0 else 128 - child.returncode
    return records, 0


def _output_of(child: subprocess.Popen[str]) -> str:
    """What a child prints. It is interrupted if we are, and then prints what it has."""
    try:
        return child.communicate()[0]
    except BaseException:
        child.send_signal(signal.SIGINT)  # a second one from the terminal changes nothing
        return child.communicate()[0]
