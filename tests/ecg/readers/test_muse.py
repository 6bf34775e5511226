"""GE MUSE XML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.ecg.readers.registry import read_recording
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError

from support.carts.muse import muse_file
from support.carts.signals import LEADS, eight, millivolts, samples

pytest.importorskip("ecgdatakit", reason="carts' files need pulse-edge[formats]")

SIGNALS = samples()


def read(folder: Path, data: bytes) -> Recording:
    path = folder / "made.xml"
    path.write_bytes(data)
    return read_recording(path)


def test_limb_leads_are_derived_and_called_so(tmp_path: Path) -> None:
    record = read(tmp_path, muse_file(eight(SIGNALS)))
    assert record.derived == ("III", "aVR", "aVL", "aVF")
    assert "Derived from other leads, not recorded: III aVR aVL aVF." in record.notes
    assert record.missing == ()
    assert read(tmp_path, muse_file(SIGNALS)).derived == ()


def test_filters_measurements_and_statements_are_the_carts(tmp_path: Path) -> None:
    cart = read(tmp_path, muse_file(eight(SIGNALS))).cart
    assert cart.to_dict() == {
        "format": "GE MUSE XML",
        "filters_hz": {"highpass": 0.56, "lowpass": 150.0, "notch": 50.0},
        "measurements": {
            "heart rate": 75.0,
            "PR interval": 148.0,
            "QRS duration": 90.0,
            "QT interval": 380.0,
            "P axis": 40.0,
            "QRS axis": 50.0,
            "T axis": 0.0,
            "QTc interval": 410.0,
        },
        "statements": ["Sinus rhythm"],
    }
    assert cart.left_out == 1


@pytest.mark.parametrize(
    ("unit", "size"),
    [("MICROVOLTS", 5.0), ("UV", 5.0), ("MILLIVOLTS", 0.005), ("NANOVOLTS", 5000.0), ("V", 5e-6)],
)
def test_units_of_voltage(tmp_path: Path, unit: str, size: float) -> None:
    record = read(tmp_path, muse_file(SIGNALS, unit=unit, step=size))
    assert np.allclose(record.signals, millivolts(SIGNALS), atol=1e-6)
    assert record.leads == LEADS


@pytest.mark.parametrize("unit", ["", "COUNTS", "MMHG"])
def test_a_lead_without_a_unit_of_voltage_is_refused(tmp_path: Path, unit: str) -> None:
    with pytest.raises(RecordingError, match="lead I has no unit of voltage; expected one of nV"):
        read(tmp_path, muse_file(SIGNALS, unit=unit))


@pytest.mark.parametrize(
    ("unit", "size", "message"),
    [
        ("MILLIVOLTS", 5.0, r"lead I has 5 mV a count; expected 1e-06 to 1 mV"),
        ("MICROVOLTS", 0.001, r"has 1e-06 mV a count|spans .* a factor of 1000 would make"),
        ("MILLIVOLTS", 0.5, r"lies between .* mV; .*a factor of 0.001 would make them plausible"),
        ("MICROVOLTS", 0.0, r"lead I has 0 mV a count"),
        ("MICROVOLTS", float("nan"), r"lead I has nan mV a count"),
    ],
)
def test_implausible_units_are_refused_with_the_factor(
    tmp_path: Path, unit: str, size: float, message: str
) -> None:
    loud = {lead: row * 20 if size == 0.5 else row for lead, row in SIGNALS.items()}
    with pytest.raises(RecordingError, match=message):
        read(tmp_path, muse_file(loud, unit=unit, step=size))


def test_a_median_beat_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="holds only an averaged beat; expected a rhythm"):
        read(tmp_path, muse_file(SIGNALS, kinds=("Median",)))


@pytest.mark.parametrize("kinds", [("Rhythm",), ("Median", "Rhythm"), ("Rhythm", "Median")])
def test_a_median_beat_is_never_drawn(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    record = read(tmp_path, muse_file(SIGNALS, kinds=kinds))
    assert np.allclose(record.signals, millivolts(SIGNALS), atol=1e-6)


def test_more_rhythm_waveforms_are_named(tmp_path: Path) -> None:
    record = read(tmp_path, muse_file(SIGNALS, kinds=("Rhythm", "Rhythm")))
    assert record.notes == (
        "Not drawn: 1 more rhythm waveforms of the file.",
        "Left out: 1 statement of the cart that may name somebody.",
    )


def test_checksums_that_differ_are_named(tmp_path: Path) -> None:
    record = read(tmp_path, muse_file(SIGNALS, checksums=False))
    assert record.notes[0] == "The samples do not have the checksums that the file states."


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    prolog = f'<?xml version="1.0" encoding="{encoding}"?>'
    data = muse_file(SIGNALS, encoding=encoding, prolog=prolog)
    assert read(tmp_path, data).duration == 10


@pytest.mark.parametrize(
    "prolog",
    [
        "",
        "\n\n",
        '<?xml version="1.0"?>',
        '<?xml version="1.0"?><!-- a > b <RestingECGdata> -->',
        '<?xml version="1.0"?><!DOCTYPE RestingECG SYSTEM "restecg.dtd">',
        '<?xml version="1.0"?><?xml-stylesheet href="x.xsl"?>' + "<!-- long -->" * 900,
    ],
)
def test_what_stands_before_the_root_does_not_matter(tmp_path: Path, prolog: str) -> None:
    assert read(tmp_path, muse_file(SIGNALS, prolog=prolog)).duration == 10


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"<SampleBase>500", b"<SampleBase>0"),
        lambda data: data.replace(b"<SampleBase>500", b"<SampleBase>5e99"),
        lambda data: data.replace(b"<LeadSampleCountTotal>5000", b"<LeadSampleCountTotal>4999"),
        lambda data: data.replace(b"<LeadByteCountTotal>10000", b"<LeadByteCountTotal>9999"),
        lambda data: data.replace(b"<WaveFormData>", b"<WaveFormData>?"),
        lambda data: data.replace(b"<LeadSampleSize>2", b"<LeadSampleSize>3"),
        lambda data: data.replace(b"<LeadID>V1</LeadID>", b""),
        lambda data: data.replace(b"Waveform>", b"Wave>"),
        lambda data: data[:-20],
    ],
)
def test_damage_is_refused_in_one_line(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    data = muse_file(SIGNALS)
    assert change(data) != data
    with pytest.raises(RecordingError) as caught:
        read(tmp_path, change(data))
    assert len(str(caught.value).splitlines()) == 1


def test_a_lead_that_is_there_twice_is_accepted_if_equal(tmp_path: Path) -> None:
    data = muse_file(SIGNALS).replace(b"<LeadID>V6</LeadID>", b"<LeadID>V5</LeadID>")
    with pytest.raises(RecordingError, match="more than one signal is named V5"):
        read(tmp_path, data)
    same: dict[str, Any] = dict(SIGNALS) | {"V6": SIGNALS["V5"]}
    data = muse_file(same).replace(b"<LeadID>V6</LeadID>", b"<LeadID>V5</LeadID>")
    assert read(tmp_path, data).missing == ("V6",)
