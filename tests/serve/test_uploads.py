"""Which URLs are images, and files that are recordings."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError
from pulse_edge.serve.refusals import Refusal
from pulse_edge.serve.uploads import MEDIA_TYPES, image_of_bytes, image_of_url

from support.carts.signals import PLANTED, samples
from support.carts.table import WRITERS
from support.pdf_files import ecg_sheet, pdf_file
from support.served import data_url

DATA = bytes(range(256))


@pytest.mark.parametrize("media", MEDIA_TYPES)
def test_data_urls(media: str) -> None:
    assert image_of_url(data_url(DATA, media)) == DATA


def test_other_spellings_of_a_data_url() -> None:
    text = base64.b64encode(DATA).decode()
    assert image_of_url(f"DATA:Image/PNG;name=x;BASE64,{text}") == DATA
    lines = "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    assert image_of_url(f"data:image/png;base64,{lines}\n") == DATA


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1/x.png", "unsupported_image_url"),
        ("https://example.com/x.png", "unsupported_image_url"),
        ("HTTPS://example.com/x.png", "unsupported_image_url"),
        ("file:///etc/passwd", "unsupported_image_url"),
        ("ftp://example.com/x.png", "unsupported_image_url"),
        ("/etc/passwd", "unsupported_image_url"),
        ("", "unsupported_image_url"),
        ("data:", "unsupported_image_url"),
        ("data:,abc", "unsupported_image_url"),
        ("data:image/png,abc", "unsupported_image_url"),
        ("data:image/png;base64", "unsupported_image_url"),
        (" data:image/png;base64,AAAA", "unsupported_image_url"),
        ("data:image/svg+xml;base64,AAAA", "unsupported_image_type"),
        ("data:text/html;base64,AAAA", "unsupported_image_type"),
        ("data:image/png;base64,A", "invalid_base64"),
        ("data:image/png;base64,AAA", "invalid_base64"),
        ("data:image/png;base64,AA-_", "invalid_base64"),
        ("data:image/png;base64,AA%3D", "invalid_base64"),
        ("data:image/png;base64,AAAA=AAA", "invalid_base64"),
        ("data:image/png;base64,ÄÄÄÄ", "invalid_base64"),
        ("data:image/png;base64,", "empty_image"),
    ],
)
def test_urls_that_are_refused(url: str, code: str) -> None:
    with pytest.raises(Refusal) as error:
        image_of_url(url)
    assert (error.value.status, error.value.code) == (400, code)


def test_a_recording_is_read_as_one(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from support import dicom_files

    path = dicom_files.save(tmp_path / "ecg.dcm", dicom_files.dataset())
    recording = image_of_bytes(path.read_bytes())
    assert isinstance(recording, Recording)
    assert str(tmp_path) not in recording.source


def test_a_damaged_recording() -> None:
    pytest.importorskip("pydicom")
    with pytest.raises(RecordingError):
        image_of_bytes(bytes(128) + b"DICM" + b"damaged" * 9)


@pytest.mark.parametrize("form", [name for name in WRITERS if name != "WFDB"])
def test_files_of_carts_are_recordings(tmp_path: Path, form: str) -> None:
    pytest.importorskip("ecgdatakit", reason="carts' files need pulse-edge[formats]")
    data = WRITERS[form](tmp_path, samples()).read_bytes()
    recording = image_of_bytes(data)
    assert isinstance(recording, Recording)
    assert recording.cart.format == form
    assert not [name for name in PLANTED if name in repr((recording.source, recording.facts))]


def test_a_pdf_stays_a_file() -> None:
    data = pdf_file([ecg_sheet()])
    assert image_of_bytes(data) is data
    assert image_of_url(data_url(data, "application/pdf")) == data
