"""EDF and EDF+ (edfplus.info): data records, each with a stretch of every signal."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from pulse_edge.ecg.coverage import PAGE_SECONDS
from pulse_edge.ecg.readers.library import (
    StoredLead,
    guarded,
    parse_file,
    recording_of_leads,
    report_of,
    stored_lead,
    unreadable,
)
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError

FORM = "EDF"
MAX_SIGNALS = 256
MAX_RECORDS = 20_000  # of 10 s
MAX_KEPT = 16 << 20  # bytes of 10 s
_HEAD = 256  # bytes before the heads of signals, and of each of those
_VERSION = b"0       "
_ANNOTATIONS = "EDF Annotations"
_ONSET = re.compile(rb"[+-]\d{1,9}(?:\.\d{1,9})?")
_NOBODY = b"X X X X".ljust(80)
_NOWHERE = b"Startdate X X X X".ljust(80)
_NEVER = b"01.01.8500.00.00"
_JITTER = 0.5  # of a sample: a record that begins so much later than the one before ends is apart
# Fields of a signal's head: bytes of label, transducer, unit, 4 limits, filters, samples, reserve.
_FIELDS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
_LABEL, _TRANSDUCER, _SAMPLES = 0, 1, 8


class EdfHead(NamedTuple):
    """How a file is laid out.

    Attributes:
        records: of the file.
        seconds: of a record.
        labels: of the signals.
        samples: of each signal in a record.
        discontinuous: whether records may have gaps between them.
    """

    records: int
    seconds: float
    labels: tuple[str, ...]
    samples: tuple[int, ...]
    discontinuous: bool

    @property
    def size(self) -> int:
        """Bytes before the records."""
        return _HEAD * (1 + len(self.labels))

    @property
    def record_size(self) -> int:
        """Bytes of a record."""
        return 2 * sum(self.samples)


def is_edf(head: bytes) -> bool:
    """Whether a file's first bytes are those of EDF."""
    return len(head) >= _HEAD and head[:8] == _VERSION and head[252:256].strip().isdigit()


@guarded(FORM)
def read_edf(data: bytes, source: str) -> Recording:
    """Read the beginning of an EDF file. Annotations are not read, save for the times of records.

    Args:
        data: of the file.
        source: its name, for messages.

    Raises:
        RecordingError: the file is damaged, too large, or holds no ECG.
        ImportError: ecgdatakit is not installed.
    """
    try:
        head = _edf_head(data)
    except (ValueError, OverflowError):
        raise unreadable(FORM, source, "its header holds no numbers") from None
    _check_head(head, source)
    stored = (len(data) - head.size) // head.record_size
    records = stored if head.records == -1 else head.records
    if records > stored:
        raise RecordingError(f"{source}: cut off: {stored:,} data records of {records:,}")
    if records < 1:
        raise RecordingError(f"{source}: the recording holds no samples")
    shown = min(records, math.ceil(PAGE_SECONDS / head.seconds) + 1)
    if shown > MAX_RECORDS or shown * head.record_size > MAX_KEPT:
        raise RecordingError(
            f"{source}: {shown:,} data records of {head.record_size:,} bytes in {PAGE_SECONDS} s; "
            f"expected at most {MAX_RECORDS:,}, and {MAX_KEPT >> 20} MiB"
        )
    clean, onsets = _without_edf_names(data, head, shown)
    record = parse_file(FORM, clean, source)
    samples = [
        count
        for label, count in zip(head.labels, head.samples, strict=True)
        if label != _ANNOTATIONS
    ]
    leads: list[StoredLead] = []
    for lead, count in zip(record.leads, samples, strict=True):
        whole = stored_lead(lead, source)._replace(rate=count / head.seconds)
        leads += _lead_runs(whole, count, head, onsets)
    seconds = records * head.seconds
    return recording_of_leads(leads, source, report_of(record, FORM), (), seconds)


def _edf_head(data: bytes) -> EdfHead:
    """The layout.

    Raises:
        ValueError: a field is no number.
    """
    count = int(data[252:256])
    if not 1 <= count <= MAX_SIGNALS or len(data) < _HEAD * (1 + count):
        raise ValueError(count)
    labels = [field.decode("latin-1").strip(" \0") for field in _edf_fields(data, count, _LABEL)]
    samples = [int(field) for field in _edf_fields(data, count, _SAMPLES)]
    return EdfHead(
        int(data[236:244]),
        float(data[244:252]),
        tuple(labels),
        tuple(samples),
        data[192:197] == b"EDF+D",
    )


def _check_head(head: EdfHead, source: str) -> None:
    if not (0 < head.seconds < math.inf) or min(head.samples) < 1 or head.records < -1:
        raise unreadable(FORM, source, "its data records have no length")


def _edf_fields(data: bytes, count: int, field: int) -> Iterator[bytes]:
    """A field of all signals."""
    width = _FIELDS[field]
    first = _HEAD + count * sum(_FIELDS[:field])
    for place in range(first, first + count * width, width):
        yield data[place : place + width]


def _without_edf_names(data: bytes, head: EdfHead, shown: int) -> tuple[bytes, list[float]]:
    """The first records without names, dates and annotations; and when each of them begins."""
    clean = bytearray(data[: head.size + shown * head.record_size])
    clean[8:184] = _NOBODY + _NOWHERE + _NEVER
    clean[236:244] = str(shown).encode().ljust(8)
    count = len(head.labels)
    first = _HEAD + count * sum(_FIELDS[:_TRANSDUCER])
    clean[first : first + count * _FIELDS[_TRANSDUCER]] = b" " * (count * _FIELDS[_TRANSDUCER])
    onsets: list[float] = []
    timed = False
    place = head.size
    for label, samples in zip(head.labels, head.samples, strict=True):
        if label == _ANNOTATIONS:
            for start in range(place, len(clean), head.record_size):
                onset = _ONSET.match(clean, start, start + 2 * samples)
                kept = onset[0] + b"\x14\x14\0" if onset and not timed else b""
                kept = kept[: 2 * samples]
                clean[start : start + 2 * samples] = kept.ljust(2 * samples, b"\0")
                if onset and not timed:
                    onsets.append(float(onset[0]))
            timed = True
        place += 2 * samples
    return bytes(clean), onsets


def _lead_runs(
    lead: StoredLead, count: int, head: EdfHead, onsets: list[float]
) -> Iterator[StoredLead]:
    """A lead in stretches without gaps.

    Args:
        lead: all its records, end to end.
        count: samples of a record.
        head: of the file.
        onsets: when each record begins.
    """
    records = len(lead.samples) // count
    if not head.discontinuous or len(onsets) != records:
        yield lead
        return
    first = 0
    for number in range(1, records + 1):
        ends = number == records
        if ends or onsets[number] - onsets[number - 1] > head.seconds + _JITTER / lead.rate:
            samples = lead.samples[first * count : number * count]
            start = onsets[first] - onsets[0]
            if 0 <= start < PAGE_SECONDS:
                yield lead._replace(samples=samples, start=start)
            first = number
