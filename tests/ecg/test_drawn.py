"""What the provenance of an answer says of a recording and its page."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.ecg.drawing import draw_page
from pulse_edge.ecg.drawn import DrawnRecording
from pulse_edge.ecg.layout import LAYOUTS, PageStyle, parse_layouts, parse_strips
from pulse_edge.ecg.leads import LEADS
from pulse_edge.ecg.readers.registry import read_recording
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import ParameterError
from pulse_edge.page.source import read_page

from support.dicom_files import dataset, save


def recording(seconds: float = 10) -> Recording:
    beat = np.exp(-(((np.arange(round(seconds * 100)) % 80 - 30) / 3) ** 2)).astype(np.float32)
    return Recording(np.tile(beat, (2, 1)), 100, LEADS[:2])


def test_a_file_is_named_by_its_format_and_hash(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    path = save(tmp_path / "Jane Doe.dcm", dataset())
    page = read_page(path)
    facts = page.facts["recording"]
    assert page.facts["format"] == facts["format"] == "DICOM"
    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["bytes"] == path.stat().st_size
    assert (facts["layout"], facts["speed_mm_s"], facts["gain_mm_mv"]) == ("3x4", 25, 10)
    assert (facts["width_in"], facts["height_in"], facts["dpi"]) == (11, 8.5, 200)
    assert facts["strips"] == ["II"]
    assert "Jane" not in str(page.facts)
    assert read_recording(path).file is not None


def test_signals_of_no_file_have_a_hash_of_their_own() -> None:
    one = read_page(recording()).facts
    assert one["format"] == one["recording"]["format"] == "array"
    assert one["recording"]["bytes"] is None
    assert one["recording"]["sha256"] == DrawnRecording(recording()).facts["sha256"]
    other = recording()
    other.signals[0, 5] += 0.001
    assert one["recording"]["sha256"] != DrawnRecording(other).facts["sha256"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_style_is_drawn_and_said(layout: str) -> None:
    style = PageStyle(layout=layout, speed=50, gain=5, strips=("V1", "II"), dpi=60)
    page = read_page(DrawnRecording(recording(), style, "Jürgen"))
    assert page.image.tobytes() == draw_page(recording(), style, "Jürgen").tobytes()
    facts = page.facts["recording"]
    assert (facts["layout"], facts["speed_mm_s"], facts["gain_mm_mv"]) == (layout, 50, 5)
    assert (facts["strips"], facts["header"]) == (["V1", "II"], "Jürgen")
    assert (facts["seconds"], facts["drawn_s"]) == (10.0, 5.0)
    assert "At 50 mm/s the page shows the first 5 s of 10.0 s." in page.notes


def test_the_gain_is_the_one_that_was_drawn() -> None:
    large = Recording(np.tile(recording().signals[:1] * 3, (12, 1)), 100, LEADS, tolerance=np.inf)
    facts = DrawnRecording(large, PageStyle(layout="12x1", gain=20)).facts
    assert facts["gain_mm_mv"] == 5


@pytest.mark.parametrize(
    ("seconds", "speed", "drawn"), [(10, 25, 10), (10, 50, 5), (4, 25, 4), (4, 50, 4), (5, 50, 5)]
)
def test_seconds_that_a_page_shows(seconds: float, speed: int, drawn: float) -> None:
    page = DrawnRecording(recording(seconds), PageStyle(speed=speed))
    assert page.seconds == drawn
    assert any("mm/s the page shows" in note for note in page.notes) == (drawn < seconds)


@pytest.mark.parametrize(
    ("text", "strips"),
    [
        *(("0", ()), ("1", ("II",)), ("3", ("V1", "II", "V5")), (" 3 ", ("V1", "II", "V5"))),
        *(("II", ("II",)), ("V1,II,V5", ("V1", "II", "V5")), ("ii, v5", ("II", "V5"))),
        ("avr", ("aVR",)),
    ],
)
def test_strips_are_a_number_or_leads(text: str, strips: tuple[str, ...]) -> None:
    assert parse_strips(text) == strips
    assert PageStyle(strips=parse_strips(text)).strips == strips


@pytest.mark.parametrize("text", ["", "2", "4", "-1", "V7", "II,", "I,II,III,V1,V2", "²", "none"])
def test_other_strips_are_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="expected 0, 1, 3, or up to 4 of I, II"):
        parse_strips(text)


def test_layouts_are_listed_with_commas() -> None:
    assert parse_layouts("12x1, 3x4") == ("12x1", "3x4")


def test_facts_are_ready_for_json() -> None:
    import json

    facts: dict[str, Any] = DrawnRecording(recording()).facts
    assert json.loads(json.dumps(facts)) == facts
