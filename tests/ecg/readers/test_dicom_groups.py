"""Multiplex groups: put together by lead and time, or refused by name."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pulse_edge.ecg.drawing import draw_ink, draw_page
from pulse_edge.ecg.layout import PageStyle
from pulse_edge.ecg.recording import LEADS
from pulse_edge.errors import RecordingError

from support.dicom_files import Read, channel, dataset, ecg, group, millivolts

PARTS = (LEADS[0:3], LEADS[3:6], LEADS[6:9], LEADS[9:12])


def part(leads: tuple[str, ...], start: float, seconds: float, **values: Any) -> Any:
    """Some leads of the ECG from `start` on, as a group with a time offset."""
    signals = ecg(seconds, values.get("rate", 250), start)
    offset = {"MultiplexGroupTimeOffset": f"{1000 * start:g}"}
    return group({lead: signals[lead] for lead in leads}, **(offset | values))


def sequential(seconds: float = 2.5, **values: Any) -> list[Any]:
    """Four groups of three leads, one after the other, as in PS3.3's example of A.34.3."""
    return [part(leads, n * seconds, seconds, **values) for n, leads in enumerate(PARTS)]


def pages_agree(one: Any, other: Any) -> bool:
    first, second = (np.asarray(draw_ink(record)).astype(int) for record in (one, other))
    return bool((np.abs(first - second) > 1).sum() == 0)


def test_sequential_groups_are_one_recording(read: Read) -> None:
    record = read(dataset(*sequential(), part(("II",), 0, 10)))
    whole = read(dataset())
    assert (record.leads, record.missing, record.duration) == (LEADS, (), 10)
    for n, leads in enumerate(PARTS):
        span = slice(625 * n, 625 * (n + 1))
        for lead in set(leads) - {"II"}:
            row = LEADS.index(lead)
            assert (record.signals[row, span] == whole.signals[row, span]).all()
            assert np.isnan(np.delete(record.signals[row], np.arange(2500)[span])).all()
    assert (record.signals[1] == whole.signals[1]).all()
    assert any(
        note.startswith("Recorded in part: I III from 0.0 to 2.5 s") for note in record.notes
    )


@pytest.mark.parametrize("shuffled", [[3, 1, 0, 2], [2, 3, 1, 0], [1, 0, 3, 2]])
def test_the_order_of_groups_does_not_matter(read: Read, shuffled: list[int]) -> None:
    groups = sequential()
    record = read(dataset(*(groups[n] for n in shuffled)))
    plain = read(dataset(*sequential()))
    for lead in LEADS:
        one, other = (item.signals[item.leads.index(lead)] for item in (record, plain))
        assert np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize("origin", [-5000, 40, 123456.5])
def test_offsets_count_from_the_first_group(read: Read, origin: float) -> None:
    groups = sequential()
    for item in groups:
        item.MultiplexGroupTimeOffset = f"{float(item.MultiplexGroupTimeOffset) + origin:g}"
    plain = read(dataset(*sequential()))
    assert np.array_equal(read(dataset(*groups)).signals, plain.signals, equal_nan=True)


@pytest.mark.parametrize("split", [(6,), (1, 2), (3, 6, 9), (8, 11), tuple(range(1, 12))])
def test_leads_of_one_time_in_several_groups(read: Read, split: tuple[int, ...]) -> None:
    bounds = (0, *split, 12)
    groups = [part(LEADS[a:b], 0, 10) for a, b in pairwise(bounds)]
    del groups[0].MultiplexGroupTimeOffset
    record = read(dataset(*groups))
    assert record.leads == LEADS
    assert (record.signals == read(dataset()).signals).all()
    assert record.notes == ()


@pytest.mark.parametrize("rates", [(250, 500), (500, 250), (250, 1000), (125, 1000), (250, 750)])
def test_rates_that_divide_each_other_draw_the_same_lines(
    read: Read, rates: tuple[int, int]
) -> None:
    first, second = rates
    record = read(dataset(part(LEADS[:6], 0, 10, rate=first), part(LEADS[6:], 0, 10, rate=second)))
    assert record.rate == max(rates)
    for leads, rate in ((LEADS[:6], first), (LEADS[6:], second)):
        alone = read(dataset(part(leads, 0, 10, rate=rate)))
        rows = record.signals[[record.leads.index(lead) for lead in leads]]
        factor = round(record.rate / rate)
        assert (rows[:, ::factor][:, : alone.signals.shape[1]] == alone.signals).all()
        middle = rows[:, 1 : 1 + factor * 99]
        line = np.interp(
            1 + np.arange(factor * 99), factor * np.arange(101), alone.signals[0, :101]
        )
        assert np.allclose(middle[0], line, atol=1e-5)


def test_other_rates_are_refused(read: Read) -> None:
    groups = part(LEADS[:6], 0, 10, rate=300), part(LEADS[6:], 0, 10, rate=500)
    with pytest.raises(RecordingError, match=r"lead I was sampled at 300 Hz, others at 500 Hz"):
        read(dataset(*groups))


