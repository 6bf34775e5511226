"""Options that say how a file is read, and what comes of files of carts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pulse_edge.cli.ask import ask_command
from pulse_edge.cli.chat import chat_command
from pulse_edge.cli.draw import draw_command
from pulse_edge.cli.panel import panel_command
from pulse_edge.errors import ImageError, ParameterError, RecordingError

from support.carts.signals import LEADS, PLANTED, samples
from support.carts.table import WRITERS
from support.pdf_files import ecg_sheet, pdf_file, text_sheet

pytest.importorskip("ecgdatakit", reason="carts' files need pulse-edge[formats]")

SIGNALS = samples()
CSV = ("--csv-rate", "500", "--csv-unit", "5uV", "--csv-leads", ",".join(LEADS))
SHORT = ("--question", "Rhythm?", "--max-new-tokens", "2", "--json", "--threads", "1")


def table(folder: Path) -> Path:
    path = folder / "table.csv"
    rows = np.stack([SIGNALS[lead] for lead in LEADS], axis=1)
    path.write_text("\n".join(",".join(map(str, row)) for row in rows.tolist()))
    return path


def ask(*arguments: object) -> Result:
    return CliRunner().invoke(ask_command, [*map(str, arguments), *SHORT])


def draw(recording: Path, *options: str) -> Result:
    out = recording.with_suffix(".png")
    arguments = [str(recording), str(out), "--dpi", "72", *options]
    return CliRunner().invoke(draw_command, arguments)


@pytest.mark.parametrize("form", list(WRITERS))
def test_every_format_draws_the_same_page(tmp_path: Path, form: str) -> None:
    recording = WRITERS[form](tmp_path, SIGNALS)
    done = draw(recording)
    assert done.exit_code == 0, done.output
    drawn = np.asarray(Image.open(recording.with_suffix(".png")))
    assert draw(table(tmp_path), *CSV).exit_code == 0
    other = np.asarray(Image.open(tmp_path / "table.png"))
    # Derived leads are not rounded to counts, which moves a line by a hundredth of a pixel.
    assert (np.abs(drawn.astype(int) - other).max(axis=2) > 32).mean() < 0.001
    assert not [name for name in PLANTED if name in done.output.replace(str(tmp_path), "")]


def test_a_csv_file_is_asked_about_with_its_terms(tmp_path: Path) -> None:
    done = ask(table(tmp_path), *CSV)
    assert done.exit_code == 0, done.output
    image = json.loads(done.stdout)["provenance"]["image"]
    assert image["recording"]["format"] == "CSV"


@pytest.mark.parametrize("left_out", [0, 2, 4])
def test_terms_of_csv_come_together(tmp_path: Path, left_out: int) -> None:
    options = CSV[:left_out] + CSV[left_out + 2 :]
    for done in (ask(table(tmp_path), *options), draw(table(tmp_path), *options)):
        assert isinstance(done.exception, ParameterError)
        assert str(done.exception) == (
            "a CSV file needs --csv-rate, --csv-unit and --csv-leads; give all three"
        )


def test_a_csv_file_without_terms_is_refused(tmp_path: Path) -> None:
    for done in (ask(table(tmp_path)), draw(table(tmp_path))):
        assert isinstance(done.exception, RecordingError)
        assert "--csv-rate 500 --csv-unit uV --csv-leads I,II,V1" in str(done.exception)


def test_a_page_and_csv_exclude_each_other(tmp_path: Path) -> None:
    done = ask(table(tmp_path), *CSV, "--page", "1")
    assert isinstance(done.exception, ParameterError)


def test_a_page_of_a_pdf_is_chosen_and_said(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2", reason="PDF needs pulse-edge[formats]")
    path = tmp_path / "report.pdf"
    path.write_bytes(pdf_file([text_sheet(), ecg_sheet(), ecg_sheet()]))
    done = ask(path, "--page", "3")
    assert done.exit_code == 0, done.output
    image = json.loads(done.stdout)["provenance"]["image"]
    assert (image["format"], image["pages"]) == ("PDF", 3)
    assert image["notes"] == ["Page 3 of 3 in the file was read."]
    wrong = ask(path, "--page", "4")
    assert isinstance(wrong.exception, ImageError)
    assert "no page 4; the PDF has pages 1 to 3" in str(wrong.exception)
    assert ask(path, "--page", "0").exit_code == 2


def test_a_panel_tells_the_carts_words_from_the_models(tmp_path: Path) -> None:
    recording = WRITERS["SCP-ECG"](tmp_path, SIGNALS)
    done = CliRunner().invoke(panel_command, [str(recording), "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert "cart states: Sinus rhythm\n" in done.stdout
    assert "PR interval: 148 ms (cart)\n" in done.stdout
    assert not [name for name in PLANTED if name in done.output]


def chat(lines: list[str], *arguments: object) -> Result:
    options = ("--max-new-tokens", "2", "--threads", "1")
    words = [*map(str, arguments), *options]
    return CliRunner().invoke(chat_command, words, input="\n".join(lines))


def saved_notes(path: Path) -> list[str]:
    """The first turn's notes of a chat that was saved as JSON."""
    notes: list[str] = json.loads(path.read_text())["turns"][0]["provenance"]["image"]["notes"]
    return notes


