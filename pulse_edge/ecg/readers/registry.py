"""The table of waveform formats. A new one is a file here and a row."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pulse_edge.ecg.readers.dicom import is_dicom, read_dicom
from pulse_edge.ecg.readers.dicom_budget import MAX_BYTES
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError
from pulse_edge.guarded import NotRegularError, open_regular, read_upto, reason

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


def is_recording(path: str | PathLike[str], head: bytes) -> bool:
    """Whether a file looks like a waveform recording, by its first bytes or its suffix.

    Args:
        path: of the file. Only its suffix is looked at.
        head: the file's first `HEAD` bytes.
    """
    return _reader(Path(path), head) is not None


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
    try:
        with open_regular(path) as file:
            return read_opened(file, path)
    except FileNotFoundError:
        raise RecordingError(f"{path}: no such file") from None
    except NotRegularError:
        problem = "no such file; it is a folder, a pipe or a device"
        raise RecordingError(f"{path}: {problem}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise RecordingError(f"{path}: cannot be read ({reason(error)})") from None


def read_opened(file: BinaryIO, path: str | PathLike[str]) -> Recording:
    """`read_recording` of a file that is open, from where it stands.

    Args:
        file: of at most `MAX_BYTES`.
        path: its name, which also tells formats apart.

    Raises:
        RecordingError: see `read_recording`.
    """
    path = Path(path)
    try:
        data = read_upto(file, MAX_BYTES + 1)
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({reason(error)})") from None
    if len(data) > MAX_BYTES:
        raise RecordingError(
            f"{path}: over the {MAX_BYTES >> 20} MiB accepted; a page shows 10 s: store a part"
        )
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
