"""The export with a progress bar."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from . import pipeline


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
