"""WFDB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pulse_edge.ecg.readers.registry import is_recording, read_recording
from pulse_edge.errors import RecordingError

from support.carts.signals import LEADS, eight, millivolts, samples
from support.carts.wfdb import wfdb_files

pytest.importorskip("ecgdatakit", reason="carts' files need pulse-edge[formats]")

SIGNALS = samples()


@pytest.mark.parametrize("form", [16, 24, 32, 61, 160, 212])
def test_formats_of_samples(tmp_path: Path, form: int) -> None:
    record = read_recording(wfdb_files(tmp_path, SIGNALS, form=form))
    assert record.leads == LEADS
    assert np.allclose(record.signals, millivolts(SIGNALS), atol=1e-6)


@pytest.mark.parametrize("form", [8, 80])
def test_formats_of_a_byte(tmp_path: Path, form: int) -> None:
    small = {lead: np.clip(row // 4, -60, 60) for lead, row in samples(10, 250).items()}
    path = wfdb_files(tmp_path, small, form=form, rate=250, gain="50(0)/mV")
    record = read_recording(path)
    rows = np.stack([small[lead] for lead in LEADS]) / 50
    assert np.allclose(record.signals, rows, atol=1e-6)


def test_a_file_of_samples_leads_to_its_header(tmp_path: Path) -> None:
    header = wfdb_files(tmp_path, SIGNALS)
    samples_file = header.with_suffix(".dat")
    assert is_recording(samples_file, samples_file.read_bytes()[:100])
    assert read_recording(samples_file).leads == LEADS


def test_other_files_of_samples_are_none(tmp_path: Path) -> None:
    wfdb_files(tmp_path, SIGNALS, file="other.dat")
    assert not is_recording(tmp_path / "r01.dat", b"")
    with pytest.raises(RecordingError, match="not a waveform recording in a known format"):
        read_recording(tmp_path / "r01.dat")


@pytest.mark.parametrize(
    ("gain", "factor"),
    [("200/mV", 1), ("200", 1), ("200(0)/mV", 1), ("0.2/uV", 1), ("200000/V", 1), ("2e2", 1)],
)
def test_gains(tmp_path: Path, gain: str, factor: float) -> None:
    record = read_recording(wfdb_files(tmp_path, SIGNALS, gain=gain))
    assert np.allclose(record.signals, millivolts(SIGNALS) * factor, atol=1e-6)


@pytest.mark.parametrize("gain", ["200/mmHg", "0", "0/mV"])
def test_signals_without_a_scale_are_refused(tmp_path: Path, gain: str) -> None:
    with pytest.raises(RecordingError, match="has no unit of voltage"):
        read_recording(wfdb_files(tmp_path, SIGNALS, gain=gain))


def test_invalid_samples_are_gaps(tmp_path: Path) -> None:
    holed = {lead: row.copy() for lead, row in SIGNALS.items()}
    holed["V2"][1000:1500] = -32768
    record = read_recording(wfdb_files(tmp_path, holed))
    assert np.isnan(record.signals[7][1000:1500]).all()
    assert "With gaps: V2." in record.notes


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="the checksum of a signal differs"):
        read_recording(wfdb_files(tmp_path, SIGNALS, checksums=False))


def test_only_the_beginning_of_a_long_record_is_read(tmp_path: Path) -> None:
    path = wfdb_files(tmp_path, samples(60))
    record = read_recording(path)
    assert record.signals.shape == (12, 5001)
    assert "The recording lasts 60.0 s" in record.notes[-1]


def test_eight_leads_make_twelve(tmp_path: Path) -> None:
    record = read_recording(wfdb_files(tmp_path, eight(SIGNALS)))
    assert record.derived == ("III", "aVR", "aVL", "aVF")


@pytest.mark.parametrize("file", ["../r01.dat", "/etc/hostname", "a/b.dat", "..", ".hidden", "~"])
def test_files_of_other_folders_are_not_opened(tmp_path: Path, file: str) -> None:
    with pytest.raises(RecordingError, match="expected a file beside the header"):
        read_recording(wfdb_files(tmp_path, SIGNALS, file=file))


def test_a_missing_file_of_samples_is_named_as_such(tmp_path: Path) -> None:
    path = wfdb_files(tmp_path, SIGNALS)
    (tmp_path / "r01.dat").unlink()
    with pytest.raises(RecordingError, match="its file of samples is missing; put it beside"):
        read_recording(path)


def test_samples_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    path = wfdb_files(tmp_path, SIGNALS)
    data = (tmp_path / "r01.dat").read_bytes()
    (tmp_path / "r01.dat").write_bytes(data[:-1000])
    with pytest.raises(RecordingError, match="not a readable WFDB file"):
        read_recording(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("r01 12", "r01/3 12"),
        lambda text: text.replace("r01 12", "r01 13"),
        lambda text: text.replace("r01 12 500", "r01 12 0"),
        lambda text: text.replace("r01 12 500", "r01 12 1e9"),
        lambda text: text.replace(" 16 200", " 516 200"),
        lambda text: text.replace(" 16 200", " 17 200"),
        lambda text: text.replace("200(0)/mV", "twohundred"),
        lambda text: text.replace(" 16 200", " 16x999 200"),
        lambda text: text.replace(" 16 200", " 16+999999999 200"),
        lambda text: text.replace("5000 09", "99999999999 09"),
    ],
)
def test_damage_is_refused_in_one_line(tmp_path: Path, change: Callable[[str], str]) -> None:
    path = wfdb_files(tmp_path, SIGNALS)
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(RecordingError) as caught:
        read_recording(path)
    assert len(str(caught.value).splitlines()) == 1
