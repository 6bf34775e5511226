"""Samples: sign, offset, padding, byte order and form of what a file stores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pulse_edge.ecg.recording import LEADS
from pulse_edge.errors import RecordingError

from support.dicom_files import Read, channel, dataset, ecg, group, millivolts


def stored(signals: dict[str, Any], bits: int, **values: Any) -> Any:
    """A data set whose channels store `bits`."""
    channels = [channel(lead, WaveformBitsStored=bits) for lead in signals]
    return dataset(group(signals, channels, **values))


@pytest.mark.parametrize("bits", [10, 11, 12, 13, 14, 15, 16])
def test_samples_without_sign_extension_are_extended(read: Read, bits: int) -> None:
    masked = {lead: row & ((1 << bits) - 1) for lead, row in ecg().items()}
    record = read(stored(masked, bits, dtype="<u2", form="SS"))
    assert np.allclose(record.signals, millivolts(ecg()))


@pytest.mark.parametrize("bits", [10, 11, 12, 15])
def test_samples_with_sign_extension_stay(read: Read, bits: int) -> None:
    record = read(stored(ecg(), bits))
    assert np.allclose(record.signals, millivolts(ecg()))


def test_32_bits_of_which_24_are_stored(read: Read) -> None:
    fine = {lead: 200 * row & 0xFFFFFF for lead, row in ecg().items()}
    channels = [channel(lead, WaveformBitsStored=24, ChannelSensitivity="0.025") for lead in LEADS]
    record = read(dataset(group(fine, channels, dtype="<u4", form="SL")))
    assert np.allclose(record.signals, millivolts(ecg()))


@pytest.mark.parametrize(
    ("bits", "form", "least", "most"),
    [(8, "SS", "-128", "127"), (6, "SS", "-32", "31"), (0, "SS", "1", "16"), (8, "US", "0", "255")],
)
def test_samples_that_do_not_fit_their_bits_are_refused(
    read: Read, bits: int, form: str, least: str, most: str
) -> None:
    raised = {lead: row + 4000 if form == "US" else 3 * row for lead, row in ecg().items()}
    with pytest.raises(RecordingError, match=rf"\(I\) .*expected {least} to {most}"):
        read(stored(raised, bits, form=form))


def test_more_bits_stored_than_allocated_change_nothing(read: Read) -> None:
    assert np.allclose(read(stored(ecg(), 32)).signals, millivolts(ecg()))


def test_a_file_without_bits_stored(read: Read) -> None:
    channels = [channel(lead, WaveformBitsStored=None) for lead in LEADS]
    assert np.allclose(read(dataset(group(ecg(), channels))).signals, millivolts(ecg()))


@pytest.mark.parametrize("step", [0.5, 1.0, 2.5, 5.0])
@pytest.mark.parametrize(("adc", "bits"), [(10, 10), (12, 12), (12, 16), (14, 16), (16, 16)])
def test_offset_binary_without_a_baseline_is_refused(
    read: Read, step: float, adc: int, bits: int
) -> None:
    signals = {lead: row + (1 << (adc - 1)) for lead, row in ecg().items()}
    channels = [
        channel(lead, WaveformBitsStored=bits, ChannelSensitivity=str(step)) for lead in LEADS
    ]
    whole = dataset(group(signals, channels, dtype="<u2", form="US"))
    with pytest.raises(
        RecordingError, match=r"\(I\) has unsigned samples of .*expected a baseline"
    ):
        read(whole)


def test_offset_binary_of_8_bits_is_refused(read: Read) -> None:
    signals = {lead: row // 8 + 128 for lead, row in ecg().items()}
    channels = [channel(lead, WaveformBitsStored=8, ChannelSensitivity="40") for lead in LEADS]
    with pytest.raises(RecordingError, match="offset binary"):
        read(dataset(group(signals, channels, dtype="u1", form="UB")))


@pytest.mark.parametrize("middle", [512, 2048, 8192, 32768])
def test_unsigned_samples_with_a_baseline_are_drawn(read: Read, middle: int) -> None:
    signals = {lead: row + middle for lead, row in ecg().items()}
    channels = [channel(lead, ChannelBaseline=f"{-5 * middle}") for lead in LEADS]
    record = read(dataset(group(signals, channels, dtype="<u2", form="US")))
    assert np.allclose(record.signals, millivolts(ecg()), atol=1e-5)


@pytest.mark.parametrize("form", ["SS", "SL"])
@pytest.mark.parametrize("step", [5.0, 0.5, 0.1])
def test_swapped_bytes_are_refused(read: Read, form: str, step: float) -> None:
    dtype = ">i2" if form == "SS" else ">i4"
    channels = [
        channel(lead, ChannelSensitivity=str(step), WaveformBitsStored=8 * int(dtype[2]))
        for lead in LEADS
    ]
    signals = {lead: np.rint(row * 5 / step).astype(int) for lead, row in ecg().items()}
    with pytest.raises(RecordingError, match="the bytes of the samples are swapped"):
        read(dataset(group(signals, channels, dtype=dtype, form=form)))


def test_rough_signals_and_empty_low_bytes_are_not_swapped(read: Read) -> None:
    noise = np.random.default_rng(3).integers(-100, 100, 2500)
    read(dataset(group({"V1": noise})))
    coarse = {lead: 256 * (row // 8) for lead, row in ecg().items()}
    channels = [channel(lead, ChannelSensitivity="0.15625") for lead in LEADS]
    record = read(dataset(group(coarse, channels)))
    assert np.allclose(record.signals[6:], millivolts(ecg())[6:], atol=0.041)
    read(dataset(group({lead: 0 * row for lead, row in ecg().items()})))


@pytest.mark.parametrize("padding", [-32768, 32767, 9999])
def test_padding_is_blank(read: Read, padding: int) -> None:
    signals = ecg()
    signals["V1"][1000:1010] = padding
    signals["V6"][2000:] = padding
    item = group(signals)
    item.add_new("WaveformPaddingValue", "OW", np.array(padding, "<i2").tobytes())
    record = read(dataset(item))
    blank = np.isnan(record.signals)
    assert blank[6].nonzero()[0].tolist() == list(range(1000, 1010))
    assert blank[11].nonzero()[0].tolist() == list(range(2000, 2500))
    assert blank.sum() == 510
    assert record.notes == ("Recorded in part: V6 from 0.0 to 8.0 s.",)


def test_padding_that_the_signal_takes_as_well_is_blank_in_runs_only(read: Read) -> None:
    """A public sample file pads with 0, which its signals cross hundreds of times."""
    signals = ecg()
    signals["V2"][1000:1200] = 0  # 0.8 s
    signals["V3"][1000:1100] = 0  # 0.4 s
    # No lead rests at 0 for long, as none does on a patient.
    rough = {lead: row + np.arange(2500) % 2 for lead, row in signals.items()}
    for lead, span in (("V2", slice(1000, 1200)), ("V3", slice(1000, 1100))):
        rough[lead][span] = 0
    item = group(rough)
    item.add_new("WaveformPaddingValue", "OW", b"\0\0")
    blank = np.isnan(read(dataset(item)).signals)
    assert blank.sum(axis=1)[LEADS.index("V2")] >= 200
    assert blank.sum() == blank[LEADS.index("V2")].sum()


@pytest.mark.parametrize("form", ["MB", "AB", "XX"])
def test_other_forms_of_samples_are_refused(read: Read, form: str) -> None:
    with pytest.raises(RecordingError, match=f"samples are {form}/8 bits; expected one of SB/8"):
        read(dataset(group(ecg(), dtype="u1", form=form)))
