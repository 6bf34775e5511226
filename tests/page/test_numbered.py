"""A page of a file that has several."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pulse_edge.errors import ImageError, ParameterError
from pulse_edge.page.numbered import FilePage
from pulse_edge.page.source import read_input, read_page

PAGES = [Image.new("RGB", (40 + 10 * n, 30), (50 * n, 0, 0)) for n in range(4)]


def tiff(**options: Any) -> bytes:
    file = io.BytesIO()
    PAGES[0].save(file, "TIFF", save_all=True, append_images=PAGES[1:], **options)
    return file.getvalue()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"big_tiff": True}])
def test_a_number_chooses_the_page_of_a_tiff(number: int, options: dict[str, Any]) -> None:
    page = read_page(FilePage(tiff(**options), number))
    assert np.array_equal(np.asarray(page.image), np.asarray(PAGES[number - 1]))
    assert page.notes == (f"Page {number} of 4 in the file was read.",)
    assert page.pages == 4


def test_without_a_number_the_first_is_read() -> None:
    assert read_page(tiff()).notes == ("Page 1 of 4 in the file was read.",)
    assert read_page(tiff()).sha256 == read_page(FilePage(tiff(), 1)).sha256


@pytest.mark.parametrize("number", [5, 99, 10**9])
def test_a_wrong_number_names_the_pages_there_are(number: int) -> None:
    with pytest.raises(ImageError, match=f"no page {number:,}; the TIFF has pages 1 to 4$"):
        read_page(FilePage(tiff(), number))


def test_a_tiff_of_one_page_has_one() -> None:
    file = io.BytesIO()
    PAGES[0].save(file, "TIFF")
    with pytest.raises(ImageError, match=r"no page 2; the TIFF has page 1$"):
        read_page(FilePage(file.getvalue(), 2))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP"])
def test_other_images_have_one_page(form: str) -> None:
    file = io.BytesIO()
    PAGES[0].save(file, form)
    assert read_page(FilePage(file.getvalue(), 1)).size == (40, 30)
    with pytest.raises(ImageError, match=f"no page 2; of a {form} only page 1 is read"):
        read_page(FilePage(file.getvalue(), 2))


def test_pixels_have_no_number() -> None:
    with pytest.raises(ImageError, match="one page, without a number; ask without --page"):
        read_page(FilePage(PAGES[0], 1))


@pytest.mark.parametrize("number", [0, -1, 1.0, "1", True, None])
def test_numbers_begin_with_1(number: Any) -> None:
    with pytest.raises(ParameterError, match="but must be 1 or more"):
        FilePage(tiff(), number)


def test_pages_of_one_file_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "scan.tiff"
    path.write_bytes(tiff())
    digests = {read_input(FilePage(path, number)).data_sha256 for number in (1, 2)}
    assert len({*digests, read_input(path).data_sha256}) == 3
