"""WFDB (PhysioNet): a header of text, and files of samples beside it."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pulse_edge.ecg.coverage import PAGE_SECONDS
from pulse_edge.ecg.readers.library import (
    StoredLead,
    guarded,
    known_lead,
    parse_file,
    recording_of_leads,
    report_of,
    stored_lead,
    unreadable,
)
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError
from pulse_edge.guarded import open_regular, read_upto, reason

FORM = "WFDB"
MAX_SIGNALS = 256
MAX_KEPT = 16 << 20  # bytes of a file of samples that 10 s may take
MAX_HEADER = 1 << 20
# Format -> samples of a whole unit, and its bytes. Others are compressed, or not known.
UNITS = {
    8: (1, 1),
    80: (1, 1),
    16: (1, 2),
    61: (1, 2),
    160: (1, 2),
    24: (1, 3),
    32: (1, 4),
    212: (2, 3),
    310: (3, 4),
    311: (3, 4),
}
# The sample that stands for none.
_NOTHING = {
    80: -128,
    16: -(2**15),
    61: -(2**15),
    160: -(2**15),
    24: -(2**23),
    32: -(2**31),
    212: -(2**11),
    310: -(2**9),
    311: -(2**9),
}
_DEFAULT_RATE = 250.0  # Hz (header(5))
_DEFAULT_GAIN = "200"  # counts a mV
_RECORD = re.compile(
    r"(?P<name>[\w-]+)(?P<segments>/\d+)?\s+(?P<signals>\d{1,4})"
    r"(?:\s+(?P<rate>[\d.eE+-]+)\S*(?:\s+(?P<length>\d{1,12}))?.*)?"
)
_SIGNAL = re.compile(
    r"(?P<file>\S+)\s+(?P<format>\d+)(?:x(?P<frame>\d{1,4}))?(?::(?P<skew>\d{1,9}))?"
    r"(?:\+(?P<offset>\d{1,12}))?"
    r"(?:\s+(?P<gain>\S+)(?:\s+(?P<bits>\d+)(?:\s+(?P<zero>-?\d+)(?:\s+(?P<first>-?\d+)"
    r"(?:\s+(?P<sum>-?\d+)(?:\s+(?P<block>\d+)(?:\s+(?P<lead>.*))?)?)?)?)?)?)?"
)
_PLAIN = re.compile(r"[\w-][\w.-]*")  # a file of the same folder


@dataclass(frozen=True)
class WfdbSignal:
    """A line of a header: a signal, and where its samples are."""

    file: str
    form: int
    frame: int  # samples of a frame
    skew: int  # frames
    offset: int  # bytes before the samples
    numbers: tuple[str, ...]  # gain, bits, zero, first value and checksum, as they are written
    lead: str


class WfdbHeader(NamedTuple):
    """A header without its comments, which hold the patient's age, sex and diagnoses.

    Attributes:
        rate: frames per second.
        length: frames; 0 if the header does not say.
        signals: in order.
    """

    rate: float
    length: int
    signals: tuple[WfdbSignal, ...]


def is_wfdb(head: bytes) -> bool:
    """Whether a file's first bytes are those of a WFDB header: a record line and a signal line."""
    lines = _header_lines(head[: head.rfind(b"\n") + 1] or head)[:2]
    if len(lines) < 2 or not _RECORD.fullmatch(lines[0]):
        return False
    if "/" in lines[0].split()[0]:
        return True
    signal = _SIGNAL.fullmatch(lines[1])
    return signal is not None and int(signal["format"]) in {0, *UNITS, 508, 516, 524}


def header_beside(path: Path) -> Path | None:
    """The header that names a file of samples; None if there is none.

    Args:
        path: of a file that may hold samples of WFDB.
    """
    header = path.with_suffix(".hea")
    try:
        with open_regular(header) as file:
            text = read_upto(file, MAX_HEADER)
    except (OSError, ValueError):
        return None
    named = {line.split()[0] for line in _header_lines(text)[1:]}
    return header if is_wfdb(text) and path.name in named else None


