"""GE MUSE XML (`RestingECG`)."""

from __future__ import annotations

from collections.abc import Iterator

from pulse_edge.ecg.readers.library import (
    guarded,
    parse_file,
    recording_of_leads,
    report_of,
    stored_lead,
)
from pulse_edge.ecg.recording import Recording
from pulse_edge.ecg.xml_document import Element, document_bytes, reduced_document, root_name
from pulse_edge.errors import RecordingError

FORM = "GE MUSE XML"
_PATHS = (
    "Waveform",
    "RestingECGMeasurements",
    "OriginalRestingECGMeasurements",
    "Diagnosis/DiagnosisStatement",
    "OriginalDiagnosis/DiagnosisStatement",
    "QRSTimesTypes/GlobalRR",
)
_RHYTHM = ("rhythm", "")


def is_muse(head: bytes) -> bool:
    """Whether a file's first bytes are those of a MUSE export."""
    return root_name(head) == "RestingECG"


@guarded(FORM)
def read_muse(data: bytes, source: str) -> Recording:
    """Read the rhythm waveform of a MUSE export. Median beats are left out.

    MUSE stores 8 leads; the other limb leads are derived.

    Args:
        data: of the file.
        source: its name, for messages.

    Raises:
        RecordingError: the file is damaged, holds no rhythm waveform, or contradicts itself.
        ImportError: ecgdatakit is not installed.
    """
    root = reduced_document(data, _PATHS, source)
    waveforms = root.findall("Waveform")
    rhythm = [each for each in waveforms if _waveform_kind(each) in _RHYTHM]
    if waveforms and not rhythm:
        raise RecordingError(f"{source}: holds only an averaged beat; expected a rhythm recording")
    for waveform in waveforms:
        if waveform not in rhythm[:1]:
            root.remove(waveform)
    record = parse_file(FORM, document_bytes(root), source)
    if record.raw_metadata.get("checksum_valid") is False:
        notes = ["The samples do not have the checksums that the file states."]
    else:
        notes = []
    if len(rhythm) > 1:
        notes.append(f"Not drawn: {len(rhythm) - 1} more rhythm waveforms of the file.")
    extra = dict(_muse_corrected(root))
    leads = [stored_lead(lead, source) for lead in record.leads]
    return recording_of_leads(leads, source, report_of(record, FORM, extra), notes)


def _waveform_kind(waveform: Element) -> str:
    return (waveform.findtext("WaveformType") or "").strip().lower()


def _muse_corrected(root: Element) -> Iterator[tuple[str, float]]:
    """QTc, whose formula the file does not say."""
    for place in ("RestingECGMeasurements", "OriginalRestingECGMeasurements"):
        text = root.findtext(f"{place}/QTCorrected") or ""
        if text.strip().isdigit():
            yield "QTc interval", float(text)
            return