@pytest.mark.parametrize("offset", ["10000", "60000", "1e9", "-1e9"])
def test_a_lead_that_begins_after_the_page_is_refused(read: Read, offset: str) -> None:
    groups = part(LEADS[:6], 0, 10), part(LEADS[6:], 0, 10, MultiplexGroupTimeOffset=offset)
    with pytest.raises(RecordingError, match=r"group \d \((V1|I) .*less than 10 s.*Offset \(ms\)"):
        read(dataset(*groups))


@pytest.mark.parametrize("offset", ["nan", "inf", "-inf"])
def test_an_offset_that_is_no_number_is_refused(read: Read, offset: str) -> None:
    later = part(LEADS[6:], 0, 10)
    later.add_new("MultiplexGroupTimeOffset", "LO", offset)
    with pytest.raises(RecordingError, match="group 2 has a Multiplex Group Time Offset of"):
        read(dataset(part(LEADS[:6], 0, 10), later))


def test_a_second_recording_after_the_page_is_said(read: Read) -> None:
    record = read(dataset(part(LEADS, 0, 10), part(LEADS, 30, 10)))
    assert (record.signals == read(dataset()).signals).all()
    assert record.notes == ("Not drawn: group 2, which begins after 30.0 s.",)


@pytest.mark.parametrize("split", [1, 4, 9])
def test_groups_that_follow_each_other_are_joined(read: Read, split: int) -> None:
    record = read(dataset(part(LEADS, 0, split), part(LEADS, split, 10 - split)))
    assert (record.signals == read(dataset()).signals).all()
    assert record.notes == ()


@pytest.mark.parametrize(
    ("order", "page"),
    [((3, 1, 2, 0), "V4 was recorded from 0.0"), ((0, 2, 1, 3), "V1 was recorded from 2.5")],
)
def test_leads_that_lie_elsewhere_are_not_drawn_blank(
    read: Read, order: tuple[int, ...], page: str
) -> None:
    record = read(dataset(*(part(PARTS[n], 2.5 * place, 2.5) for place, n in enumerate(order))))
    with pytest.raises(RecordingError, match=f"lead {page} to .*layout 12x1"):
        draw_page(record)
    draw_page(record, PageStyle(layout="12x1"))


# ---- a lead that is there twice ------------------------------------------------------------------


@pytest.mark.parametrize("lead", ["I", "II", "aVF", "V1", "V6"])
def test_an_equal_thirteenth_channel_is_accepted(read: Read, lead: str) -> None:
    signals = ecg()
    channels = [channel(name) for name in (*LEADS, lead)]
    record = read(dataset(group(signals | {"13": signals[lead]}, channels)))
    assert record.leads == LEADS
    assert record.notes == ()


def test_a_repeat_may_differ_by_rounding(read: Read) -> None:
    signals = ecg()
    fine = {"13": 2 * signals["II"] + 1}  # steps of 2.5 uV
    channels = [channel(name) for name in LEADS] + [channel("II", ChannelSensitivity="2.5")]
    assert read(dataset(group(signals | fine, channels))).notes == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda row: -row,
        lambda row: np.roll(row, 5),
        lambda row: row + 3,
        lambda row: row * 11 // 10,
        lambda row: np.where(np.arange(len(row)) == 700, row + 60, row),
    ],
)
def test_a_thirteenth_channel_that_differs_is_refused(read: Read, change: Any) -> None:
    signals = ecg()
    channels = [channel(name) for name in (*LEADS, "II")]
    with pytest.raises(RecordingError, match=r"more than one signal is named II, .* \d\.\d\d mV"):
        read(dataset(group(signals | {"13": change(signals["II"])}, channels)))


@pytest.mark.parametrize(("gain", "apart"), [(0.9, "0.10"), (1.1, "0.10"), (0.95, "0.05")])
def test_a_rhythm_strip_with_a_filter_of_its_own_is_said(
    read: Read, gain: float, apart: str
) -> None:
    strip = {"II": np.rint(ecg()["II"] * gain).astype(int)}
    record = read(dataset(*sequential(), group(strip, MultiplexGroupTimeOffset="0")))
    assert np.allclose(record.signals[1], millivolts(strip)[0])
    assert any(f"II is stored twice, up to {apart} mV apart" in note for note in record.notes)


@pytest.mark.parametrize("gain", [-1.0, 0.5, 1.5])
def test_a_rhythm_strip_of_another_signal_is_refused(read: Read, gain: float) -> None:
    strip = {"II": np.rint(ecg()["II"] * gain).astype(int)}
    with pytest.raises(RecordingError, match="more than one signal is named II"):
        read(dataset(*sequential(), group(strip, MultiplexGroupTimeOffset="0")))


# ---- original, derived, averaged -----------------------------------------------------------------


def test_original_leads_win_over_derived_ones(read: Read) -> None:
    doubled = {lead: 2 * row for lead, row in ecg().items()}
    derived = group(doubled, WaveformOriginality="DERIVED")
    for groups in ((derived, group(ecg())), (group(ecg()), derived)):
        record = read(dataset(*groups))
        assert np.allclose(record.signals, millivolts(ecg()))
        assert record.notes == ()


