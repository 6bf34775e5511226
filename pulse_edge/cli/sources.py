"""Options that say how a file is read: a page of several, and what a CSV file does not say."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulse_edge.errors import ParameterError

if TYPE_CHECKING:
    from pulse_edge.ecg.readers.registry import CsvTerms
    from pulse_edge.page.source import ImageSource

Command = Callable[..., Any]


def csv_options(command: Command) -> Command:
    """--csv-rate, --csv-unit and --csv-leads; the command receives `csv`, `CsvTerms` or None."""

    @click.option("--csv-rate", type=float, help="Samples per second of a CSV file.")
    @click.option(
        "--csv-unit",
        metavar="UNIT",
        help="Unit of a CSV file's numbers: nV, uV, mV, V, or of a count: 4.88uV.",
    )
    @click.option(
        "--csv-leads",
        metavar="NAMES",
        help="Leads of a CSV file's columns, as I,II,V1; - skips a column.",
    )
    @functools.wraps(command)
    def wrapped(
        csv_rate: float | None, csv_unit: str | None, csv_leads: str | None, **rest: Any
    ) -> Any:
        return command(csv=_terms(csv_rate, csv_unit, csv_leads), **rest)

    return wrapped


@dataclass(frozen=True)
class SourceReading:
    """How the file of a command is read.

    Attributes:
        page: of a PDF or TIFF, from 1; None for the reader's own choice.
        csv: what a CSV file does not say; the file is then read as CSV.
    """

    page: int | None = None
    csv: CsvTerms | None = None

    def __call__(self, path: str) -> ImageSource:
        """What a model takes for the image in a file.

        Raises:
            ParameterError: a page of a CSV file is asked for.
            RecordingError: a CSV file that cannot be read.
        """
        if self.csv is not None:
            from pulse_edge.ecg.readers.registry import read_recording

            if self.page is not None:
                raise ParameterError("--page is given with --csv-rate; a CSV file has no pages")
            return read_recording(path, self.csv)
        if self.page is not None:
            from pulse_edge.page.numbered import FilePage

            return FilePage(path, self.page)
        return path

    def of_another(self, path: str) -> SourceReading:
        """How a file is read that somebody names later.

        A page's number was meant for the first file. Terms of CSV hold for every table.

        Args:
            path: of the other file.
        """
        from pulse_edge.ecg.readers.registry import CSV_SUFFIX

        table = Path(path).suffix.lower() == CSV_SUFFIX
        return SourceReading(csv=self.csv if table else None)


def source_options(command: Command) -> Command:
    """--page and the options of CSV; the command receives `source_of`, a `SourceReading`."""

    @click.option(
        "--page",
        type=click.IntRange(min=1),
        help="Page of a PDF or TIFF [default: the one that looks like an ECG; the first].",
    )
    @csv_options
    @functools.wraps(command)
    def wrapped(page: int | None, csv: CsvTerms | None, **rest: Any) -> Any:
        return command(source_of=SourceReading(page, csv), **rest)

    return wrapped


def _terms(rate: float | None, unit: str | None, leads: str | None) -> CsvTerms | None:
    from pulse_edge.ecg.readers.registry import CsvTerms

    if rate is None and unit is None and leads is None:
        return None
    if rate is None or unit is None or leads is None:
        raise ParameterError(
            "a CSV file needs --csv-rate, --csv-unit and --csv-leads; give all three"
        )
    return CsvTerms(rate, unit, tuple(lead.strip() for lead in leads.split(",")))
