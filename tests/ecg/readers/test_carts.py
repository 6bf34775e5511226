"""What holds for every format of carts."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from pulse_edge.ecg.readers import registry
from pulse_edge.ecg.readers.registry import HEAD, is_recording, read_bytes, read_recording
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError

from support.carts.signals import LEADS, PLANTED, STEP, millivolts, samples
from support.carts.table import WRITERS

pytest.importorskip("ecgdatakit", reason="carts' files need pulse-edge[formats]")

FORMATS = pytest.mark.parametrize("form", list(WRITERS))
SIGNALS = samples()
COUNT = STEP / 1000  # mV


@FORMATS
def test_all_leads_are_read_within_a_count(tmp_path: Path, form: str) -> None:
    record = read_recording(WRITERS[form](tmp_path, SIGNALS))
    rows = np.stack([record.signals[record.leads.index(lead)] for lead in LEADS])
    assert np.abs(rows - millivolts(SIGNALS)).max() <= COUNT
    stored = [lead for lead in LEADS if lead not in record.derived]
    rows = np.stack([record.signals[record.leads.index(lead)] for lead in stored])
    exact = millivolts(SIGNALS)[[LEADS.index(lead) for lead in stored]]
    assert np.abs(rows - exact).max() < 1e-5
    assert record.rate == 500
    assert record.cart.format == form


@FORMATS
def test_content_decides_and_not_the_name(tmp_path: Path, form: str) -> None:
    path = WRITERS[form](tmp_path, SIGNALS)
    renamed = tmp_path / "no_suffix"
    shutil.copy(path, renamed)
    for name in ("page.png", "other.scp", "another.edf", "more.xml", "no_suffix"):
        shutil.copy(path, tmp_path / name)
        assert is_recording(tmp_path / name, path.read_bytes()[:HEAD])
        assert read_recording(tmp_path / name).cart.format == form


@FORMATS
def test_no_planted_name_gets_out(
    tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record = read_recording(WRITERS[form](tmp_path, SIGNALS))
    out, err = capfd.readouterr()
    seen = repr((record.notes, record.leads, record.facts, record.source, record.cart)) + out + err
    seen += "".join(str(warning.message) for warning in caught)
    assert not [name for name in PLANTED if name in seen.replace(str(tmp_path), "")]


@FORMATS
def test_no_planted_name_is_in_the_error_of_a_damaged_file(tmp_path: Path, form: str) -> None:
    path = WRITERS[form](tmp_path, SIGNALS)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in rng.integers(1, len(data), 12):
        changed = bytearray(data[: int(cut)] if cut % 2 else data)
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
        try:
            message = repr(read_recording(path).facts)
        except RecordingError as error:
            message = str(error)
            assert len(message.splitlines()) == 1
        assert not [name for name in PLANTED if name in message]


@pytest.mark.parametrize("form", ["EDF", "WFDB"])
@pytest.mark.parametrize("name", [*PLANTED[:3], f"V6 {PLANTED[0]}", f"II {PLANTED[0]}"])
def test_a_channel_that_is_named_like_a_person_is_unnamed(
    tmp_path: Path, form: str, name: str
) -> None:
    named = {lead: row for lead, row in SIGNALS.items() if lead != "V6"}
    record = read_recording(WRITERS[form](tmp_path, named | {name: SIGNALS["V6"]}))
    assert "Found but not drawn: unnamed." in record.notes
    assert not [planted for planted in PLANTED if planted in repr((record.leads, record.notes))]


@pytest.mark.parametrize("form", ["EDF", "WFDB"])
@pytest.mark.parametrize("name", ["V7", "V3R", "MLII", "ABP", "RESP", "X", "EEG", "-aVL"])
def test_other_signals_are_named(tmp_path: Path, form: str, name: str) -> None:
    signals = SIGNALS | {name: SIGNALS["V6"]}
    record = read_recording(WRITERS[form](tmp_path, signals))
    assert f"Found but not drawn: {name}." in record.notes


@FORMATS
def test_a_short_recording_and_its_length_are_said(tmp_path: Path, form: str) -> None:
    short = {lead: row[:2000] for lead, row in SIGNALS.items()}
    record = read_recording(WRITERS[form](tmp_path, short))
    assert record.duration == 4
    assert "The recording ends at 4.0 s; a page is blank from there." in record.notes


@FORMATS
def test_a_long_recording_is_cut_to_a_page(tmp_path: Path, form: str) -> None:
    record = read_recording(WRITERS[form](tmp_path, samples(15)))
    assert record.signals.shape == (12, 5001)
    assert "The recording lasts 15.0 s; a page shows at most the first 10 s." in record.notes


@pytest.mark.parametrize("form", [name for name in WRITERS if name != "GE MUSE XML"])
def test_leads_of_two_hearts_are_refused(tmp_path: Path, form: str) -> None:
    wander = np.rint(60 * np.sin(np.arange(5000) / 20)).astype(np.int64)
    mixed = dict(SIGNALS) | {"II": wander}
    with pytest.raises(RecordingError, match=r"the limb leads are not of one ECG: .* samples"):
        read_recording(WRITERS[form](tmp_path, mixed))


@FORMATS
def test_a_calibration_pulse_is_cut_also_where_a_baseline_hides_it(
    tmp_path: Path, form: str
) -> None:
    pulsed = {lead: row.copy() for lead, row in SIGNALS.items()}
    for lead, row in pulsed.items():
        row[4500:] = 0
        row[4850:4950] = 200
        if lead == "V3":
            row[4850:4950] += np.arange(100) * 3
    record = read_recording(WRITERS[form](tmp_path, pulsed))
    cut = [note for note in record.notes if note.startswith("Calibration pulse cut, in samples")]
    assert "4,850 to 4,999: I" in cut[0]
    assert "V3" in cut[0]
    assert record.duration == 9.7


@pytest.mark.parametrize("form", ["GE MUSE XML", "HL7 aECG", "SCP-ECG", "Philips Sierra XML"])
def test_a_calibration_pulse_after_the_page_is_cut(tmp_path: Path, form: str) -> None:
    pulsed = {lead: np.append(row, np.zeros(500, np.int64)) for lead, row in SIGNALS.items()}
    for row in pulsed.values():
        row[5350:5450] = 200
    record = read_recording(WRITERS[form](tmp_path, pulsed))
    assert record.notes[0].startswith("Calibration pulse cut, in samples 5,350 to 5,499: I,")
    assert record.notes[1].startswith("The recording lasts 10.7 s;")


@FORMATS
def test_without_its_package_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    def missing(*_: object) -> Recording:
        raise ModuleNotFoundError("No module named 'ecgdatakit'", name="ecgdatakit")

    rows = tuple(row._replace(read=missing, read_beside=None) for row in registry.READERS)
    monkeypatch.setattr(registry, "READERS", rows)
    with pytest.raises(RecordingError, match=r"needs ecgdatakit: pip install 'pulse-edge\[formats"):
        read_recording(WRITERS[form](tmp_path, SIGNALS))


@FORMATS
def test_bytes_without_a_path_are_read_or_their_folder_is_asked_for(
    tmp_path: Path, form: str
) -> None:
    data = WRITERS[form](tmp_path, SIGNALS).read_bytes()
    if form == "WFDB":
        with pytest.raises(RecordingError, match="give the path of the header"):
            read_bytes(data)
        return
    record = read_bytes(data)
    assert record is not None
    assert record.source == f"{form} recording"


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"<svg/>", b"<?xml version='1.0'?><a/>", b"I,II\n1,2"]
)
def test_other_content_is_no_recording(tmp_path: Path, data: bytes) -> None:
    assert read_bytes(data) is None
    path = tmp_path / "file.xml"
    path.write_bytes(data)
    with pytest.raises(RecordingError, match="not a waveform recording in a known format; known:"):
        read_recording(path)


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.xml"
    with path.open("wb") as file:
        file.write(b"<RestingECG>")
        file.truncate(200 << 20)
    with pytest.raises(RecordingError, match="over the 64 MiB accepted"):
        read_recording(path)


def test_no_weights_are_opened_and_no_framework_is_imported(tmp_path: Path) -> None:
    import subprocess
    import sys

    path = WRITERS["GE MUSE XML"](tmp_path, SIGNALS)
    code = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda e, a: opened.append(str(a[0])) if e == 'open' else None)\n"
        "from pulse_edge.ecg.readers.registry import read_recording\n"
        "read_recording(sys.argv[1])\n"
        "print([name for name in opened if name.endswith(('.pt', '.pth', '.onnx'))])\n"
        "print(sorted({'torch', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)))\n"
        "print([name for name in sys.modules if 'ecgdatakit' in name and '.parsing' not in name])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    weights, frameworks, others = run.stdout.splitlines()
    assert (weights, frameworks) == ("[]", "[]")
    assert others == "['ecgdatakit.exceptions', 'ecgdatakit.models', 'ecgdatakit']"
