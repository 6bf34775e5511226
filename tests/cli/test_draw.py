"""`pulse-edge draw`: what it prints beside the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from pulse_edge.cli.draw import draw_command
from pulse_edge.ecg.drawing import draw_page
from pulse_edge.ecg.layout import PageStyle, parse_strips
from pulse_edge.ecg.readers.registry import read_recording
from pulse_edge.errors import ParameterError, RecordingError

from support.dicom_files import channel, dataset, ecg, group, save


def test_notes_of_a_recording_are_printed(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    signals = {lead: row for lead, row in ecg(4).items() if lead != "V6"}
    recording = save(tmp_path / "made.dcm", dataset(group(signals)))
    done = CliRunner().invoke(draw_command, [str(recording), str(tmp_path / "page.png")])
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("page.png: 2200 x 1700 pixels, 4.0 s at 250 Hz\n")
    assert done.stderr == (
        "note: Not recorded: V6.\nnote: The recording ends at 4.0 s; a page is blank from there.\n"
    )
    assert Image.open(tmp_path / "page.png").size == (2200, 1700)


def test_mistakes_name_what_is_wrong(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    recording = save(tmp_path / "made.dcm", dataset())
    arguments = [str(recording), str(tmp_path / "page.png")]
    done = CliRunner().invoke(draw_command, [*arguments, "--header", "line\n" * 40])
    assert isinstance(done.exception, ParameterError)
    assert "the header takes 40 lines" in str(done.exception)
    offset = [channel(lead, ChannelBaseline="40000") for lead in ecg()]
    save(recording, dataset(group(ecg(), offset)))
    done = CliRunner().invoke(draw_command, arguments)
    assert isinstance(done.exception, RecordingError)
    assert not (tmp_path / "page.png").exists()


def test_the_seconds_that_are_drawn_are_said(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    recording = save(tmp_path / "made.dcm", dataset())
    arguments = [str(recording), str(tmp_path / "page.png"), "--speed", "50"]
    done = CliRunner().invoke(draw_command, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("pixels, 5.0 of 10.0 s at 250 Hz\n")
    assert done.stderr == "note: At 50 mm/s the page shows the first 5 s of 10.0 s.\n"


@pytest.mark.parametrize("strips", ["0", "1", "3", "V1,II"])
def test_strips_are_drawn(tmp_path: Path, strips: str) -> None:
    pytest.importorskip("pydicom")
    recording = save(tmp_path / "made.dcm", dataset())
    out = tmp_path / "page.png"
    done = CliRunner().invoke(draw_command, [str(recording), str(out), "--strips", strips])
    assert done.exit_code == 0, done.output
    style = PageStyle(strips=parse_strips(strips))
    expected = draw_page(read_recording(recording), style)
    assert Image.open(out).tobytes() == expected.tobytes()


def test_a_header_that_no_font_has_is_said(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    recording = save(tmp_path / "made.dcm", dataset())
    arguments = [str(recording), str(tmp_path / "page.png"), "--header", "M\u00fcller \u4e2d"]
    done = CliRunner().invoke(draw_command, arguments)
    assert done.exit_code == 0, done.output
    assert "lack \u4e2d (U+4E2D); the page shows \ufffd instead" in done.stderr
