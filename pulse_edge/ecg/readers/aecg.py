"""HL7 aECG XML (`AnnotatedECG`, ANSI/HL7 V3 ECG R1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from xml.etree.ElementTree import SubElement

from pulse_edge.ecg.coverage import PAGE_SECONDS
from pulse_edge.ecg.readers.library import (
    StoredLead,
    guarded,
    parse_file,
    recording_of_leads,
    report_of,
    stored_lead,
)
from pulse_edge.ecg.recording import Recording
from pulse_edge.ecg.xml_document import Element, document_bytes, reduced_document, root_name
from pulse_edge.errors import RecordingError

FORM = "HL7 aECG"
_SERIES = "component/series"
_DERIVED = f"{_SERIES}/derivation/derivedSeries"
_ANNOTATIONS = "subjectOf/annotationSet/component/annotation"
_PATHS = (
    f"{_SERIES}/code",
    f"{_SERIES}/component/sequenceSet",
    f"{_SERIES}/controlVariable",
    f"{_SERIES}/{_ANNOTATIONS}",
    f"{_DERIVED}/code",
    f"{_DERIVED}/{_ANNOTATIONS}",
)
_BEAT = "REPRESENTATIVE_BEAT"
MAX_SETS = 64  # stretches of one recording; a 3x4 page has 4
_STAMP = re.compile(r"(\d{14})(?:\.(\d+))?")
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "": 1.0}
_CORRECTED = re.compile(r"(\d+(?:\.\d+)?) ms")


class _Stretch(NamedTuple):
    """A sequence set of a rhythm series: leads that were recorded together."""

    series: Element
    component: Element  # that holds the set
    head: float | None  # seconds; of the first sample, on the document's own clock


def is_aecg(head: bytes) -> bool:
    """Whether a file's first bytes are those of an aECG."""
    return root_name(head) == "AnnotatedECG"


@guarded(FORM)
def read_aecg(data: bytes, source: str) -> Recording:
    """Read the rhythm series of an aECG, put together by lead and time.

    Representative beats are left out.

    Args:
        data: of the file.
        source: its name, for messages.

    Raises:
        RecordingError: the file is damaged, holds no rhythm series, or contradicts itself.
        ImportError: ecgdatakit is not installed.
    """
    root = reduced_document(data, _PATHS, source)
    series = root.findall(_SERIES)
    rhythm = [each for each in series if _code(each).upper() != _BEAT]
    if series and not rhythm:
        raise RecordingError(f"{source}: holds only an averaged beat; expected a rhythm recording")
    stretches = [stretch for each in rhythm for stretch in _stretches(each)]
    if not stretches:
        raise RecordingError(f"{source}: an aECG without a rhythm series; expected sequences")
    if len(stretches) > MAX_SETS:
        raise RecordingError(f"{source}: {len(stretches)} sequence sets; expected {MAX_SETS}")
    heads = [stretch.head for stretch in stretches if stretch.head is not None]
    origin = min(heads, default=0.0)
    leads: list[StoredLead] = []
    notes: list[str] = []
    record: Any = None
    for number, stretch in enumerate(stretches, 1):
        start = 0.0 if stretch.head is None else stretch.head - origin
        if start >= PAGE_SECONDS:
            notes.append(f"Not drawn: sequence set {number}, which begins after {start:.1f} s.")
            continue
        parsed = parse_file(FORM, document_bytes(_stretch_document(root, stretch)), source)
        record = record or parsed
        rate = float(parsed.raw_metadata["rhythm_time"]["sampling_rate_exact"])
        for lead in parsed.leads:
            leads.append(stored_lead(lead, source, start, number)._replace(rate=rate))
    report = report_of(record, FORM, dict(_aecg_corrected(record)))
    return recording_of_leads(leads, source, report, notes)


def _code(element: Element) -> str:
    code = element.find("code")
    return "" if code is None else code.get("code", "")


def _stretches(series: Element) -> Iterator[_Stretch]:
    for component in series.findall("component"):
        for each in component.findall("sequenceSet"):
            alone = Element("component")
            alone.append(each)
            yield _Stretch(series, alone, _set_head(each))


def _set_head(sequences: Element) -> float | None:
    """When a set's first sample was taken, in seconds of any clock; None if it does not say."""
    for sequence in sequences.findall("component/sequence"):
        if _code(sequence).upper().startswith("TIME_"):
            head = sequence.find("value/head")
            return None if head is None else _head_seconds(head)
    return None


def _head_seconds(head: Element) -> float | None:
    value = head.get("value", "").strip()
    stamp = _STAMP.match(value)
    try:
        if stamp is not None:
            moment = datetime.strptime(stamp[1], "%Y%m%d%H%M%S")
            fraction = float(f"0.{stamp[2] or 0}")
            return (moment - datetime(1970, 1, 1)) / timedelta(seconds=1) + fraction
        seconds = float(value) * _SECONDS[head.get("unit", "")]
    except (ValueError, KeyError):
        return None
    return seconds if abs(seconds) < 1e12 else None


def _stretch_document(root: Element, stretch: _Stretch) -> Element:
    """A document of one stretch, with what its series says beside."""
    document = Element("AnnotatedECG", root.attrib)
    series = SubElement(SubElement(document, "component"), "series")
    series.extend(child for child in stretch.series if child.tag != "component")
    series.append(stretch.component)
    return document


def _aecg_corrected(record: Any) -> Iterator[tuple[str, float]]:
    """QTc, whose formula the file does not say."""
    match = _CORRECTED.fullmatch(str(record.annotations.get("MDC_ECG_TIME_PD_QTc", "")))
    if match is not None:
        yield "QTc interval", float(match[1])
