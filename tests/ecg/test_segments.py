"""Stretches of leads put together: rates, times, repeats, and what each of them may differ by."""

from __future__ import annotations

import numpy as np
import pytest

from pulse_edge.ecg.recording import Recording
from pulse_edge.ecg.segments import MAX_SAMPLES, Segment, recording_of_segments
from pulse_edge.errors import RecordingError

RATE = 100.0


def wave(first: int, last: int, rate: float = RATE, height: float = 1.0) -> np.ndarray:
    """Samples of a wave that does not repeat within 10 s."""
    time = np.arange(first, last) / rate
    signal = np.sin(2 * np.pi * (1 + 0.05 * time) * time) + 0.2 * np.cos(17 * time)
    return (height * signal).astype(np.float32)


def segment(
    signal: np.ndarray,
    start: float = 0.0,
    lead: str = "V1",
    rate: float = RATE,
    step: float = 0.005,
    group: int = 1,
) -> Segment:
    return Segment(lead, start, rate, signal.astype(np.float32), step, group)


def joined(*segments: Segment) -> Recording:
    return recording_of_segments(segments, "file")


def said(record: Recording, about: str) -> list[str]:
    return [note for note in record.notes if about in note]


def test_stretches_follow_each_other_and_gaps_stay() -> None:
    record = joined(segment(wave(0, 300)), segment(wave(450, 1000), 4.5))
    assert record.signals.shape == (1, 1000)
    assert np.array_equal(record.signals[0, :300], wave(0, 300))
    assert np.isnan(record.signals[0, 300:450]).all()
    assert np.array_equal(record.signals[0, 450:], wave(450, 1000))


@pytest.mark.parametrize(("start", "first"), [(1.004, 100), (1.006, 101), (1.0, 100)])
def test_a_start_is_rounded_to_a_sample(start: float, first: int) -> None:
    record = joined(segment(wave(0, 1000), lead="I"), segment(wave(0, 500), start))
    row = record.signals[record.leads.index("V1")]
    assert np.flatnonzero(np.isfinite(row))[[0, -1]].tolist() == [first, first + 499]


@pytest.mark.parametrize(("samples", "kept"), [(999, 999), (1001, 1001), (1002, 1001)])
def test_a_page_and_the_sample_that_ends_it_is_kept(samples: int, kept: int) -> None:
    assert joined(segment(wave(0, samples))).signals.shape == (1, kept)
    assert joined(segment(wave(0, samples - 500), 5.0)).signals.shape == (1, kept)


def test_a_recording_has_at_least_one_sample() -> None:
    short = segment(np.zeros(1), rate=1)
    assert joined(short, segment(np.zeros(1), lead="V2", rate=4)).signals.shape == (2, 4)


# --- rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_lower_rate_is_drawn_with_straight_lines(factor: int) -> None:
    coarse = wave(0, 100, RATE)
    record = joined(
        segment(wave(0, 100 * factor, factor * RATE), rate=factor * RATE, lead="I"),
        segment(coarse, lead="V2"),
    )
    assert record.rate == factor * RATE
    fine = record.signals[record.leads.index("V2")]
    last = 99 * factor
    expected = np.interp(np.arange(last + 1), factor * np.arange(100), coarse)
    assert np.allclose(fine[: last + 1], expected, atol=1e-6)
    assert np.isnan(fine[last + 1 :]).all()


@pytest.mark.filterwarnings("error")
def test_a_gap_at_a_lower_rate_has_no_lines_into_it() -> None:
    coarse = wave(0, 100)
    coarse[50] = np.inf
    record = joined(
        segment(wave(0, 200, 200), rate=200, lead="I"), segment(coarse, lead="V2", step=0.005)
    )
    blank = np.flatnonzero(~np.isfinite(record.signals[1])[:199])
    assert blank.tolist() == [99, 100, 101]


@pytest.mark.parametrize(
    ("rate", "accepted"), [(50, True), (50.00004, True), (50.0001, False), (40, False)]
)
def test_rates_are_multiples_to_a_millionth(rate: float, accepted: bool) -> None:
    segments = segment(wave(0, 100), lead="I"), segment(wave(0, 50, rate), rate=rate)
    if accepted:
        assert joined(*segments).rate == RATE
        return
    message = rf"^file: lead V1 was sampled at {rate:g} Hz, others at 100 Hz; expected one rate"
    with pytest.raises(RecordingError, match=message):
        joined(*segments)


def test_samples_of_all_leads_are_counted() -> None:
    """1 MHz for 10 s is 10,000,001 samples a lead: three leads fit, a fourth does not."""
    assert MAX_SAMPLES == 33_554_432
    fast = segment(np.zeros(10), rate=1e6, lead="X")
    slow = [segment(np.zeros(10), rate=1, lead=f"V{n}") for n in range(1, 4)]
    with pytest.raises(RecordingError) as caught:
        joined(fast, *slow)
    assert str(caught.value) == (
        "file: 4 leads of 10,000,000 samples; expected at most 33,554,432 in all; store fewer "
        "leads, or at a lower rate"
    )


