"""An export as the command shows it: a bar while it runs."""

from __future__ import annotations

from typing import Unpack

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pulse_export.options import ExportOptions, OptionValues
from pulse_export.pipeline import Advance, Summary, export


def export_with_progress(
    checkpoint: str,
    out: str,
    options: ExportOptions | None = None,
    **values: Unpack[OptionValues],
) -> Summary:
    """`pulse_export.export` with a bar on stderr if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return export(checkpoint, out, options, **values)
    columns = (
        TextColumn("exporting"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:

        def start(total: int) -> Advance:
            task = bar.add_task("export", total=total)
            return lambda amount: bar.advance(task, amount)

        return export(checkpoint, out, options, progress=start, **values)
