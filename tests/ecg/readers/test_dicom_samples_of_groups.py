"""Multiplex groups without a file: what they lack, and their samples in mV."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pulse_edge.ecg.readers.dicom_groups import group_of, is_averaged, segments_of
from pulse_edge.ecg.segments import Segment
from pulse_edge.errors import RecordingError

from support.dicom_items import definition, dicom_item

pytest.importorskip("pydicom")

RAW = np.array([[0, 20], [100, 40], [-100, 60], [300, 80], [-40, 1000]], np.int16)


def fields(raw: np.ndarray = RAW, **values: Any) -> dict[str, Any]:
    """A group of V1 and V2 at 10 Hz: `raw` is [samples, channels]."""
    standard = {
        "NumberOfWaveformChannels": raw.shape[1],
        "NumberOfWaveformSamples": raw.shape[0],
        "SamplingFrequency": 10,
        "ChannelDefinitionSequence": [definition("V1"), definition("V2")][: raw.shape[1]],
        "WaveformSampleInterpretation": "SS",
        "WaveformBitsAllocated": 8 * raw.itemsize,
        "WaveformData": raw.tobytes(),
    }
    return standard | values


def segments(
    raw: np.ndarray = RAW, leads: tuple[str, ...] = ("V1", "V2"), start: float = 0.5, **values: Any
) -> list[Segment]:
    order = ">" if raw.dtype.byteorder == ">" else "<"
    group = group_of(dicom_item(order, **fields(raw, **values)), 3, "file")
    return list(segments_of(group, frozenset(leads), start))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"NumberOfWaveformChannels": None}, "has no Number Of Waveform Channels"),
        ({"NumberOfWaveformSamples": None}, "has no Number Of Waveform Samples"),
        ({"SamplingFrequency": None}, "the waveform has no Sampling Frequency"),
        ({"ChannelDefinitionSequence": None}, "the waveform has no Channel Definition Sequence"),
        ({"NumberOfWaveformChannels": 3}, "3 channels, but 2 channel definitions"),
        ({"NumberOfWaveformSamples": 0}, "the recording holds no samples"),
        ({"SamplingFrequency": 0.9}, "a sampling rate of 0.9 Hz; expected 1 to 1,000,000"),
        ({"SamplingFrequency": 1_000_001}, "a sampling rate of 1000001.0 Hz"),
        (
            {"MultiplexGroupTimeOffset": "nan"},
            "group 3 has a Multiplex Group Time Offset of nan; expected milliseconds",
        ),
    ],
)
def test_what_a_group_cannot_be_read_without(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecordingError) as caught:
        segments(**values)
    assert str(caught.value).startswith("file: ")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"WaveformBitsAllocated": None}, "the waveform has no Waveform Bits Allocated"),
        ({"WaveformBitsAllocated": 8}, "samples are SS/8 bits; expected one of SB/8, UB/8, SS/16"),
        ({"WaveformSampleInterpretation": "MB"}, "samples are MB/16 bits"),
        ({"WaveformSampleInterpretation": None}, "samples are unnamed/16 bits"),
        ({"WaveformData": None}, "the waveform has no Waveform Data"),
        ({"WaveformData": bytes(19)}, "cut off: 19 bytes for 2 channels of 5 samples"),
    ],
)
def test_samples_that_cannot_be_read(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecordingError, match=problem):
        segments(**values)


def test_a_group() -> None:
    group = group_of(dicom_item(**fields(MultiplexGroupTimeOffset=-1500)), 3, "file")
    assert (group.number, group.rate, group.length, group.seconds) == (3, 10, 5, 0.5)
    assert (group.offset, group.derived) == (-1.5, False)
    assert group.leads == {"V1", "V2"}
    assert [channel.number for channel in group.channels] == [1, 2]
    derived = group_of(dicom_item(**fields(WaveformOriginality="DERIVED")), 3, "file")
    assert derived.derived
    assert not group_of(dicom_item(**fields(WaveformOriginality="ORIGINAL")), 3, "file").derived


@pytest.mark.parametrize(
    ("label", "averaged"),
    [
        (None, False),
        ("RHYTHM", False),
        ("Median beat", True),
        ("an AVERAGE", True),
        ("representative", True),
        ("TEMPLATE 1", True),
    ],
)
def test_labels_of_averaged_beats(label: str | None, averaged: bool) -> None:
    assert is_averaged(dicom_item(MultiplexGroupLabel=label)) == averaged


def test_samples_in_millivolts() -> None:
    one, two = segments()
    assert (one.lead, one.start, one.rate, one.step, one.group) == ("V1", 0.5, 10, 0.005, 3)
    assert one.signal.tolist() == pytest.approx([0, 0.5, -0.5, 1.5, -0.2])
    assert two.signal.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 5])
    assert one.signal.dtype == np.float32


def test_more_bytes_than_samples_are_no_matter() -> None:
    assert len(segments(WaveformData=RAW.tobytes() + bytes(9))[0].signal) == 5


def test_only_what_a_page_shows_is_read() -> None:
    raw = np.tile(np.array([[10, 20]], np.int16), (150, 1))
    assert [len(part.signal) for part in segments(raw)] == [101, 101]


def test_a_scale_of_its_own_for_each_channel() -> None:
    channels = [
        definition("V1", ChannelBaseline=1000, ChannelTimeSkew=0.2),
        definition("V2", ChannelSensitivity=10, ChannelSampleSkew=-1),
    ]
    one, two = segments(ChannelDefinitionSequence=channels)
    assert one.signal.tolist() == pytest.approx([1, 1.5, 0.5, 2.5, 0.8])
    assert two.signal.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 10])
    assert [one.start, two.start] == pytest.approx([0.7, 0.4])
    assert two.step == 0.01


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", ">i4", "i1"])
def test_every_width_and_order_of_signed_samples(dtype: str) -> None:
    raw = (RAW // 10).astype(dtype) if dtype == "i1" else RAW.astype(dtype)
    form = {1: "SB", 2: "SS", 4: "SL"}[raw.itemsize]
    channels = [definition(lead, WaveformBitsStored=None) for lead in ("V1", "V2")]
    one, _ = segments(raw, WaveformSampleInterpretation=form, ChannelDefinitionSequence=channels)
    assert one.signal.tolist() == pytest.approx((raw[:, 0] * 0.005).tolist())


def test_unsigned_samples_need_a_baseline() -> None:
    raw = (RAW.astype(np.int32) + 32768).astype(np.uint16)
    with pytest.raises(RecordingError, match=r"channel 1 \(V1\) has unsigned samples of 32,"):
        segments(raw, WaveformSampleInterpretation="US")
    channels = [definition(lead, ChannelBaseline=-5 * 32768) for lead in ("V1", "V2")]
    one, _ = segments(raw, WaveformSampleInterpretation="US", ChannelDefinitionSequence=channels)
    assert one.signal.tolist() == pytest.approx([0, 0.5, -0.5, 1.5, -0.2], abs=1e-5)
    # Signed ones may lie at the middle of a converter's range.
    high = np.full((5, 2), 2048, np.int16)
    assert segments(high)[0].signal[0] == pytest.approx(10.24)


@pytest.mark.parametrize(
    ("padding", "blank"),
    [
        (np.array([1000], "<i2").tobytes(), [4]),
        (np.array([1000, 7], "<i2").tobytes(), [4]),
        (b"\xe8", []),  # half of a sample
        (np.array([999], "<i2").tobytes(), []),
        (None, []),
    ],
)
def test_padding(padding: bytes | None, blank: list[int]) -> None:
    _, two = segments(WaveformPaddingValue=padding)
    assert np.flatnonzero(np.isnan(two.signal)).tolist() == blank


def test_padding_inside_the_signals_range_takes_half_a_second() -> None:
    row = np.array([5, -5] + [1] * 4 + [5, -5] + [1] * 5 + [5], np.int16)
    padding = np.array([1], "<i2").tobytes()
    one, _ = segments(np.stack([row, row], axis=1), WaveformPaddingValue=padding)
    assert np.flatnonzero(np.isnan(one.signal)).tolist() == [8, 9, 10, 11, 12]


def test_leads_that_are_not_wanted_are_left_out() -> None:
    assert [part.lead for part in segments(leads=("V2",))] == ["V2"]


@pytest.mark.parametrize("values", [{}, {"unit": "mm[Hg]"}, {"stored": "many"}])
def test_other_leads_come_where_they_can_be_read(values: dict[str, str]) -> None:
    unit = [{"CodeValue": values.get("unit", "uV")}]
    foreign = definition(
        "ART",
        ChannelSensitivityUnitsSequence=unit,
        WaveformBitsStored=values.get("stored", "16"),
    )
    other, lead = segments(leads=("V2",), ChannelDefinitionSequence=[foreign, definition("V2")])
    assert (other.lead, lead.lead, other.start, other.group) == ("ART", "V2", 0.5, 3)
    if values:  # nothing of it is known but its name
        assert (other.step, len(other.signal)) == (0, 1)
        assert np.isnan(other.signal).all()
    else:
        assert other.signal.tolist() == pytest.approx([0, 0.5, -0.5, 1.5, -0.2])
    wrong = [definition("V1", ChannelSensitivityUnitsSequence=unit), definition("V2")]
    if "unit" in values:
        with pytest.raises(RecordingError, match="is in 'mm"):
            segments(leads=("V1",), ChannelDefinitionSequence=wrong)


def test_without_bits_stored_all_that_are_allocated_count() -> None:
    channels = [definition(lead, WaveformBitsStored=None) for lead in ("V1", "V2")]
    raw = np.array([[-32768, 32767], [0, 0]], np.int16)
    one, two = segments(raw, ChannelDefinitionSequence=channels)
    assert (one.signal[0], two.signal[0]) == (pytest.approx(-163.84), pytest.approx(163.835))
    # Of 9 bits, 230 would be near the middle.
    high = np.repeat(np.array([0] * 5 + [230] * 90 + [255] * 5, np.uint8)[:, None], 2, axis=1)
    one, _ = segments(high, WaveformSampleInterpretation="UB", ChannelDefinitionSequence=channels)
    assert one.signal.max() == pytest.approx(1.275)


def test_a_single_sample_is_a_group() -> None:
    assert segments(RAW[1:2])[0].signal.tolist() == [0.5]
