"""The table of waveform formats. A new one is a file here and a row."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from pulse_edge.ecg.readers.dicom import _read_dicom
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError

# ---- files -------------------------------------------------------------------------------------------------


class Reader(NamedTuple):
    """A file format: how its files' names end, the bytes that mark them at `offset`, and what reads them."""

    name: str
    suffixes: tuple[str, ...]
    offset: int
    magic: bytes
    read: Callable[[Path], Recording]


def is_recording(path: str | PathLike[str]) -> bool:
    """Whether a file looks like a waveform recording, by mark or suffix; reads a few bytes, never raises."""
    return _reader(Path(path)) is not None


def read_recording(path: str | PathLike[str]) -> Recording:
    """Read a recording in one of the formats of `READERS`. Raises `RecordingError`, and nothing else."""
    path = Path(path)
    if not path.is_file():
        raise RecordingError(f"{path}: no such file")
    reader = _reader(path)
    if reader is None:
        known = ", ".join(f"{row.name} ({' '.join(row.suffixes)})" for row in READERS)
        raise RecordingError(f"{path}: not a waveform recording in a known format; known: {known}")
    return reader.read(path)


def _reader(path: Path) -> Reader | None:
    head = b""
    try:
        with open(path, "rb") as file:
            head = file.read(256)
    except OSError:
        pass  # the suffix decides; reading it will say what is wrong
    marked = (row for row in READERS if head[row.offset :].startswith(row.magic))
    named = (row for row in READERS if path.suffix.lower() in row.suffixes)
    return next(marked, None) or next(named, None)


READERS = (Reader("DICOM", (".dcm", ".dicom"), 128, b"DICM", _read_dicom),)
