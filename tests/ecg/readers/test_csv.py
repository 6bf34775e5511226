"""CSV, with what the caller says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pulse_edge.ecg.readers.registry import CsvTerms, is_recording, read_recording
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import ParameterError, RecordingError

from support.carts.signals import LEADS, eight, millivolts, samples

SIGNALS = samples()
ROWS = np.stack([SIGNALS[lead] for lead in LEADS], axis=1)  # [samples, leads]
TERMS = CsvTerms(500, "5uV", LEADS)


def text_of(rows: object, separator: str = ",", head: str = "", form: str = "%d") -> str:
    lines = [separator.join(form % value for value in row) for row in np.asarray(rows)]
    return "\n".join([*([head] if head else []), *lines, ""])


def read(folder: Path, text: str | bytes, terms: CsvTerms = TERMS) -> Recording:
    path = folder / "table.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_recording(path, terms)


@pytest.mark.parametrize("separator", [",", ";", "\t", " ", ", ", " ; "])
@pytest.mark.parametrize("head", ["", "I,II,III", "time;a;b", "Quillfeather"])
def test_separators_and_names_of_columns(tmp_path: Path, separator: str, head: str) -> None:
    record = read(tmp_path, text_of(ROWS, separator, head))
    assert record.leads == LEADS
    assert np.allclose(record.signals, millivolts(SIGNALS), atol=1e-6)
    assert "Quillfeather" not in repr((record.facts, record.notes))


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("uV", 5), ("µV", 5), ("mV", 0.005), ("nV", 5000), ("V", 5e-6), ("5 uV", 1), ("0.005mV", 1)],
)
def test_units(tmp_path: Path, unit: str, factor: float) -> None:
    text = text_of(ROWS * factor, form="%.9g")
    record = read(tmp_path, text, CsvTerms(500, unit, LEADS))
    assert np.allclose(record.signals, millivolts(SIGNALS), atol=1e-6)


def test_decimal_commas_and_line_ends_of_windows(tmp_path: Path) -> None:
    text = text_of(ROWS * 0.005, ";", form="%.3f").replace(".", ",").replace("\n", "\r\n")
    record = read(tmp_path, "\ufeff" + text, CsvTerms(500, "mV", LEADS))
    assert np.allclose(record.signals, millivolts(SIGNALS), atol=1e-6)


def test_a_column_may_be_skipped_and_limb_leads_are_derived(tmp_path: Path) -> None:
    rows = np.column_stack([np.arange(5000), np.stack(list(eight(SIGNALS).values()), axis=1)])
    record = read(tmp_path, text_of(rows), CsvTerms(500, "5uV", ("-", *eight(SIGNALS))))
    assert record.derived == ("III", "aVR", "aVL", "aVF")
    assert record.cart.format == "CSV"


def test_empty_cells_are_gaps(tmp_path: Path) -> None:
    lines = text_of(ROWS).splitlines()
    for number in range(1000, 1200):
        lines[number] = "," + lines[number].partition(",")[2]
    record = read(tmp_path, "\n".join(lines))
    assert np.isnan(record.signals[0][1000:1200]).all()
    assert "With gaps: I." in record.notes


def test_a_long_table_is_cut_and_said(tmp_path: Path) -> None:
    record = read(tmp_path, text_of(np.tile(ROWS, (3, 1))))
    assert record.signals.shape == (12, 5001)
    assert "The recording lasts 30.0 s; a page shows at most the first 10 s." in record.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no samples"),
        ("I,II\n", "holds no samples"),
        ("1,2\n", "line 1 has 2 columns for 12 leads; expected a lead for each column"),
        ("\n".join(["1," * 11 + "1"] * 3 + ["x," * 11 + "1"]), "line 4, column 1 is no number"),
        ("\n".join(["1," * 11 + "1"] * 3 + ["1_0," * 11 + "1"]), "line 4, column 1 is no number"),
        (b"\xff\xfe\x00\x80" * 50, "not a CSV file: it is no text"),
        (text_of(ROWS * 1000), r"lies between .*a factor of 0.001 would make them plausible"),
        (text_of(ROWS * 1e-4, form="%.9g"), r"spans .*a factor of 1000 would make them plausible"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("rate", "unit", "leads"),
    [
        (0, "mV", LEADS),
        (float("nan"), "mV", LEADS),
        (1e9, "mV", LEADS),
        (500, "", LEADS),
        (500, "mmHg", LEADS),
        (500, "0mV", LEADS),
        (500, "1.2.3mV", LEADS),
        (500, "mv", LEADS),
        (500, "MV", LEADS),
        (500, "mV", ()),
        (500, "mV", ("-", "-")),
        (500, "mV", ("I", "")),
        (500, "mV", ("I",) * 65),
    ],
)
def test_terms_that_are_not_legal(rate: float, unit: str, leads: tuple[str, ...]) -> None:
    with pytest.raises(ParameterError, match=r"CSV (rate|unit|leads).*expected"):
        CsvTerms(rate, unit, leads)


def test_without_terms_the_message_says_which(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text_of(ROWS))
    assert is_recording(path, path.read_bytes()[:100])
    with pytest.raises(RecordingError, match="give them, as --csv-rate 500 --csv-unit uV --csv-le"):
        read_recording(path)
