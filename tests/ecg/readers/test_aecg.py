"""HL7 aECG XML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pulse_edge.ecg.readers.registry import read_recording
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError

from support.carts.aecg import Stretch, aecg_file
from support.carts.signals import LEADS, millivolts, samples

pytest.importorskip("ecgdatakit", reason="carts' files need pulse-edge[formats]")

SIGNALS = samples()


def read(folder: Path, data: bytes) -> Recording:
    path = folder / "made.xml"
    path.write_bytes(data)
    return read_recording(path)


@pytest.mark.parametrize("absolute", [True, False])
def test_sequence_sets_in_turn_are_one_recording(tmp_path: Path, absolute: bool) -> None:
    parts = [
        Stretch({lead: SIGNALS[lead][1250 * n : 1250 * (n + 1)] for lead in LEADS[3 * n :][:3]},
                2.5 * n)
        for n in range(4)
    ]  # fmt: skip
    record = read(tmp_path, aecg_file(parts, absolute=absolute))
    assert record.missing == ()
    whole = millivolts(SIGNALS)
    for number, lead in enumerate(LEADS):
        row = record.signals[record.leads.index(lead)]
        first = 1250 * (number // 3)
        assert np.allclose(row[first : first + 1250], whole[number, first : first + 1250])
        assert np.isnan(np.delete(row, slice(first, first + 1250))).all()


def test_a_set_after_the_page_is_named_and_not_drawn(tmp_path: Path) -> None:
    later = Stretch(SIGNALS, 30)
    record = read(tmp_path, aecg_file([Stretch(SIGNALS), later]))
    assert record.notes == ("Not drawn: sequence set 2, which begins after 30.0 s.",)


@pytest.mark.parametrize(
    ("increment", "rate"),
    [("0.002", 500), ("0.004", 250), ("0.00390625", 256), ("0.003", 1000 / 3)],
)
def test_rates_may_be_fractions(tmp_path: Path, increment: str, rate: float) -> None:
    record = read(tmp_path, aecg_file([Stretch(SIGNALS)], increment=increment))
    assert record.rate == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(("unit", "size"), [("uV", 5.0), ("mV", 0.005), ("nV", 5000.0)])
def test_units(tmp_path: Path, unit: str, size: float) -> None:
    record = read(tmp_path, aecg_file([Stretch(SIGNALS)], unit=unit, step=size))
    assert np.allclose(record.signals, millivolts(SIGNALS), atol=1e-6)


@pytest.mark.parametrize("unit", ["", "mm[Hg]", "1"])
def test_other_units_are_refused(tmp_path: Path, unit: str) -> None:
    with pytest.raises(RecordingError, match="has no unit of voltage"):
        read(tmp_path, aecg_file([Stretch(SIGNALS)], unit=unit))


def test_names_of_elements_may_have_a_prefix(tmp_path: Path) -> None:
    record = read(tmp_path, aecg_file([Stretch(SIGNALS)], prefix="hl7"))
    assert record.leads == LEADS
    assert record.cart.measurements["PR interval"] == 148


def test_a_representative_beat_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="holds only an averaged beat"):
        read(tmp_path, aecg_file([Stretch(SIGNALS)], series="REPRESENTATIVE_BEAT"))


def test_an_inverted_lead_is_turned_never_renamed(tmp_path: Path) -> None:
    turned = dict(SIGNALS) | {"AVRNEG": -SIGNALS["aVR"]}
    del turned["aVR"]
    record = read(tmp_path, aecg_file([Stretch(turned)]))
    assert record.derived == ("aVR",)
    row = record.signals[record.leads.index("aVR")]
    assert np.allclose(row, millivolts(SIGNALS)[3])


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b'increment value="0.002"', b'increment value="0"'),
        lambda data: data.replace(b'increment value="0.002"', b'increment value="x"'),
        lambda data: data.replace(b'increment value="0.002" unit="s"', b'increment value="0.002"'),
        lambda data: data.replace(b"<digits>", b"<digits>x "),
        lambda data: data.replace(b"digits>", b"numbers>"),
        lambda data: data.replace(b"MDC_ECG_LEAD", b"MDC_PRESS"),
        lambda data: data.replace(b"series>", b"sequel>"),
        lambda data: data[:-30],
    ],
)
def test_damage_is_refused_in_one_line(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    data = aecg_file([Stretch(SIGNALS)])
    assert change(data) != data
    with pytest.raises(RecordingError) as caught:
        read(tmp_path, change(data))
    assert len(str(caught.value).splitlines()) == 1


def test_statements_and_measurements_are_the_carts(tmp_path: Path) -> None:
    cart = read(tmp_path, aecg_file([Stretch(SIGNALS)])).cart
    assert cart.statements == ("Sinus rhythm",)
    assert cart.measurements == {"heart rate": 75, "PR interval": 148, "QTc interval": 410}
    assert cart.filters.lowpass == 150