def _header_lines(text: bytes) -> list[str]:
    lines = (line.strip() for line in text.decode("latin-1").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def read_wfdb_bytes(_: bytes, source: str) -> Recording:
    """Refuse a header without its folder.

    Raises:
        RecordingError: always.
    """
    raise RecordingError(
        f"{source}: a WFDB header, whose samples lie in other files; give the path of the header, "
        "with its files beside it"
    )


@guarded(FORM)
def read_wfdb(data: bytes, path: Path) -> Recording:
    """Read the beginning of a WFDB record.

    Args:
        data: of the header.
        path: of the header; its folder holds the files of samples.

    Raises:
        RecordingError: a file is damaged, missing or of a kind not read, or there is no ECG.
        ImportError: ecgdatakit is not installed.
    """
    source = str(path)
    header = _wfdb_header(data[:MAX_HEADER], source)
    seconds = 0.0 if not header.length else header.length / header.rate
    shown = math.ceil(PAGE_SECONDS * header.rate) + 1
    length = min(header.length or shown, shown)
    whole = length == header.length
    with tempfile.TemporaryDirectory(prefix="pulse-edge-") as folder:
        names: dict[str, str] = {}
        for signal in header.signals:
            if signal.file not in names and signal.form:
                names[signal.file] = f"s{len(names)}.dat"
                group = [each for each in header.signals if each.file == signal.file]
                samples = _first_frames(path.parent / signal.file, group, length, source)
                Path(folder, names[signal.file]).write_bytes(samples)
        copy = Path(folder, "record.hea")
        text = _rewritten(header, names, length if header.length else 0, whole)
        copy.write_text(text, "ascii")
        record = parse_file(FORM, copy, source)
    if whole and record.raw_metadata.get("checksum_valid") is False:
        raise unreadable(FORM, source, "the checksum of a signal differs")
    leads = [
        _lead(lead, signal, header, source)
        for lead, signal in zip(record.leads, header.signals, strict=True)
    ]
    return recording_of_leads(leads, source, report_of(record, FORM), (), seconds)


def _lead(lead: Any, signal: WfdbSignal, header: WfdbHeader, source: str) -> StoredLead:
    """A lead by its own name, with gaps where samples stand for none."""
    lead.label = known_lead(signal.lead)
    nothing = _NOTHING.get(signal.form)
    if nothing is not None:
        lead.samples = np.where(lead.samples == nothing, np.nan, lead.samples)
    return stored_lead(lead, source)._replace(lead=lead.label, rate=header.rate * signal.frame)


def _wfdb_header(data: bytes, source: str) -> WfdbHeader:
    lines = _header_lines(data)
    record = _RECORD.fullmatch(lines[0]) if lines else None
    if record is None:
        raise unreadable(FORM, source, "its first line names no record")
    if record["segments"]:
        raise RecordingError(
            f"{source}: a WFDB record of several segments; give the header of one of them"
        )
    count = int(record["signals"])
    matches = [_SIGNAL.fullmatch(line) for line in lines[1 : 1 + count]]
    if not 1 <= count <= MAX_SIGNALS or len(matches) < count or None in matches:
        raise unreadable(FORM, source, "its lines do not describe its signals")
    try:
        rate = float(record["rate"] or _DEFAULT_RATE)
    except ValueError:
        rate = 0.0
    if not 1 <= rate <= 1_000_000:
        raise unreadable(FORM, source, "its sampling rate is not from 1 to 1,000,000 Hz")
    signals = tuple(_signal(match, source) for match in matches if match)
    return WfdbHeader(rate, int(record["length"] or 0), signals)


def _signal(match: re.Match[str], source: str) -> WfdbSignal:
    form = int(match["format"])
    if form and form not in UNITS:
        known = ", ".join(str(each) for each in UNITS)
        raise RecordingError(f"{source}: samples of WFDB format {form}; expected one of {known}")
    file = match["file"]
    if form and (not _PLAIN.fullmatch(file) or file in (".", "..")):
        raise RecordingError(
            f"{source}: its samples lie in another folder; expected a file beside the header"
        )
    numbers = (
        match["gain"] or _DEFAULT_GAIN,
        match["bits"] or "0",
        match["zero"] or "0",
        match["first"] or match["zero"] or "0",
        match["sum"] or "",
    )
    frame, skew, offset = (int(match[name] or 0) for name in ("frame", "skew", "offset"))
    return WfdbSignal(file, form, frame or 1, skew, offset, numbers, match["lead"] or "")


def _first_frames(path: Path, group: Sequence[WfdbSignal], length: int, source: str) -> bytes:
    """The bytes of a file's first frames, from the first of them on."""
    samples, size = UNITS[group[0].form]
    frames = length + max(signal.skew for signal in group)
    wanted = -(-frames * sum(signal.frame for signal in group) // samples) * size
    if wanted > MAX_KEPT:
        raise RecordingError(
            f"{source}: {wanted:,} bytes of samples in {PAGE_SECONDS} s; expected at most "
            f"{MAX_KEPT >> 20} MiB"
        )
    try:
        with open_regular(path) as file:
            file.seek(group[0].offset)
            return read_upto(file, wanted)
    except FileNotFoundError:
        problem = "its file of samples is missing; put it beside the header"
    except (OSError, ValueError, OverflowError) as error:
        problem = f"its file of samples cannot be read ({reason(error)})"
    raise RecordingError(f"{source}: {problem}") from None


def _rewritten(header: WfdbHeader, names: dict[str, str], length: int, whole: bool) -> str:
    """The header without names, comments, dates and places.

    Args:
        header: to write.
        names: of the copies of files.
        length: frames that the copies hold.
        whole: whether that is all of them, so that checksums hold.
    """
    lines = [f"record {len(header.signals)} {header.rate!r} {length}"]
    for signal in header.signals:
        frame = f"x{signal.frame}" if signal.frame > 1 else ""
        skew = f":{signal.skew}" if signal.skew else ""
        gain, bits, zero, first, checksum = signal.numbers
        numbers = f"{gain} {bits} {zero} {first} {checksum if whole else ''}"
        lines.append(f"{names.get(signal.file, '~')} {signal.form}{frame}{skew} {numbers}".strip())
    return "\n".join([*lines, ""])
