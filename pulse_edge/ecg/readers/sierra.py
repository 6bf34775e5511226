"""Philips Sierra XML (`restingecgdata`), whose samples may be compressed by XLI."""

from __future__ import annotations

import base64
import binascii

import numpy as np

from pulse_edge.ecg.readers.library import (
    guarded,
    parse_file,
    recording_of_leads,
    report_of,
    stored_lead,
    unreadable,
)
from pulse_edge.ecg.recording import Recording
from pulse_edge.ecg.xml_document import Element, document_bytes, reduced_document, root_name
from pulse_edge.errors import RecordingError

FORM = "Philips Sierra XML"
_PATHS = (
    "documentinfo/documenttype",
    "documentinfo/documentversion",
    "dataacquisition/signalcharacteristics",
    "waveforms/parsedwaveforms",
    "interpretations/interpretation/globalmeasurements",
    "interpretations/interpretation/interpretationmeasurements",
    "interpretations/interpretation/statement",
    "internalmeasurements/crossleadmeasurements",
    "measurements/globalmeasurements",
)
MAX_INFLATED = 4 << 20  # bytes of all leads; 12 leads of 11 s have 132,000
_CODE_BITS = 10
_LAST_CODE = (1 << _CODE_BITS) - 2
_CHUNK_HEAD = 8  # bytes


def is_sierra(head: bytes) -> bool:
    """Whether a file's first bytes are those of a Sierra document."""
    return root_name(head) == "restingecgdata"


@guarded(FORM)
def read_sierra(data: bytes, source: str) -> Recording:
    """Read the rhythm waveforms of a Sierra document. Representative beats are left out.

    Args:
        data: of the file.
        source: its name, for messages.

    Raises:
        RecordingError: the file is damaged, holds no rhythm, or would inflate too far.
        ImportError: ecgdatakit is not installed.
    """
    root = reduced_document(data, _PATHS, source)
    waveforms = root.find("waveforms/parsedwaveforms")
    if waveforms is None:
        raise RecordingError(
            f"{source}: a Sierra document without rhythm waveforms; expected parsedwaveforms"
        )
    if (waveforms.get("dataencoding") or "").lower() == "base64":
        _check_inflation(waveforms, source)
    record = parse_file(FORM, document_bytes(root), source)
    leads = [stored_lead(lead, source) for lead in record.leads]
    return recording_of_leads(leads, source, report_of(record, FORM))


def _check_inflation(waveforms: Element, source: str) -> None:
    """Refuse XLI data that would inflate to more than `MAX_INFLATED`, without inflating it."""
    packed = any("xli" in value.lower() for value in waveforms.attrib.values())
    if not packed:
        return
    try:
        data = base64.b64decode("".join((waveforms.text or "").split()), validate=True)
    except (binascii.Error, ValueError):
        raise unreadable(FORM, source, "its samples are not base64") from None
    left = MAX_INFLATED
    place = 0
    while place + _CHUNK_HEAD <= len(data):
        size = int.from_bytes(data[place : place + 4], "little", signed=True)
        place += _CHUNK_HEAD
        if size <= 0:
            return  # the library names it
        left -= inflated_size(data[place : place + size], left)
        if left < 0:
            raise RecordingError(
                f"{source}: the compressed samples inflate to over {MAX_INFLATED >> 20} MiB; "
                "expected a recording of 10 s"
            )
        place += size


def inflated_size(packed: bytes, limit: int) -> int:
    """How many bytes a chunk of LZW with codes of 10 bits stands for.

    Args:
        packed: the chunk.
        limit: counting ends above it.
    """
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    count = len(bits) // _CODE_BITS
    powers = 1 << np.arange(_CODE_BITS - 1, -1, -1)
    codes = (bits[: count * _CODE_BITS].reshape(count, _CODE_BITS) @ powers).tolist()
    lengths = dict.fromkeys(range(256), 1)
    following = 256
    before = 0  # length of the string before
    total = 0
    for code in codes:
        if code > _LAST_CODE or total > limit:
            break
        length = lengths.setdefault(code, before + 1)
        if before and following <= _LAST_CODE:
            lengths[following] = before + 1
            following += 1
        before = length
        total += length
    return total
