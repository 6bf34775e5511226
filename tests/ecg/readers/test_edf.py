"""EDF and EDF+."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pulse_edge.ecg.readers.registry import read_recording
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError

from support.carts.edf import edf_file
from support.carts.signals import LEADS, eight, millivolts, samples

pytest.importorskip("ecgdatakit", reason="carts' files need pulse-edge[formats]")

SIGNALS = samples()


def read(folder: Path, data: bytes) -> Recording:
    path = folder / "made.edf"
    path.write_bytes(data)
    return read_recording(path)


@pytest.mark.parametrize("kind", ["", "EDF+C", "EDF+D"])
@pytest.mark.parametrize("seconds", [0.1, 1, 2.5, 10])
def test_kinds_and_lengths_of_records(tmp_path: Path, kind: str, seconds: float) -> None:
    record = read(tmp_path, edf_file(SIGNALS, kind=kind, seconds=seconds))
    assert record.leads == LEADS
    assert np.allclose(record.signals, millivolts(SIGNALS), atol=1e-5)


@pytest.mark.parametrize(("unit", "size"), [("uV", 5.0), ("mV", 0.005)])
def test_units(tmp_path: Path, unit: str, size: float) -> None:
    record = read(tmp_path, edf_file(SIGNALS, unit=unit, step=size))
    assert np.allclose(record.signals, millivolts(SIGNALS), atol=1e-5)


@pytest.mark.parametrize("unit", ["", "mmHg", "%"])
def test_other_units_are_refused(tmp_path: Path, unit: str) -> None:
    with pytest.raises(RecordingError, match="has no unit of voltage"):
        read(tmp_path, edf_file(SIGNALS, unit=unit))


@pytest.mark.parametrize("label", ["{}", "ECG {}", "EKG {}", "ECG-{}", "Lead {}"])
def test_names_of_leads(tmp_path: Path, label: str) -> None:
    assert read(tmp_path, edf_file(SIGNALS, label=label)).missing == ()


def test_eight_leads_make_twelve(tmp_path: Path) -> None:
    assert read(tmp_path, edf_file(eight(SIGNALS))).derived == ("III", "aVR", "aVL", "aVF")


def test_gaps_between_records_stay_gaps(tmp_path: Path) -> None:
    onsets = [0, 1, 2, 5, 6, 7, 8, 9, 10, 11]
    record = read(tmp_path, edf_file(SIGNALS, kind="EDF+D", onsets=onsets))
    row = record.signals[0]
    whole = millivolts(SIGNALS)[0]
    assert np.allclose(row[:1500], whole[:1500], atol=1e-5)
    assert np.isnan(row[1500:2500]).all()
    assert np.allclose(row[2500:5000], whole[1500:4000], atol=1e-5)
    assert any(note.startswith("With gaps: I") for note in record.notes)


def test_a_file_that_was_not_closed_is_read_to_its_end(tmp_path: Path) -> None:
    assert read(tmp_path, edf_file(SIGNALS, count=-1)).duration == 10


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cut off: 9 data records of 10"):
        read(tmp_path, edf_file(SIGNALS)[:-1])


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:236] + b"x       " + data[244:],
        lambda data: data[:236] + b"-7      " + data[244:],
        lambda data: data[:236] + b"0       " + data[244:],
        lambda data: data[:244] + b"0       " + data[252:],
        lambda data: data[:244] + b"nan     " + data[252:],
        lambda data: data[:244] + b"1e-9    " + data[252:],
        lambda data: data[:252] + b"9999" + data[256:],
        lambda data: data[:252] + b"0   " + data[256:],
        lambda data: data[:1000],
        lambda data: data[:256],
    ],
)
def test_damage_is_refused_in_one_line(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(RecordingError) as caught:
        read(tmp_path, change(edf_file(SIGNALS)))
    assert len(str(caught.value).splitlines()) == 1


def test_filters_are_the_carts(tmp_path: Path) -> None:
    filters = read(tmp_path, edf_file(SIGNALS, kind="")).cart.filters
    assert (filters.highpass, filters.lowpass, filters.notch) == (0.05, 150, 50)
