"""PDF files: the page with the ECG."""

from __future__ import annotations

import io
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pulse_edge.errors import RecordingError
from pulse_edge.page import pdf, pdf_process
from pulse_edge.page.numbered import FilePage
from pulse_edge.page.pdf import grid_score, is_pdf, render_pdf
from pulse_edge.page.source import read_page

from support.pdf_files import Sheet, ecg_sheet, flat_picture, pdf_file, scan_sheet, text_sheet

pytest.importorskip("pypdfium2", reason="PDF needs pulse-edge[formats]")

ONE = pdf_file([ecg_sheet()])
REPORT = pdf_file([text_sheet(), ecg_sheet()])


def test_a_page_has_200_dpi(tmp_path: Path) -> None:
    path = tmp_path / "page.png"  # the content decides
    path.write_bytes(ONE)
    page = read_page(path)
    assert page.size == (1100, 850)
    assert (page.format, page.pages, page.notes) == ("PDF", 1, ())
    pink = np.asarray(page.image)[:, :, 0].astype(int) - np.asarray(page.image)[:, :, 1]
    assert (pink > 10).mean() > 0.02
    assert read_page(ONE).sha256 == page.sha256


@pytest.mark.parametrize(
    ("sheets", "number"),
    [
        ([text_sheet(), ecg_sheet()], 2),
        ([ecg_sheet(), text_sheet()], 1),
        ([text_sheet(), ecg_sheet(306, 396, 90)], 2),
        ([text_sheet(), text_sheet(), ecg_sheet(306, 396)], 3),
        ([Sheet(b"", 30_000, 30_000), ecg_sheet()], 2),
        ([Sheet(b"", 396, 306), text_sheet(), ecg_sheet(421, 298)], 3),
    ],
    ids=["second", "first", "turned", "portrait", "huge", "blank"],
)
def test_the_ecg_page_is_found(sheets: list[Sheet], number: int) -> None:
    page = read_page(pdf_file(sheets))
    assert page.notes == (f"Page {number} of {len(sheets)} in the file was read.",)


def test_of_several_ecg_pages_the_others_are_named() -> None:
    page = read_page(pdf_file([ecg_sheet(306, 396), text_sheet(), ecg_sheet()]))
    assert page.notes == (
        "Page 3 of 3 in the file was read.",
        "Pages with a grid as well: 1.",
    )


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_a_page_is_turned_as_the_file_says(rotate: int) -> None:
    upright = np.asarray(read_page(ONE).image)
    turned = np.asarray(read_page(pdf_file([ecg_sheet(rotate=rotate)])).image)
    assert turned.shape[:2] == ((1100, 850) if rotate % 180 else (850, 1100))
    expected = np.rot90(upright, -rotate // 90)
    assert np.abs(expected.astype(int) - turned).mean() < 12


def test_a_scanned_page_is_the_picture() -> None:
    picture = read_page(ONE).image
    page = read_page(pdf_file([text_sheet(), scan_sheet(picture)]))
    assert np.abs(np.asarray(page.image).astype(int) - np.asarray(picture)).mean() < 3


def test_no_page_with_a_grid_asks_for_a_number() -> None:
    with pytest.raises(RecordingError, match=r"none of its 2 pages has the grid of an ECG; give"):
        read_page(pdf_file([text_sheet(), text_sheet()]))


@pytest.mark.parametrize(("number", "size"), [(1, (850, 1100)), (2, (1100, 850))])
def test_a_number_chooses_the_page(number: int, size: tuple[int, int]) -> None:
    page = read_page(FilePage(REPORT, number))
    assert page.size == size
    assert page.notes == (f"Page {number} of 2 in the file was read.",)


@pytest.mark.parametrize(("data", "pages"), [(ONE, "page 1"), (REPORT, "pages 1 to 2")])
def test_a_wrong_number_names_the_pages_there_are(data: bytes, pages: str) -> None:
    with pytest.raises(RecordingError, match=f"no page 9; the PDF has {pages}$"):
        read_page(FilePage(data, 9))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pdf_file([ecg_sheet()], encrypted=True), "is encrypted with a password; save it without"),
        (ONE[: len(ONE) // 3], "the PDF is damaged"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< >>\nendobj\n", "the PDF is damaged"),
        (pdf_file([]), "the PDF"),
        (pdf_file([Sheet(b"", 30_000, 30_000)]), r"a page of the PDF is empty, or over 36,000,000"),
        (pdf_file([Sheet(b"", 0.001, 0.001)]), r"a page of the PDF is empty, or over 36,000,000"),
    ],
    ids=["encrypted", "cut off", "no page", "none", "huge", "tiny"],
)
def test_what_is_not_rendered_is_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(RecordingError, match=message) as caught:
        render_pdf(data, "made")
    assert len(str(caught.value).splitlines()) == 1


def test_a_picture_that_would_inflate_to_gigabytes_is_refused() -> None:
    picture = flat_picture(30_000, 30_000)
    data = pdf_file([Sheet(b"q 396 0 0 306 0 0 cm /Im0 Do Q", stream=picture)])
    assert len(data) < 1 << 20
    with pytest.raises(RecordingError, match="the PDF takes too much memory"):
        render_pdf(data, "made")


