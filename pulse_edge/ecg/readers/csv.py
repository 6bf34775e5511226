"""CSV: a table of numbers, whose rate, unit and leads the caller gives."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

import numpy as np

from pulse_edge.ecg.cart import cart_report
from pulse_edge.ecg.coverage import drawn_samples
from pulse_edge.ecg.readers.library import MILLIVOLTS, StoredLead, recording_of_leads
from pulse_edge.ecg.recording import Recording, check_rate
from pulse_edge.errors import ParameterError, RecordingError

FORM = "CSV"
SKIPPED = "-"  # in the place of a lead's name: a column that is no lead
MAX_BYTES = 64 << 20
MAX_COLUMNS = 64
MAX_LINE = 65_536  # bytes
_UNIT = re.compile(r"(?P<size>[0-9.]+(?:e-?\d+)?)?\s*(?P<unit>[nuµμm]?V)")
_COMMA = re.compile(r"(?<=\d),(?=\d)")


@dataclass(frozen=True)
class CsvTerms:
    """What a CSV file does not say.

    Args:
        rate: samples per second.
        unit: of its numbers: nV, uV, mV or V, or so much of it a count, as "4.88uV".
        leads: names of its columns, in order; "-" is a column that is no lead.

    Raises:
        ParameterError: a term is missing or not legal.
    """

    rate: float
    unit: str
    leads: tuple[str, ...]

    def __post_init__(self) -> None:
        try:
            check_rate(self.rate, "CSV rate")
        except RecordingError as error:
            raise ParameterError(str(error)) from None
        if not 0 < self.step < 1e6:
            legal = ", ".join(MILLIVOLTS)
            raise ParameterError(
                f"CSV unit {self.unit!r:.40}; expected {legal}, or so much of it a count: 4.88uV"
            )
        named = [lead for lead in self.leads if lead != SKIPPED]
        if (
            not named
            or not all(lead.strip() for lead in self.leads)
            or len(self.leads) > MAX_COLUMNS
        ):
            raise ParameterError(
                f"CSV leads {','.join(self.leads)!r:.80}; expected a name for each column, as "
                "I,II,V1; - skips a column"
            )

    @property
    def step(self) -> float:
        """mV of 1; 0 if the unit is none."""
        match = _UNIT.fullmatch(self.unit.strip())
        if match is None:
            return 0.0
        try:
            size = float(match["size"] or 1)
        except ValueError:
            return 0.0
        return size * MILLIVOLTS[match["unit"].replace("µ", "u").replace("μ", "u")]


def read_csv(data: bytes, terms: CsvTerms, source: str) -> Recording:
    """Read the beginning of a CSV file: a line of numbers for each sample, a column for each lead.

    Columns are separated by commas, semicolons, tabs or spaces. With semicolons or tabs, a comma
    may be the decimal mark. A first line of names is left out; an empty cell is a gap.

    Args:
        data: of the file.
        terms: what the file does not say.
        source: its name, for messages.

    Raises:
        RecordingError: a cell is no number, a line has another number of columns, or the signals
            cannot be an ECG.
    """
    if len(data) > MAX_BYTES:
        raise RecordingError(f"{source}: over {MAX_BYTES >> 20} MiB; a page shows 10 s")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RecordingError(f"{source}: not a CSV file: it is no text; expected numbers") from None
    lines = text.splitlines()
    named = bool(lines) and not _is_numbers(lines[0])
    count = len(lines) - named
    shown = drawn_samples(terms.rate)
    rows = [
        _csv_numbers(line, len(terms.leads), number, source)
        for number, line in enumerate(islice(lines, named, named + shown), 1 + named)
        if line.strip()
    ]
    if not rows:
        raise RecordingError(f"{source}: the recording holds no samples")
    table = np.asarray(rows, np.float64).T * terms.step
    leads = [
        StoredLead(lead.strip(), row.astype(np.float32), terms.rate, 0.0)
        for lead, row in zip(terms.leads, table, strict=True)
        if lead != SKIPPED
    ]
    seconds = count / terms.rate
    return recording_of_leads(leads, source, cart_report(FORM), (), seconds)


def _cells(line: str) -> list[str]:
    for separator in (";", "\t"):
        if separator in line:
            return [_COMMA.sub(".", cell.strip()) for cell in line.split(separator)]
    if "," in line:
        return [cell.strip() for cell in line.split(",")]
    return line.split()


def _is_numbers(line: str) -> bool:
    return all(_csv_number(cell) is not None for cell in _cells(line[:MAX_LINE]))


def _csv_number(cell: str) -> float | None:
    if not cell:
        return float("nan")
    if "_" in cell:  # Python's own way to write numbers
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _csv_numbers(line: str, columns: int, number: int, source: str) -> list[float]:
    cells = _cells(line[:MAX_LINE])
    if len(cells) != columns:
        raise RecordingError(
            f"{source}: line {number} has {len(cells)} columns for {columns} leads; expected a "
            "lead for each column; - skips one"
        )
    values = [_csv_number(cell) for cell in cells]
    for column, value in enumerate(values, 1):
        if value is None:
            raise RecordingError(
                f"{source}: line {number}, column {column} is no number; expected numbers; the "
                "names of columns may stand in the first line only"
            )
    return [value for value in values if value is not None]
