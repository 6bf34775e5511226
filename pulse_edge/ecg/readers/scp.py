"""SCP-ECG (EN 1064, ISO 11073-91064): a record of numbered sections, each with a checksum."""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from pulse_edge.ecg.readers.library import (
    guarded,
    parse_file,
    recording_of_leads,
    report_of,
    stored_lead,
    unreadable,
)
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError

FORM = "SCP-ECG"
MAX_BYTES = 4 << 20  # 10 s of 12 leads at 1,000 Hz have 240,000 bytes uncompressed
# Huffman codes are read bit by bit: 2 million bits take 0.5 s. 10 s of 12 leads have 30,000 bytes.
MAX_PACKED = 256 << 10
MAX_LEAD_SAMPLES = 1 << 20
_HEAD = 16  # bytes before a section's content
_PATIENT, _TABLES, _LEADS, _BEAT, _RHYTHM = 1, 2, 3, 5, 6
_LAST_STANDARD = 11
_DEVICE = 14  # tag; 36 bytes of numbers, then texts
_FILTERS = (27, 28, 29)  # tags
_END = 255  # tag
_UNDEFINED = (29999, 0xFFFF)


class Section(NamedTuple):
    """A section: its number, and where it lies in the file."""

    number: int
    first: int
    last: int
    pointer: int  # where section 0 says so


def is_scp(head: bytes) -> bool:
    """Whether a file's first bytes are those of SCP-ECG: section 0, which names itself."""
    if len(head) < 32:
        return False
    number, length = struct.unpack("<HI", head[8:14])
    itself, _, place = struct.unpack("<HII", head[22:32])
    return (number, itself, place) == (0, 0, 7) and length >= 26 and length % 10 == 6


@guarded(FORM)
def read_scp(data: bytes, source: str) -> Recording:
    """Read the rhythm data of an SCP-ECG record. Reference beats are left out.

    Args:
        data: of the file.
        source: its name, for messages.

    Raises:
        RecordingError: the file is damaged, holds no rhythm data, or is of a kind not read.
        ImportError: ecgdatakit is not installed.
    """
    if len(data) > MAX_BYTES:
        raise RecordingError(
            f"{source}: SCP-ECG of over {MAX_BYTES >> 20} MiB; a page shows 10 s: store a part"
        )
    try:
        sections = {section.number: section for section in _sections(data)}
        _check(data, sections, source)
        clean = _without_scp_names(data, sections)
    except (struct.error, IndexError):
        raise unreadable(FORM, source, "a section lies outside of it") from None
    record = parse_file(FORM, clean, source)
    interval = record.raw_metadata["rhythm_sample_interval_us"]
    rate = 1e6 / interval
    leads = []
    for lead in record.leads:
        start = (int(lead.annotations.get("start_sample", 1)) - 1) / rate
        leads.append(stored_lead(lead, source, start)._replace(rate=rate))
    return recording_of_leads(leads, source, report_of(record, FORM, dict(_intervals(record))))


def _sections(data: bytes) -> Iterator[Section]:
    """The sections that section 0 names.

    Raises:
        struct.error, IndexError: one lies outside the file.
    """
    (length,) = struct.unpack_from("<I", data, 10)
    for pointer in range(6 + _HEAD, min(6 + length, len(data)) - 9, 10):
        number, size, place = struct.unpack_from("<HII", data, pointer)
        if number == 0 or size == 0:
            continue
        if place == 0 or place - 1 + size > len(data) or size < _HEAD:
            raise IndexError(number)
        yield Section(number, place - 1, place - 1 + size, pointer)


def _check(data: bytes, sections: dict[int, Section], source: str) -> None:
    """Refuse what is damaged, has no rhythm data, or would take seconds."""
    (size,) = struct.unpack_from("<I", data, 2)
    if size > len(data):
        raise RecordingError(f"{source}: cut off: {len(data):,} bytes of {size:,}")
    if not _has_checksum(data[:size]):
        raise unreadable(FORM, source, "its checksum differs")
    for section in sections.values():
        content = data[section.first : section.last]
        if section.number <= _LAST_STANDARD and not _has_checksum(content):
            raise unreadable(FORM, source, f"the checksum of section {section.number} differs")
    if _RHYTHM not in sections:
        beat = "only an averaged beat" if _BEAT in sections else "no rhythm data"
        raise RecordingError(f"{source}: holds {beat}; expected a rhythm recording")
    packed = [sections[number] for number in (_BEAT, _RHYTHM) if number in sections]
    taken = sum(section.last - section.first for section in packed)
    if _TABLES in sections and taken > MAX_PACKED:
        raise RecordingError(
            f"{source}: {taken:,} bytes of Huffman codes; expected at most {MAX_PACKED:,}: store "
            "10 s"
        )
    if _LEADS in sections:
        first = sections[_LEADS].first + _HEAD
        for lead in range(data[first]):
            begin, end = struct.unpack_from("<II", data, first + 2 + 9 * lead)
            if end - begin >= MAX_LEAD_SAMPLES:
                raise RecordingError(
                    f"{source}: a lead of {end - begin + 1:,} samples; expected at most "
                    f"{MAX_LEAD_SAMPLES:,}: store 10 s"
                )


def _has_checksum(content: bytes) -> bool:
    """Whether content begins with its checksum (CRC-CCITT), or with 0, which stands for none."""
    (stated,) = struct.unpack_from("<H", content)
    return stated in (0, binascii.crc_hqx(content[2:], 0xFFFF))


def _without_scp_names(data: bytes, sections: dict[int, Section]) -> bytes:
    """The record without the patient, the staff and the places of section 1."""
    section = sections.get(_PATIENT)
    if section is None:
        return data
    clean = bytearray(data)
    place = section.first + _HEAD
    while place + 3 <= section.last:
        tag, length = struct.unpack_from("<BH", clean, place)
        place += 3
        if tag == _END:
            return bytes(clean)
        if place + length > section.last:
            break
        if tag not in _FILTERS:
            kept = min(length, 36) if tag == _DEVICE else 0
            clean[place + kept : place + length] = bytes(length - kept)
        place += length
    # Its tags do not add up: the whole section goes.
    struct.pack_into("<I", clean, section.pointer + 2, 0)
    return bytes(clean)


def _intervals(record: Any) -> Iterator[tuple[str, float]]:
    """Intervals between the wave boundaries that the cart measured, and its QTc."""
    blocks = record.raw_metadata.get("measurement_blocks") or [{}]
    bounds = {name: value for name, value in blocks[0].items() if value not in _UNDEFINED}
    for name, first, last in (
        ("PR interval", "p_onset", "qrs_onset"),
        ("QRS duration", "qrs_onset", "qrs_offset"),
        ("QT interval", "qrs_onset", "t_offset"),
    ):
        if first in bounds and last in bounds and bounds[last] > bounds[first]:
            yield name, float(bounds[last] - bounds[first])
    corrected = record.raw_metadata.get("qtc_ms")
    if isinstance(corrected, int):
        yield "QTc interval", float(corrected)