# --- a lead that is there twice -------------------------------------------------------------------


@pytest.mark.parametrize(("apart", "sound"), [(0.005, True), (0.00504, True), (0.006, False)])
def test_repeats_of_one_group_may_differ_by_a_step(apart: float, sound: bool) -> None:
    one, other = wave(0, 1000), wave(0, 900)
    other[7] += apart
    if sound:
        record = joined(segment(one), segment(other))
        assert np.array_equal(record.signals[0], one)
        assert said(record, "stored twice") == []
    else:
        with pytest.raises(RecordingError, match=r"differ by up to 0.01 mV; expected one"):
            joined(segment(one), segment(other))


def test_the_coarser_step_of_two_repeats_counts() -> None:
    one, other = wave(0, 1000), wave(0, 900) + np.float32(0.019)
    segments = [segment(one, step=0.001), segment(other, step=0.02)]
    assert np.array_equal(joined(*segments).signals[0], one)
    assert np.array_equal(joined(*reversed(segments)).signals[0], one)


@pytest.mark.parametrize(("share", "sound"), [(0.19, True), (-0.19, True), (0.21, False)])
def test_repeats_of_two_groups_may_differ_by_a_fifth(share: float, sound: bool) -> None:
    """Of their own size, whatever that is: a strip has a filter of its own."""
    for height in (0.2, 2.0):
        one = wave(0, 1000, height=height)
        one -= one.mean()
        other = (1 + share) * one[:500]
        segments = segment(one), segment(other, group=2)
        if sound:
            apart = abs(share) * np.abs(one[:500]).max()
            assert said(joined(*segments), "twice") == [
                f"V1 is stored twice, up to {apart:.2f} mV apart; the longer one is drawn."
            ]
        else:
            with pytest.raises(RecordingError, match=r"^file: more than one signal is named V1"):
                joined(*segments)


def test_a_baseline_is_no_size() -> None:
    """Of 2 mV of offset and 0.1 mV of wave, a fifth is 0.02 mV."""
    one = wave(0, 1000, height=0.1) + np.float32(2)
    with pytest.raises(RecordingError, match="more than one signal"):
        joined(segment(one), segment(one[:500] + np.float32(0.05), group=2))


def test_the_longest_stretch_is_drawn_and_others_fill_its_gaps() -> None:
    whole = wave(0, 1000)
    holed = whole.copy()
    holed[400:500] = np.nan
    strip = 1.1 * whole[300:600]
    for segments in (
        (segment(holed), segment(strip, 3.0, group=2)),
        (segment(strip, 3.0, group=2), segment(holed)),
    ):
        row = joined(*segments).signals[0]
        assert np.array_equal(row[:400], whole[:400])
        assert np.allclose(row[400:500], 1.1 * whole[400:500])
        assert np.array_equal(row[500:], whole[500:])


def test_a_third_stretch_is_compared_with_the_group_that_is_drawn_there() -> None:
    """What fills a gap belongs to its own group: a third of that group must equal it."""
    whole = wave(0, 1000)
    parts = [segment(whole[:600]), segment(1.1 * whole[600:1000], 6.0, group=2)]
    third = segment(1.05 * whole[700:900], 7.0, group=1)
    assert said(joined(*parts, third), "stored twice")
    with pytest.raises(RecordingError, match="more than one signal is named V1"):
        joined(*parts, segment(1.05 * whole[700:900], 7.0, group=2))


def test_a_lead_that_is_not_drawn_may_be_there_twice() -> None:
    one, other = wave(0, 500), -wave(0, 1000)
    record = joined(segment(one, lead="X"), segment(other, lead="X"))
    assert np.array_equal(record.signals[0, :500], one)
    assert np.isnan(record.signals[0, 500:]).all()


def test_what_lies_behind_the_page_is_not_compared() -> None:
    one, other = wave(0, 1500), wave(0, 1400)
    other[1001:] += 1
    assert joined(segment(one), segment(other)).signals.shape == (1, 1001)


# --- limb leads -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lead", "noted"), [("I", False), ("aVF", False), ("V1", True), ("V6", True)]
)
def test_coarse_steps_of_limb_leads_widen_the_tolerance_of_the_laws(lead: str, noted: bool) -> None:
    """0.09 mV apart: over 0.05 mV, and within two steps of 0.05 mV."""
    one, two = wave(0, 1000), wave(0, 1000, height=1.5)
    three = two - one
    three[200:300] += 0.09
    rows = {"I": one, "II": two, "III": three, "aVF": two - one / 2, "V1": one, "V6": one}
    segments = [
        segment(row, lead=name, step=0.05 if name == lead else 0.001) for name, row in rows.items()
    ]
    assert bool(said(joined(*segments), "Limb leads disagree")) == noted


def test_notes_of_the_reader_come_first() -> None:
    record = recording_of_segments([segment(wave(0, 1000))], "file", ("Said before.",))
    assert record.notes[0] == "Said before."
    assert record.source == "file"
