"""The table of waveform formats. A new one is a file here and a row."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pulse_edge.ecg.readers.aecg import is_aecg, read_aecg
from pulse_edge.ecg.readers.csv import CsvTerms as CsvTerms
from pulse_edge.ecg.readers.csv import read_csv
from pulse_edge.ecg.readers.dicom import is_dicom, pdf_of_dicom, read_dicom
from pulse_edge.ecg.readers.dicom_budget import MAX_BYTES
from pulse_edge.ecg.readers.edf import is_edf, read_edf
from pulse_edge.ecg.readers.library import EXTRA
from pulse_edge.ecg.readers.muse import is_muse, read_muse
from pulse_edge.ecg.readers.scp import is_scp, read_scp
from pulse_edge.ecg.readers.sierra import is_sierra, read_sierra
from pulse_edge.ecg.readers.wfdb import header_beside, is_wfdb, read_wfdb, read_wfdb_bytes
from pulse_edge.ecg.recorded_file import RecordedFile
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError
from pulse_edge.guarded import NotRegularError, open_regular, read_upto, reason

HEAD = 16_384  # bytes of a file that `sniff` gets; XML may begin with comments
CSV_SUFFIX = ".csv"


class Reader(NamedTuple):
    """A waveform format.

    Attributes:
        name: what messages call it.
        suffixes: how its files' names end, in lower case. What a file is, its content decides.
        sniff: whether a file's first `HEAD` bytes are of this format.
        read: reads a file's bytes; takes its name for messages; raises `RecordingError`, or
            `ImportError` without its package.
        extra: the extra of pulse-edge that installs its package.
        read_beside: reads a file that needs others of its folder; takes its path.
        by_name: whether a file that only its name tells is read, and called damaged.
    """

    name: str
    suffixes: tuple[str, ...]
    sniff: Callable[[bytes], bool]
    read: Callable[[bytes, str], Recording]
    extra: str
    read_beside: Callable[[bytes, Path], Recording] | None = None
    by_name: bool = False


READERS = (
    Reader("DICOM", (".dcm", ".dicom"), is_dicom, read_dicom, "ecg", by_name=True),
    Reader("GE MUSE XML", (".xml",), is_muse, read_muse, EXTRA),
    Reader("HL7 aECG", (".xml",), is_aecg, read_aecg, EXTRA),
    Reader("Philips Sierra XML", (".xml",), is_sierra, read_sierra, EXTRA),
    Reader("SCP-ECG", (".scp",), is_scp, read_scp, EXTRA),
    Reader("EDF", (".edf",), is_edf, read_edf, EXTRA),
    Reader("WFDB", (".hea",), is_wfdb, read_wfdb_bytes, EXTRA, read_wfdb),
)


def is_recording(path: str | PathLike[str], head: bytes) -> bool:
    """Whether a file looks like a waveform recording, by its first bytes or its suffix.

    Args:
        path: of the file. Only its suffix is looked at, and whether a header names it.
        head: the file's first `HEAD` bytes.
    """
    if _reader(head) is not None:
        return True
    suffix = Path(path).suffix.lower()
    known = {CSV_SUFFIX, *(suffix for row in READERS for suffix in row.suffixes)}
    return suffix in known or (suffix == ".dat" and header_beside(Path(path)) is not None)


def read_recording(path: str | PathLike[str], csv: CsvTerms | None = None) -> Recording:
    """Read a recording in one of the formats of `READERS`, or CSV.

    Args:
        path: of a regular file of at most `MAX_BYTES`. Of a WFDB record, the header or a file of
            samples.
        csv: what a CSV file does not say; the file is then read as CSV.

    Returns:
        What a page can show of it: the first 10 s.

    Raises:
        RecordingError: there is no such file, its format is not known, it is damaged or cannot be
            an ECG, or what reads it is not installed.
    """
    try:
        with open_regular(path) as file:
            return read_opened(file, path, csv)
    except FileNotFoundError:
        raise RecordingError(f"{path}: no such file") from None
    except NotRegularError:
        problem = "no such file; it is a folder, a pipe or a device"
        raise RecordingError(f"{path}: {problem}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise RecordingError(f"{path}: cannot be read ({reason(error)})") from None


def read_opened(
    file: BinaryIO, path: str | PathLike[str], csv: CsvTerms | None = None
) -> Recording:
    """`read_recording` of a file that is open, from where it stands.

    Args:
        file: of at most `MAX_BYTES`.
        path: its name, for messages, and for files beside it.
        csv: see `read_recording`.

    Raises:
        RecordingError: see `read_recording`.
    """
    path = Path(path)
    try:
        size = os.fstat(file.fileno()).st_size
        data = read_upto(file, MAX_BYTES + 1) if size <= MAX_BYTES else b""
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({reason(error)})") from None
    if max(size, len(data)) > MAX_BYTES:
        raise RecordingError(
            f"{path}: over the {MAX_BYTES >> 20} MiB accepted; a page shows 10 s: store a part"
        )
    if csv is not None:
        return _stamped(read_csv(data, csv, str(path)), "CSV", data)
    reader = _reader(data[:HEAD]) or _reader_by_name(path)
    if reader is not None:
        return _read_with(reader, data, str(path), path)
    header = header_beside(path)
    if header is not None:
        return read_recording(header)
    if path.suffix.lower() == CSV_SUFFIX:
        raise RecordingError(
            f"{path}: a CSV file does not say its rate, unit and leads; give them, as --csv-rate "
            "500 --csv-unit uV --csv-leads I,II,V1"
        )
    formats = ", ".join(f"{row.name} ({' '.join(row.suffixes)})" for row in READERS)
    raise RecordingError(f"{path}: not a waveform recording in a known format; known: {formats}")


def embedded_pdf(data: bytes) -> bytes | None:
    """The PDF that a recording's file holds in the place of signals.

    Args:
        data: of a file of any kind.

    Returns:
        None if it holds none, or what reads it is not installed.
    """
    try:
        return pdf_of_dicom(data)
    except ImportError:
        return None


def read_bytes(data: bytes) -> Recording | None:
    """A recording that came without a path.

    Args:
        data: of a file of any kind.

    Returns:
        None if its first bytes are those of no waveform format.

    Raises:
        RecordingError: see `read_recording`.
    """
    reader = _reader(data[:HEAD])
    if reader is None:
        return None
    return _read_with(reader, data, f"{reader.name} recording")


def _read_with(reader: Reader, data: bytes, source: str, path: Path | None = None) -> Recording:
    try:
        if reader.read_beside is not None and path is not None:
            return _stamped(reader.read_beside(data, path), reader.name, data)
        return _stamped(reader.read(data, source), reader.name, data)
    except ImportError as error:
        package = error.name or str(error)
        install = f"pip install 'pulse-edge[{reader.extra}]'"
        raise RecordingError(f"{source}: {reader.name} needs {package}: {install}") from error


def _stamped(recording: Recording, form: str, data: bytes) -> Recording:
    """The recording with the file that it was read from. Of several files it is the header."""
    return replace(recording, file=RecordedFile.of(form, data))


def _reader(head: bytes) -> Reader | None:
    return next((row for row in READERS if row.sniff(head)), None)


def _reader_by_name(path: Path) -> Reader | None:
    named = (row for row in READERS if row.by_name and path.suffix.lower() in row.suffixes)
    return next(named, None)
