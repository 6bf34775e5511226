"""What a DICOM file says beside its waveforms: filters, and the cart's annotations (C.10.10)."""

from __future__ import annotations

from collections.abc import Iterator

from pulse_edge.ecg.cart import CartFilters, CartReport, cart_report
from pulse_edge.ecg.readers.dicom_items import DicomItem

FORM = "DICOM"
MAX_ANNOTATIONS = 1_000
# Codes of MDC and of SCP-ECG (PS3.16 CID 3227 to 3229) -> the name that panels know.
_MEASUREMENTS = {
    "2:16016": "heart rate",
    "5.10.2.1-3": "RR interval",
    "2:15872": "PR interval",
    "5.13.5-7": "PR interval",
    "2:16156": "QRS duration",
    "5.13.5-9": "QRS duration",
    "2:16160": "QT interval",
    "5.13.5-11": "QT interval",
    "2:15876": "QTc interval",
    "5.10.2.5-5": "QTc interval",
    "2:15880": "QTc interval (Bazett)",
    "2:15892": "QTc interval (Fridericia)",
    "2:16128": "P axis",
    "5.10.3-11": "P axis",
    "2:16132": "QRS axis",
    "5.10.3-13": "QRS axis",
    "2:16136": "T axis",
    "5.10.3-15": "T axis",
}


def report_of_dicom(dataset: DicomItem) -> CartReport:
    """The cart's words. What cannot be read of them is left out: the waveforms do not need them.

    Args:
        dataset: of the file.
    """
    try:
        annotations = dataset.items("WaveformAnnotationSequence")[:MAX_ANNOTATIONS]
        measurements = dict(_annotated(annotations))
        texts = [item.text("UnformattedTextValue") or "" for item in annotations]
        return cart_report(FORM, _filters_of(dataset), measurements, texts)
    except Exception:  # damaged elements raise nearly anything
        return CartReport(FORM)


def _annotated(annotations: list[DicomItem]) -> Iterator[tuple[str, float]]:
    """Measurements in the units of their names; the first of each name is that of the whole."""
    seen: set[str] = set()
    for item in annotations:
        concepts = item.items("ConceptNameCodeSequence")
        code = concepts[0].text("CodeValue") if concepts else None
        name = _MEASUREMENTS.get(code or "")
        value = item.number("NumericValue") if name else None
        if name and value is not None and name not in seen:
            seen.add(name)
            yield name, value


def _filters_of(dataset: DicomItem) -> CartFilters:
    """Those of the first channel; 0 is none."""
    groups = dataset.items("WaveformSequence")
    channels = groups[0].items("ChannelDefinitionSequence") if groups else []
    if not channels:
        return CartFilters()
    return CartFilters(
        channels[0].number("FilterLowFrequency") or None,
        channels[0].number("FilterHighFrequency") or None,
        channels[0].number("NotchFilterFrequency") or None,
    )