def test_a_chat_is_about_the_page_that_was_given(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2", reason="PDF needs pulse-edge[formats]")
    path = tmp_path / "report.pdf"
    path.write_bytes(pdf_file([text_sheet(), ecg_sheet(), ecg_sheet(306, 396)]))
    save = [tmp_path / f"{name}.json" for name in ("given", "page", "reset", "image")]
    question = "What is the rate?"
    wrong = ["/page", "/page 4", "/page 0", "/page two", "/page \u00b2"]
    lines = [question, f"/save {save[0]}", *wrong]
    lines += ["/page 2", question, f"/save {save[1]}", "/reset", question, f"/save {save[2]}"]
    lines += ["/page 1", f"/image {path}", question, f"/save {save[3]}"]
    done = chat(lines, path, "--page", 3)
    assert done.exit_code == 0, done.output
    assert [saved_notes(file)[0][:11] for file in save] == [
        *("Page 3 of 3", "Page 2 of 3", "Page 2 of 3"),
        "Page 2 of 3",  # of another file, the reader chooses
    ]
    errors = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(wrong)
    assert "/page needs the number of a page" in errors[0]
    assert "no page 4; the PDF has pages 1 to 3" in errors[1]
    assert all("must be 1 or more" in line for line in errors[2:])


def test_a_chat_is_about_tables(tmp_path: Path) -> None:
    first = table(tmp_path)
    second = tmp_path / "other.CSV"
    second.write_bytes(first.read_bytes())
    muse = WRITERS["GE MUSE XML"](tmp_path, SIGNALS)
    question = "What is the rate?"
    save = [tmp_path / f"{name}.json" for name in ("first", "second", "muse")]
    lines = [question, f"/save {save[0]}", "/page 2", f"/image {muse}", question]
    lines += [f"/save {save[2]}", f"/image {second}", "/reset", question, f"/save {save[1]}"]
    done = chat(lines, first, *CSV)
    assert done.exit_code == 0, done.output
    forms = [
        json.loads(file.read_text())["turns"][0]["provenance"]["image"]["recording"]["format"]
        for file in save
    ]
    assert forms == ["CSV", "CSV", "GE MUSE XML"]
    assert "a CSV file has no pages" in done.output


def test_a_chat_refuses_what_ask_refuses(tmp_path: Path) -> None:
    assert isinstance(chat([], table(tmp_path)).exception, RecordingError)
    assert isinstance(chat([], table(tmp_path), *CSV[:4]).exception, ParameterError)
    assert isinstance(chat([], table(tmp_path), *CSV, "--page", 1).exception, ParameterError)
