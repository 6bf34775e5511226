"""What a DICOM file says beside its waveforms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.dicom_files import Read, dataset, ecg, group

pytest.importorskip("pydicom", reason="DICOM needs pulse-edge[ecg]")


def annotation(code: str | None, value: float | None = None, text: str | None = None) -> Any:
    from pydicom.dataset import Dataset

    item, concept = Dataset(), Dataset()
    if code is not None:
        concept.CodeValue = code
        item.ConceptNameCodeSequence = [concept]
    if value is not None:
        item.NumericValue = str(value)
    if text is not None:
        item.UnformattedTextValue = text
    return item


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("2:16016", "heart rate"),
        ("2:15872", "PR interval"),
        ("5.13.5-7", "PR interval"),
        ("2:16156", "QRS duration"),
        ("5.13.5-9", "QRS duration"),
        ("2:16160", "QT interval"),
        ("2:15876", "QTc interval"),
        ("2:15880", "QTc interval (Bazett)"),
        ("2:16132", "QRS axis"),
        ("5.10.3-13", "QRS axis"),
    ],
)
def test_codes_of_measurements(read: Read, code: str, name: str) -> None:
    whole = dataset(group(ecg()))
    whole.WaveformAnnotationSequence = [annotation(code, 77), annotation(code, 99)]
    assert read(whole).cart.measurements == {name: 77}


def test_statements_of_the_cart_without_those_that_name_somebody(read: Read) -> None:
    whole = dataset(group(ecg()))
    texts = ("Sinus rhythm", "Confirmed by Quillfeather", "Normal ECG")
    whole.WaveformAnnotationSequence = [annotation(None, text=text) for text in texts]
    record = read(whole)
    assert record.cart.statements == ("Sinus rhythm", "Normal ECG")
    assert record.cart.format == "DICOM"
    assert "Quillfeather" not in repr((record.facts, record.notes))


def test_filters_of_the_first_channel(read: Read) -> None:
    whole = dataset(group(ecg()))
    channel = whole.WaveformSequence[0].ChannelDefinitionSequence[0]
    channel.FilterLowFrequency = "0.05"
    channel.FilterHighFrequency = "150"
    channel.NotchFilterFrequency = "0"
    filters = read(whole).cart.filters
    assert (filters.highpass, filters.lowpass, filters.notch) == (0.05, 150, None)


@pytest.mark.parametrize("value", ["x", "", "1e999"])
def test_annotations_that_cannot_be_read_do_not_matter(read: Read, value: str) -> None:
    import warnings

    whole = dataset(group(ecg()))
    item = annotation("2:16016")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        item.add_new(0x0040A30A, "LO", value)
    whole.WaveformAnnotationSequence = [item]
    assert read(whole).cart.measurements == {}


def test_a_file_without_annotations_has_none(read: Read, tmp_path: Path) -> None:
    cart = read(dataset(group(ecg()))).cart
    assert (cart.measurements, cart.statements, cart.notes) == ({}, (), ())
