"""The export with a progress bar."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from . import pipeline


def export_with_progress(checkpoint: str, out: str, **options: Any) -> pipeline.Summary:
    """`pipeline.export`, showing a bar on stderr where that is a terminal."""
    columns = (TextColumn("exporting"), BarColumn(), DownloadColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:

        def start(total: int) -> pipeline.Progress:
            task = bar.add_task("export", total=total)
            return lambda amount: bar.advance(task, amount)

        return pipeline.export(checkpoint, out, progress=start, **options)
