"""`pulse-edge sample`: a page and a recording, which the other commands take."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.cli import cli
from pulse_edge.ecg.readers.registry import read_recording
from pulse_edge.ecg.recording import LEADS
from pulse_edge.errors import PulseEdgeError

pydicom = pytest.importorskip("pydicom", reason="a recording needs pulse-edge[ecg]")


def run(*words: object) -> tuple[str, str]:
    done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout, done.stderr


def test_a_page_and_a_recording_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out, err = run("sample")
    assert [line.partition(":")[0] for line in out.splitlines()] == ["sample.png", "sample.dcm"]
    assert err == ""
    assert Path("sample.png").read_bytes() == SAMPLE_PAGE.read_bytes()
    assert run("draw", "sample.dcm", "drawn.png")[0].endswith("10.0 s at 500 Hz\n")


def test_the_recording_is_one_that_breaks_no_rule(tmp_path: Path) -> None:
    """Twelve leads, no notes, Einthoven's law, 74 beats a minute."""
    run("sample", tmp_path)
    recording = read_recording(tmp_path / "sample.dcm")
    assert recording.notes == ()
    assert (recording.rate, recording.duration, recording.leads) == (500, 10, LEADS)
    one, two, three = recording.signals[:3]
    assert np.abs(one + three - two).max() <= 0.0051  # one count
    squared = np.convolve(np.diff(two) ** 2, np.ones(60), "same")
    beats = np.flatnonzero(np.diff((squared > squared.max() / 4).astype(int)) == 1)
    assert 60 / np.median(np.diff(beats) / 500) == pytest.approx(74, abs=1)


def test_the_file_is_dicom_without_a_patient(tmp_path: Path) -> None:
    run("sample", tmp_path)
    record = pydicom.dcmread(tmp_path / "sample.dcm")
    assert record.SOPClassUID.name == "12-lead ECG Waveform Storage"
    assert (str(record.PatientName), record.PatientID) == ("Simulated", "")


def test_the_same_version_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run("sample", tmp_path / name)
    first, second = ((tmp_path / name / "sample.dcm").read_bytes() for name in ("one", "two"))
    assert first == second
    run("sample", tmp_path / "one")  # again: they are there


@pytest.mark.parametrize("name", ["sample.png", "sample.dcm"])
def test_another_file_of_that_name_stays(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(PulseEdgeError, match=rf"{name} exists; name another folder"):
        run("sample", tmp_path)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("folder", ["none", "file"])
def test_a_folder_that_there_is_not_is_said(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PulseEdgeError, match="cannot be written"):
        run("sample", tmp_path / folder)


def test_without_pydicom_there_is_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    out, err = run("sample", tmp_path)
    assert out.count("\n") == 1
    assert err.startswith("note: no sample.dcm: ")
    assert "pip install 'pulse-edge[ecg]'" in err
    assert [path.name for path in tmp_path.iterdir()] == ["sample.png"]