LINE = b"0 0 m 700 500 l S 3 w 1 0 0 RG "
ENDLESS = {
    "reading the operators": pdf_file([Sheet(LINE * 300_000)]),
    "drawing each of them": pdf_file([Sheet(b"0 0 900 900 re f " * 200_000)]),
    "drawing one of them": pdf_file([Sheet(b"0 0 m " + b"700 500 l 0 3 l " * 150_000 + b"f*")]),
    "memory for them": pdf_file([Sheet(LINE * 3_000_000)]),
    "a page that is not the one": pdf_file([ecg_sheet(), Sheet(LINE * 300_000)]),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_page_that_takes_too_long_is_given_up_within_two_seconds(kind: str) -> None:
    resource = pytest.importorskip("resource", reason="this system counts no processor's seconds")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert len(ENDLESS[kind]) < 1 << 20
    with pytest.raises(RecordingError, match="takes too long or too much memory") as caught:
        render_pdf(ENDLESS[kind], "made")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert str(caught.value).endswith("if it has several pages, give the ECG's, as --page 1")


def test_a_page_beside_one_that_takes_too_long_is_read_by_its_number() -> None:
    page = read_page(FilePage(ENDLESS["a page that is not the one"], 1))
    assert page.size == (1100, 850)


def test_a_file_of_one_page_takes_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    run = subprocess.run

    def counted(words: list[str], **options: Any) -> Any:
        started.append(words[-1])
        return run(words, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    render_pdf(ONE, "made")
    assert started == ["survey"]
    render_pdf(REPORT, "made")
    assert started == ["survey", "survey", "2"]


def test_of_many_pages_the_first_are_looked_at_and_that_is_said() -> None:
    sheets = [Sheet(b"", 50, 60) for _ in range(pdf_process.SURVEYED + 2)]
    sheets[4] = ecg_sheet()
    page = read_page(pdf_file(sheets))
    assert page.notes == (
        "Page 5 of 34 in the file was read.",
        "Only pages 1 to 32 were looked at; --page chooses another.",
    )


def test_a_survey_that_takes_long_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf_process, "end_after", lambda _: None)  # it would end the tests
    data = pdf_file([ecg_sheet(), text_sheet(), text_sheet()])
    header, pixels = pdf_process.answer_request("survey", data)
    assert (header["pages"], len(header["pictures"])) == (3, 3)
    monkeypatch.setattr(pdf_process, "ENOUGH_SECONDS", 0)
    header, first = pdf_process.answer_request("survey", data)
    assert (header["pages"], header["pictures"]) == (3, [(396, 306)])
    assert pixels.startswith(first)
    assert len(first) == 3 * 396 * 306


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(*_: object, timeout: float, **__: object) -> Any:
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(RecordingError, match="the PDF took over 30 s"):
        render_pdf(ONE, "made")


def test_without_its_package_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pdf, "find_spec", lambda _: None)
    with pytest.raises(RecordingError, match=r"pypdfium2: pip install 'pulse-edge\[formats\]'"):
        render_pdf(ONE, "made")


@pytest.mark.parametrize("before", [b"", b"junk\n", b"x" * 900])
def test_bytes_before_the_mark(before: bytes) -> None:
    data = pdf_file([ecg_sheet()], before=before)
    assert is_pdf(data)
    assert read_page(data).size == (1100, 850)
    assert not is_pdf(b"x" * 2000 + data)


def grid(pitch_x: float, pitch_y: float, dark: int = 60) -> np.ndarray[Any, np.dtype[np.uint8]]:
    page = np.full((612, 792), 255, np.uint8)
    page[:, np.arange(0, 792, pitch_x).astype(int)] -= np.uint8(dark)
    page[np.arange(0, 612, pitch_y).astype(int)] = 255 - dark
    return page


@pytest.mark.parametrize("pitch", [9.0, 11.3, 14.17, 20.0, 28.0])
@pytest.mark.parametrize("dark", [15, 60, 200])
def test_a_grid_scores_high(pitch: float, dark: int) -> None:
    assert grid_score(grid(pitch, pitch, dark)) > 0.4


@pytest.mark.parametrize("kind", ["white", "noise", "rows", "columns", "small"])
def test_no_grid_scores_low(kind: str) -> None:
    pages = {
        "white": np.full((612, 792), 255, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (306, 396)).astype(np.uint8),
        "rows": grid(9999, 14),
        "columns": grid(14, 9999),
        "small": grid(14, 14)[:40, :40],
    }
    assert grid_score(pages[kind]) < 0.2


def test_a_dicom_file_may_hold_the_pdf(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="DICOM needs pulse-edge[ecg]")
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    dataset.SOPInstanceUID = "1.2.3"
    dataset.PatientName = "Quillfeather^Zephyrine"
    dataset.Modality = "DOC"
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = REPORT + b"\0" * (len(REPORT) % 2)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    path = tmp_path / "report.dcm"
    path.write_bytes(file.getvalue())
    page = read_page(path)
    assert (page.format, page.size) == ("PDF", (1100, 850))
    assert page.sha256 == read_page(REPORT).sha256
    assert "Quillfeather" not in repr(page.facts)
    assert read_page(FilePage(path, 1)).size == (850, 1100)


def test_the_picture_helper_makes_what_it_says() -> None:
    head, data = flat_picture(64, 16)
    assert b"/Width 64 /Height 16" in head
    assert len(zlib.decompress(data)) == 64 * 16 // 8
    assert Image.MAX_IMAGE_PIXELS
