"""Exports and builds as the command shows them."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.cli.status import Status
from pulse_edge.units import size
from pulse_export import pipeline
from pulse_export.plan import builder as engine


def export_with_progress(checkpoint: str, out: str, **options: Any) -> pipeline.Summary:
    """`pipeline.export`, showing a bar on stderr where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return pipeline.export(checkpoint, out, **options)
    columns = (TextColumn("exporting"), BarColumn(), DownloadColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:

        def start(total: int) -> pipeline.Progress:
            task = bar.add_task("export", total=total)
            return lambda amount: bar.advance(task, amount)

        return pipeline.export(checkpoint, out, progress=start, **options)


def build_if_possible(bundle: Bundle, device: str | None, to_stderr: bool) -> None:
    """Build plans for a device, or this machine's GPU; where nothing here can, say what to run where."""
    try:
        builder = engine.choose_builder(bundle, device)
    except engine.CannotBuildHere as error:
        click.echo(f"no plans yet: {error}", err=True)
    else:
        build_with_progress(bundle, builder, to_stderr=to_stderr)


def build_with_progress(
    bundle: Bundle,
    builder: engine.Builder,
    prefill_rows: int | None = None,
    to_stderr: bool = False,
) -> None:
    """`engine.build`, saying beforehand what memory it takes, and afterwards what it made."""
    rows = engine.rows_of(bundle, builder, prefill_rows)
    memory = size(engine.expected_memory(bundle, builder, rows))
    message = f"building for {builder.key}, prompts by {rows:,} tokens; peak memory about {memory}"
    click.echo(message, err=True)
    with Status() as status:
        built = engine.build(bundle, builder, prefill_rows=rows, progress=status)
    for name, bytes_ in built.files.items():
        click.echo(f"  {name:<18} {size(bytes_):>10}", err=to_stderr)
    click.echo(f"{built.path}: plans for {built.key} in {built.seconds:.1f} s", err=to_stderr)