def test_derived_leads_fill_what_was_not_recorded(read: Read) -> None:
    eight = tuple(lead for lead in LEADS if lead in ("I", "II") or lead[0] == "V")
    rest = tuple(lead for lead in LEADS if lead not in eight)
    doubled = {lead: 2 * row if lead in eight else row for lead, row in ecg().items()}
    record = read(dataset(part(eight, 0, 10), group(doubled, WaveformOriginality="DERIVED")))
    by_lead = dict(zip(record.leads, record.signals, strict=True))
    for lead, expected in zip(LEADS, millivolts(ecg()), strict=True):
        assert np.allclose(by_lead[lead], expected)
    assert record.notes == (f"Derived by the cart, not recorded: {' '.join(rest)}.",)


def test_derived_leads_alone_are_drawn_and_said(read: Read) -> None:
    record = read(dataset(group(ecg(), WaveformOriginality="DERIVED")))
    assert np.allclose(record.signals, millivolts(ecg()))
    assert record.notes == (f"Derived by the cart, not recorded: {' '.join(LEADS)}.",)


@pytest.mark.parametrize(
    "label", ["MEDIAN BEAT", "Median", "AVERAGED BEAT", "REPRESENTATIVE", "median template"]
)
@pytest.mark.parametrize("first", [False, True])
def test_averaged_beats_are_never_drawn(read: Read, label: str, first: bool) -> None:
    beat = {lead: 3 * row for lead, row in ecg(1.2).items()}
    groups = [group(ecg()), group(beat, MultiplexGroupLabel=label)]
    record = read(dataset(*(reversed(groups) if first else groups)))
    assert (record.signals == read(dataset()).signals).all()
    with pytest.raises(RecordingError, match="averaged beat"):
        read(dataset(group(beat, MultiplexGroupLabel=label)))


@pytest.mark.parametrize("seconds", [0.6, 1.2, 1.6])
def test_a_short_group_of_the_same_leads_is_an_averaged_beat(read: Read, seconds: float) -> None:
    beat = {lead: 3 * row for lead, row in ecg(seconds).items()}
    record = read(dataset(group(beat, MultiplexGroupLabel=""), group(ecg())))
    assert (record.signals == read(dataset()).signals).all()


# ---- what is not drawn is said -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["V7", "V3R", "-aVR", "X", "Resp", "ART", "Pleth"])
def test_other_leads_are_listed(read: Read, name: str) -> None:
    signals = ecg()
    extra = signals | {name: signals["I"]}
    unit = {"unit": "mm[Hg]"} if name == "ART" else {}
    channels = [channel(lead) for lead in LEADS] + [channel(name, **unit)]
    said = f"Found but not drawn: {name}."  # of -aVR it is said too what it is
    assert read(dataset(group(extra, channels))).notes[:1] == (said,)
    alone = group({name: signals["I"]}, [channel(name, **unit)], rate=100)
    assert read(dataset(group(signals), alone)).notes[:1] == (said,)


def test_nothing_to_draw_lists_what_there_is(read: Read) -> None:
    signals = ecg()
    foreign = {"X": signals["I"], "Y": signals["II"], "Z": signals["V1"]}
    with pytest.raises(RecordingError, match=r"nothing to draw .*; found: X, Y, Z"):
        draw_page(read(dataset(group(foreign))))


def test_short_and_long_recordings_are_said(read: Read) -> None:
    short = read(dataset(group(ecg(4))))
    assert short.notes == ("The recording ends at 4.0 s; a page is blank from there.",)
    long = read(dataset(group(ecg(60))))
    assert long.signals.shape == (12, 2501)  # the first 10 s, and the sample that ends them
    assert long.notes == ("The recording lasts 60.0 s; a page shows at most the first 10 s.",)
    assert pages_agree(long, read(dataset(group(ecg(11)))))


def test_missing_leads_are_said(read: Read) -> None:
    signals = {lead: row for lead, row in ecg().items() if lead not in ("III", "V6")}
    assert read(dataset(group(signals))).notes == ("Not recorded: III V6.",)


@pytest.mark.parametrize("status", ["DISCONNECTED", "INVALID", "TEST DATA"])
def test_what_the_cart_says_of_a_lead_is_said(read: Read, status: str) -> None:
    channels = [channel(lead) for lead in LEADS]
    channels[7].ChannelStatus = status
    channels[8].ChannelStatus = "OK"
    record = read(dataset(group(ecg(), channels)))
    assert record.notes == (f"The cart marks V2 as {status}.",)


def test_too_many_groups_and_samples_are_refused(read: Read) -> None:
    with pytest.raises(RecordingError, match="65 multiplex groups; expected at most 64"):
        read(dataset(*(part(("I",), 0, 0.1) for _ in range(65))))
    # A few kilobytes that would take gigabytes at the common rate.
    fast = part(("I",), 0, 0.001, rate=1_000_000)
    slow = part(LEADS[1:], 0, 10, rate=1)
    with pytest.raises(RecordingError, match=r"12 leads of 10,000,\d+ samples; expected at most"):
        read(dataset(fast, slow))
