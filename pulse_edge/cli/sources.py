"""Options that say how a file is read: a page of several, and what a CSV file does not say."""

from __future__ import annotations

import functools
from collections.abc import Callable
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


def source_options(command: Command) -> Command:
    """--page and the options of CSV; the command receives `source_of`.

    `source_of` takes the path that was given, and returns what a model takes for an image.
    """

    @click.option(
        "--page",
        type=click.IntRange(min=1),
        help="Page of a PDF or TIFF [default: the one that looks like an ECG; the first].",
    )
    @csv_options
    @functools.wraps(command)
    def wrapped(page: int | None, csv: CsvTerms | None, **rest: Any) -> Any:
        return command(source_of=functools.partial(_source, page=page, csv=csv), **rest)

    return wrapped


def _source(path: str, *, page: int | None, csv: CsvTerms | None) -> ImageSource:
    if csv is not None:
        from pulse_edge.ecg.readers.registry import read_recording

        if page is not None:
            raise ParameterError("--page is given with --csv-rate; a CSV file has no pages")
        return read_recording(path, csv)
    if page is not None:
        from pulse_edge.page.numbered import FilePage

        return FilePage(path, page)
    return path


def _terms(rate: float | None, unit: str | None, leads: str | None) -> CsvTerms | None:
    from pulse_edge.ecg.readers.registry import CsvTerms

    if rate is None and unit is None and leads is None:
        return None
    if rate is None or unit is None or leads is None:
        raise ParameterError(
            "a CSV file needs --csv-rate, --csv-unit and --csv-leads; give all three"
        )
    return CsvTerms(rate, unit, tuple(lead.strip() for lead in leads.split(",")))
