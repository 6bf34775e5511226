"""Samples: sign, offset, padding, byte order and form of what a file stores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pulse_edge.ecg.readers.dicom_samples import (
    looks_swapped,
    offset_binary,
    recorded,
    stored_values,
)
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


# ---- by themselves -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "samples", "stored", "values"),
    [
        ("u2", [0, 255], 8, [0, 255]),
        ("u2", [0, 256], 8, "has the sample 256; expected 0 to 255 in 8 bits"),
        ("u1", [0, 1], 1, [0, 1]),
        ("u1", [0, 2], 1, "has the sample 2; expected 0 to 1 in 1 bits"),
        ("i2", [-128, 127], 8, [-128, 127]),
        ("i2", [-129, 127], 8, "samples from -129 to 127; expected -128 to 127 in 8 bits"),
        ("i2", [-128, 128], 8, "samples from -128 to 128; expected -128 to 127 in 8 bits"),
        ("i2", [0, 127, 128, 255], 8, [0, 127, -128, -1]),
        ("i2", [5, 256], 8, "samples from 5 to 256; expected -128 to 127 in 8 bits"),
        ("i2", [-1, 255], 8, "samples from -1 to 255"),
        ("i4", [0, 0x800000, 0xFFFFFF], 24, [0, -0x800000, -1]),
        ("i2", [-32768, 32767], 16, [-32768, 32767]),
        ("i2", [-32768, 32767], 40, [-32768, 32767]),
        ("i2", [-32768], 15, "samples from -32,768 to -32,768; expected -16,384 to 16,383"),
        ("i2", [1], 0, "stores 0 bits; expected 1 to 16"),
        ("i2", [], -1, "stores -1 bits; expected 1 to 16"),
        ("i2", [], 8, []),
    ],
)
def test_stored_bits(dtype: str, samples: list[int], stored: int, values: Any) -> None:
    raw = np.array(samples, dtype)
    if isinstance(values, list):
        assert stored_values(raw, stored, ValueError).tolist() == values
    else:
        with pytest.raises(ValueError, match=values):
            stored_values(raw, stored, ValueError)


@pytest.mark.parametrize(
    ("samples", "padding", "blank"),
    [
        ([5, -3, 9, 9, 4], 9, [2, 3]),  # outside the signal: each of them
        ([5, -3, -9, 4], -9, [2]),
        ([5, -3, 4, 4, 4], 4, [2, 3, 4]),  # a run of three, inside the range
        ([5, -3, 4, 4, -3, 4, 5], 4, []),  # shorter runs are the signal
        ([4, 4, 4, 5, -3, 4, 4, 5], 4, [0, 1, 2]),
        ([4, 4, 5, -3, 4, 4, 4], 4, [4, 5, 6]),
        ([5, 9, 0, 9, 5], 0, []),  # 0 is the signal's own, also at its range's end
        ([5, 0, 0, 0, 5], 0, [1, 2, 3]),
        ([5, 3, 3, 7], 3, [1, 2]),  # the least of the others is 5
        ([5, 3, 3, 3, 7, 3, 2, 5], 3, [1, 2, 3]),
        ([4, 4], 4, [0, 1]),  # nothing but padding
        ([1, 2], None, []),
        ([1, 2], 7, []),
        ([0, 0], None, []),
    ],
)
def test_padding_in_runs_of_three(
    samples: list[int], padding: int | None, blank: list[int]
) -> None:
    kept = recorded(np.array(samples, np.int16), padding, 3)
    assert np.flatnonzero(~kept).tolist() == blank


def spread(low: float, middle: float, high: float) -> np.ndarray:
    """101 samples whose 1st, 50th and 99th percentiles these are."""
    samples = np.full(101, middle)
    samples[:25], samples[-25:] = low, high
    samples[0], samples[-1] = 0, 1e6  # outliers do not count
    return samples


@pytest.mark.parametrize(
    ("samples", "stored", "wrong"),
    [
        (spread(100, 150, 200), 16, False),  # its least is not over its span
        (spread(101, 150, 200), 16, True),
        (spread(0, 575, 1023), 10, True),  # 512 and a 16th of 1,024
        (spread(0, 577, 1023), 10, False),
        (spread(0, 449, 1023), 10, True),
        (spread(0, 447, 1023), 10, False),
        (spread(0, 512, 1024), 16, False),  # over what 10 bits hold, below 11 bits' middle
        (spread(0, 2048, 4000), 16, True),  # a converter of 12 bits
        (spread(0, 1024, 2000), 11, True),  # or of as many as are stored
        (spread(0, 1024, 2000), 16, False),
        (spread(0, 2.0**31, 3e9), 32, True),
        (spread(0, 2.0**32, 6e9), 33, False),
        (spread(0, 20, 400), 16, False),
        (np.empty(0), 16, False),
    ],
)
def test_an_offset_is_the_middle_of_a_converters_range(
    samples: np.ndarray, stored: int, wrong: bool
) -> None:
    reason = offset_binary(samples, stored)
    assert (reason is not None) == wrong
    if samples.size and wrong:
        low, high = np.percentile(samples, (1, 99))
        assert f"unsigned samples of {low:,.0f} to {high:,.0f} and no" in str(reason)


def swapped(rows: list[list[int]], dtype: str = "<i2") -> bool:
    return looks_swapped(np.array(rows, dtype))


def test_smooth_in_the_other_order_and_rough_in_this_one() -> None:
    smooth = [-300, -210, -90, 40, 180, 310, 260, 120, -20, -170]
    other = np.array(smooth, "<i2").byteswap().tolist()
    assert swapped([other, other])
    assert not swapped([smooth, smooth])
    assert not swapped([other[:2]])
    assert swapped([other[:3]])
    assert not looks_swapped(np.array([other], "<i2").view("i1"))
    assert not swapped([[0] * 8])
    wide = np.array(smooth, "<i4").byteswap().tolist()
    assert swapped([wide], "<i4")


def test_a_channel_of_another_level_is_no_roughness() -> None:
    """Jumps are measured within channels, and against the deviation within them."""
    slow = list(range(0, 4096, 256))  # its low bytes are 0: swapped, it would rise by ones
    assert not swapped([slow])
    assert not swapped([slow, [value + 20_000 for value in slow]])


@pytest.mark.parametrize(
    ("samples", "wrong"),
    [
        (np.arange(101) + 98, True),  # from 99 to 197, the outer percents left out
        (np.arange(101) + 97, False),
        (np.arange(101) * 8 + 48, True),  # around 448: a 16th of 1,024 below 512
        (np.arange(101) * 8 + 47, False),
        (np.arange(101) * 8 + 176, True),  # around 576
        (np.arange(101) * 8 + 177, False),
    ],
)
def test_percentiles_of_samples_decide(samples: np.ndarray, wrong: bool) -> None:
    assert (offset_binary(samples, 16) is not None) == wrong
