"""The page about real recordings, on a file that the test makes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.real_recordings import __main__ as program
from benchmarks.real_recordings.judgement import (
    axis_finding,
    counted_rate,
    heart_rate,
    wrong_statements,
)
from benchmarks.real_recordings.known import ECTOPY, KNOWN, KnownRecording
from pulse_edge.ecg.cart import CartReport
from pulse_edge.ecg.leads import LEADS
from pulse_edge.ecg.recording import Recording
from pulse_edge.panels.findings import BY_NAME

from support.carts.signals import samples
from support.carts.table import WRITERS

KNOWN_ONE = KnownRecording(
    "made",
    {},
    "a test",
    "sinus rhythm, RBBB",
    "sinus rhythm",
    {"conduction abnormality": "the cart states RBBB", "abnormal ECG": "the cart states RBBB"},
    dict.fromkeys(ECTOPY, "not listed") | {"normal ECG": "the cart states RBBB"},
)
MEASURED = {"heart rate": 70.0, "PR interval": 150.0, "QRS duration": 130.0, "QRS axis": -20.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The rhythm is atrial fibrillation.", "the rhythm is sinus rhythm"),
        ("Atrial flutter at 70 bpm.", "the rhythm is sinus rhythm"),
        ("No conduction abnormality.", "the cart states RBBB"),
        ("Premature ventricular contractions.", "not listed"),
        ("Ventricular bigeminy.", "not listed"),
        ("Yes, this is a normal ECG.", "the cart states RBBB"),
        ("Left axis deviation.", "the axis is -20 degrees"),
        ("The heart rate is 76 bpm.", "the heart rate is 70/min"),
        ("PR interval 180 ms.", "the PR interval is 150 ms"),
        ("QRS duration 100 ms.", "the QRS duration is 130 ms"),
        ("Sinus tachycardia at 110 bpm.", "the rhythm is sinus rhythm; the heart rate is 70/min"),
        ("The rhythm is sinus rhythm.", None),
        ("Sinus rhythm at 74 bpm.", None),
        ("PR interval 160 ms. QRS duration 140 ms. Normal axis.", None),
        ("Right bundle branch block. No ectopic beats.", None),
        ("Anterior ST elevation.", None),  # nobody says anything of it
        ("No, this is an abnormal ECG.", None),
    ],
)
def test_a_sentence_that_contradicts_what_is_known_is_wrong(text: str, reason: str | None) -> None:
    wrong = wrong_statements([text], KNOWN_ONE, MEASURED)
    assert [(each.sentence, each.reason) for each in wrong] == (
        [] if reason is None else [(text, reason)]
    )


def test_a_sentence_is_listed_once_and_answers_must_agree() -> None:
    unknown = KnownRecording("made", {}, "a test", "nothing")
    assert wrong_statements(["PVCs. Normal ECG.", "PVCs."], unknown, {}) == []
    texts = ["No conduction abnormality.", "Sinus rhythm. No conduction abnormality."]
    wrong = wrong_statements(texts, unknown, {"QRS duration": 120.0})
    assert [each.reason for each in wrong] == ["the QRS duration is 120 ms"]
    both = wrong_statements(["This is an abnormal ECG.", "Normal ECG."], unknown, {})
    assert [each.sentence for each in both] == ["Normal ECG. / This is an abnormal ECG."]


@pytest.mark.parametrize(
    ("degrees", "name"),
    [(0, "normal axis"), (-31, "left axis deviation"), (91, "right axis deviation"),
     (-91, "extreme axis deviation"), (181, "extreme axis deviation"), (90, "normal axis")],
)  # fmt: skip
def test_an_axis_has_a_name(degrees: float, name: str) -> None:
    assert axis_finding(degrees) == name


@pytest.mark.parametrize("rate", [38, 61, 72, 97, 150])
@pytest.mark.parametrize("hz", [250, 500, 1000])
def test_beats_are_counted(rate: float, hz: int) -> None:
    seconds = np.arange(10 * hz) / hz
    phase = (seconds + 0.3) % (60 / rate)
    beat = np.exp(-(((phase - 0.2) / 0.012) ** 2)) + 0.2 * np.exp(-(((phase - 0.36) / 0.04) ** 2))
    signals = np.stack([beat * (1 + 0.1 * lead) for lead in range(12)]).astype(np.float32)
    recording = Recording(signals, hz, LEADS, tolerance=np.inf)
    assert counted_rate(recording) == pytest.approx(rate, rel=0.02)
    assert heart_rate(recording) == (counted_rate(recording), "counted in the signal")
    measured = Recording(
        signals, hz, LEADS, tolerance=np.inf, cart=CartReport(measurements={"RR interval": 1000.0})
    )
    assert heart_rate(measured) == (60, "cart's RR interval")


def test_what_is_known_uses_the_panels_words() -> None:
    for known in KNOWN:
        assert not {*known.present, *known.absent} - BY_NAME.keys()
        assert known.rhythm is None or known.rhythm in BY_NAME
        assert all(len(digest) == 64 for digest in known.files)


def test_the_page_says_what_was_known_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ecgdatakit", reason="carts' files need pulse-edge[formats]")
    path = WRITERS["GE MUSE XML"](tmp_path, samples())
    (tmp_path / "other").write_text("no ECG")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = KnownRecording(
        "Made", {digest: "made.xml", "0" * 64: "none.xml"}, "a test", "AF", "atrial fibrillation"
    )
    monkeypatch.setattr(program, "KNOWN", (known,))
    out = tmp_path / "page.md"
    program.main([str(tmp_path), "--out", str(out)])
    assert capsys.readouterr().out == "not at hand: none.xml\n"
    text = out.read_text("utf-8")
    assert "Research use only" in text
    assert "Of 1 recordings" in text
    assert "* Files: made.xml; from a test." in text
    assert ": the rhythm is atrial fibrillation." in text
