"""The table of waveform formats. A new one is a file here and a row."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from pulse_edge.ecg.readers.dicom import is_dicom, read_dicom
from pulse_edge.ecg.recording import Recording
from pulse_edge.ecg.recording_file import read_all, read_head
from pulse_edge.errors import RecordingError

HEAD = 256  # bytes of a file that `sniff` gets


class Reader(NamedTuple):
    """A waveform format.

    Attributes:
        name: what messages call it.
        suffixes: how its files' names end, in lower case.
        sniff: whether a file's first `HEAD` bytes are of this format.
        read: reads a file's bytes; takes its name for messages; raises `RecordingError`, or
            `ImportError` without its package.
        extra: the extra of pulse-edge that installs its package.
    """

    name: str
    suffixes: tuple[str, ...]
    sniff: Callable[[bytes], bool]
    read: Callable[[bytes, str], Recording]
    extra: str


READERS = (Reader("DICOM", (".dcm", ".dicom"), is_dicom, read_dicom, "ecg"),)


def is_recording(path: str | PathLike[str]) -> bool:
    """Whether a file looks like a waveform recording, by its first bytes or its suffix.

    Never raises: whoever reads the file says what is wrong with it.
    """
    path = Path(path)
    try:
        head = read_head(path, HEAD)
    except RecordingError:
        head = b""  # the suffix decides
    return _reader(path, head) is not None


def read_recording(path: str | PathLike[str]) -> Recording:
    """Read a recording in one of the formats of `READERS`.

    Args:
        path: of a regular file of at most `MAX_BYTES`.

    Returns:
        What a page can show of it: the first 10 s.

    Raises:
        RecordingError: there is no such file, its format is not known, it is damaged or cannot be
            an ECG, or what reads it is not installed.
    """
    path = Path(path)
    data = read_all(path)
    reader = _reader(path, data[:HEAD])
    if reader is None:
        formats = ", ".join(f"{row.name} ({' '.join(row.suffixes)})" for row in READERS)
        raise RecordingError(
            f"{path}: not a waveform recording in a known format; known: {formats}"
        )
    try:
        return reader.read(data, str(path))
    except ImportError as error:
        package = error.name or str(error)
        install = f"pip install 'pulse-edge[{reader.extra}]'"
        raise RecordingError(f"{path}: {reader.name} needs {package}: {install}") from error


def _reader(path: Path, head: bytes) -> Reader | None:
    by_content = (row for row in READERS if row.sniff(head))
    by_name = (row for row in READERS if path.suffix.lower() in row.suffixes)
    return next(by_content, None) or next(by_name, None)
