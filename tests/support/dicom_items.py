"""Items of DICOM as they are after a file was read: elements by keyword, without a file."""

from __future__ import annotations

from typing import Any

from pulse_edge.ecg.readers.dicom_budget import ParseBudget
from pulse_edge.ecg.readers.dicom_items import DicomElement, DicomItem
from pulse_edge.ecg.readers.dicom_tags import TAGS

SCALE = {
    "ChannelSensitivity": "5",
    "ChannelSensitivityUnitsSequence": [{"CodeValue": "uV"}],
    "WaveformBitsStored": "16",
}


def dicom_item(order: str = "<", /, **values: Any) -> DicomItem:
    """An item of these elements.

    Args:
        order: of bytes.
        values: texts, numbers, bytes, or lists of such dictionaries; None leaves one out.
    """
    elements = []
    for keyword, value in values.items():
        if value is None:
            continue
        content: bytes | list[DicomItem]
        if isinstance(value, list):
            kind, content = "SQ", [dicom_item(order, **each) for each in value]
        elif isinstance(value, bytes):
            kind, content = "OW", value
        else:
            kind, content = "DS", str(value).encode()
        elements.append(DicomElement(TAGS[keyword], kind, content, False))
    return DicomItem(elements, order, ParseBudget())


def definition(name: str | None = "V1", code: str | None = None, **values: Any) -> dict[str, Any]:
    """A channel definition of 5 uV a bit, for `dicom_item`; None leaves an element out."""
    source = [{"CodeMeaning": name, "CodeValue": code}]
    return {"ChannelSourceSequence": source} | SCALE | values
