"""Every kind of source and file as a page, and everything that is refused."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pulse_edge.errors import ImageError
from pulse_edge.page.limits import MAX_PIXELS
from pulse_edge.page.orientation import ORIENTATION_TAG
from pulse_edge.page.source import Page, decode_page, read_input, read_page

from goldens import cases
from support.image_files import encoded, png_file

SMALL = cases.page(40, 30)
FILES = {
    "PNG": encoded(SMALL, "PNG"),
    "JPEG": encoded(SMALL, "JPEG"),
    "TIFF": encoded(SMALL, "TIFF", compression="tiff_lzw"),
    "BMP": encoded(SMALL, "BMP"),
    "WEBP": encoded(SMALL, "WEBP", lossless=True),
}


# --- sources and formats --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path, id="Path"),
        pytest.param(str, id="str"),
        pytest.param(lambda path: path.read_bytes(), id="bytes"),
        pytest.param(lambda path: bytearray(path.read_bytes()), id="bytearray"),
        pytest.param(lambda path: memoryview(path.read_bytes()), id="memoryview"),
        pytest.param(lambda path: io.BytesIO(path.read_bytes()), id="BytesIO"),
        pytest.param(lambda path: path.open("rb"), id="file"),
        pytest.param(Image.open, id="PIL"),
        pytest.param(lambda path: np.asarray(Image.open(path)), id="numpy"),
        pytest.param(
            lambda path: np.asarray(Image.open(path))[::-1, ::-1][::-1, ::-1], id="numpy, strided"
        ),
        pytest.param(
            lambda path: np.dstack([np.asarray(Image.open(path)), np.full((30, 40), 255, "u1")]),
            id="RGBA",
        ),
    ],
)
def test_every_source_is_the_same_page(make: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    path.write_bytes(FILES["PNG"])
    page = read_page(make(path))
    expected = hashlib.sha256(b"40 30 RGB " + SMALL.tobytes()).hexdigest()
    assert (page.size, page.orientation, page.sha256) == ((40, 30), 1, expected)
    assert page.image.tobytes() == SMALL.tobytes()


def test_the_name_in_messages_is_the_files(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("72 beats per minute")
    with path.open("rb") as file:
        for source in (path, str(path), file):
            with pytest.raises(ImageError, match=r"note\.txt: not an image"):
                read_page(source)


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 1)])
def test_grey_arrays(shape: tuple[int, ...]) -> None:
    grey = np.arange(1200, dtype=np.uint16).astype(np.uint8).reshape(shape)
    rgb = np.asarray(read_page(grey).image)
    assert np.array_equal(rgb, np.repeat(grey.reshape(30, 40, 1), 3, axis=2))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.float64),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4), np.int16),
        np.zeros((4, 4), np.uint32),
        np.zeros((4, 4, 3), np.int8),
        np.zeros((4, 4), bool),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.array(5, np.uint8),
    ],
    ids=lambda a: f"{a.dtype}{list(a.shape)}",
)
def test_arrays_that_are_no_image(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"uint8 \[height, width\].*not " + array.dtype.name):
        read_page(array)


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0), (0, 0, 4)])
def test_arrays_without_pixels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="no pixels"):
        read_page(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_have_the_same_hash(form: str, options: dict[str, Any]) -> None:
    page = read_page(encoded(SMALL, form, **options))
    assert (page.sha256, page.format) == (read_page(SMALL).sha256, form)


def test_hashes_tell_pages_apart() -> None:
    pixels = np.asarray(SMALL)
    changed = pixels.copy()
    changed[29, 39, 2] ^= 1
    pages = [pixels, changed, pixels.reshape(40, 30, 3), pixels[:, ::-1]]
    assert len({read_page(p).sha256 for p in pages}) == len(pages)


def test_jpeg_is_decoded_as_pillow_does() -> None:
    assert (
        read_page(FILES["JPEG"]).image.tobytes() == Image.open(io.BytesIO(FILES["JPEG"])).tobytes()
    )


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", cases.MODES)
def test_modes_become_rgb_as_pillow_converts(mode: str, form: str) -> None:
    """The authors' way, but for 16-bit grey, which Pillow clips."""
    image = cases.mode_page(mode)
    if mode == "CMYK" and form == "PNG":
        pytest.skip("PNG has no CMYK")
    file = encoded(image, form)
    page = read_page(file, alpha="drop")
    expected = Image.open(io.BytesIO(file)).convert("RGB")
    if mode == "I;16":
        expected = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    assert page.image.mode == "RGB"
    assert page.image.tobytes() == expected.tobytes()
    assert page.sha256 == read_page(image, alpha="drop").sha256


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", [*UPRIGHT, 0, 9, 65535])
def test_exif_orientation_is_applied_and_recorded(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    page = read_page(encoded(SMALL, form, exif=exif, **options))
    stored = SMALL if form != "JPEG" else Image.open(io.BytesIO(FILES["JPEG"]))
    effective = orientation if orientation in UPRIGHT else 1
    assert page.orientation == effective
    assert np.array_equal(np.asarray(page.image), UPRIGHT[effective](np.asarray(stored)))


@pytest.mark.parametrize("form", ["TIFF", "WEBP", "PNG"])
def test_of_several_pages_the_first_counts(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    file = encoded(SMALL, form, save_all=True, append_images=[ImageOps.invert(SMALL)], **options)
    assert getattr(Image.open(io.BytesIO(file)), "n_frames", 1) == 2
    page = read_page(file)
    assert page.sha256 == read_page(SMALL).sha256
    assert (page.pages, page.notes) == (2, ("Page 1 of 2 in the file was read.",))


# --- refused --------------------------------------------------------------------------------------


def crafted_png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header claims a size that its data does not have."""
    return png_file((width, height), 8, 2, data)


@pytest.mark.parametrize(
    "size", [(50000, 50000), (6001, 6000), (89_478_486, 1), (2**31 - 1, 2**31 - 1)]
)
def test_decompression_bombs(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=r"over the 36,000,000 accepted; scale it down"):
        read_page(crafted_png(*size))


@pytest.mark.parametrize(
    "source",
    [
        b"",
        io.BytesIO(),
        crafted_png(0, 10),
        crafted_png(10, 0),
        Image.new("RGB", (0, 10)),
        crafted_png(10, 10),
    ],
    ids=["bytes", "file", "0 wide", "0 high", "PIL", "no data"],
)
def test_nothing_in_it(source: Any) -> None:
    with pytest.raises(ImageError, match=r"empty|0 x 10|10 x 0|truncated"):
        read_page(source)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", FILES)
def test_truncated_files_are_refused(form: str) -> None:
    """At every tenth byte. What lies after the pixels (PNG's end chunk, say) may be missing; no
    pixel may.
    """
    file, whole = FILES[form], read_page(FILES[form]).sha256
    readable = []
    for length in range(0, len(file), 10):
        try:
            assert read_page(file[:length]).sha256 == whole, length
            readable.append(length)
        except ImageError:
            pass
    assert all(length > 0.9 * len(file) for length in readable)


def outcome(data: bytes) -> Page | str:
    try:
        return read_page(data)
    except ImageError as error:
        return str(error)


@given(st.binary(min_size=1, max_size=400))
def test_random_bytes_are_no_image(data: bytes) -> None:
    assert isinstance(outcome(data), str)


@pytest.mark.filterwarnings("error")
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_damaged_files_give_a_page_or_one_line(form: str, data: st.DataObject) -> None:
    file = bytearray(FILES[form])
    head = st.integers(0, min(len(file) - 1, 120))  # where the structure is
    for at in data.draw(st.lists(head | st.integers(0, len(file) - 1), min_size=1, max_size=4)):
        file[at] = data.draw(st.integers(0, 255))
    result = outcome(bytes(file))
    if isinstance(result, str):
        assert "\n" not in result
    else:
        assert result.image.size[0] * result.image.size[1] <= MAX_PIXELS


@pytest.mark.parametrize(
    "data",
    [
        b"A report, in text.",
        encoded(SMALL, "GIF"),
        encoded(SMALL, "PPM"),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        bytes(128) + b"DICM",
    ],
    ids=["text", "GIF", "PPM", "SVG", "DICOM"],
)
def test_other_formats_are_refused_with_the_list_of_those_that_are_not(data: bytes) -> None:
    with pytest.raises(
        ImageError, match=r"not an image that can be read \(PNG, JPEG, TIFF, BMP, WEBP\)"
    ):
        read_page(data)


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.png", "", "a\0b.png", "x" * 5000):
        with pytest.raises(ImageError, match="cannot be read"):
            read_page(path)


def test_file_objects_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    path.write_bytes(FILES["PNG"])
    closed = path.open("rb")
    closed.close()
    with pytest.raises(ImageError, match=r"cannot be read .*closed"):
        read_page(closed)
    with path.open("ab") as writing, pytest.raises(ImageError, match="cannot be read"):
        read_page(writing)
    with pytest.raises(ImageError, match="'rb'"):
        read_page(io.StringIO("text"))  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [None, 5, [SMALL], object()])
def test_what_is_no_source(source: Any) -> None:
    with pytest.raises(ImageError, match=f"not {type(source).__name__}"):
        read_page(source)


@pytest.mark.parametrize("value", ["black", "", None, "White"])
def test_an_unknown_alpha_is_refused_with_the_legal_ones(value: Any) -> None:
    with pytest.raises(ImageError, match="is not one of white, drop"):
        decode_page(read_input(SMALL), value)


def test_little_memory_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", exhausted)
    with pytest.raises(ImageError, match="not enough memory to decode it; scale it down"):
        read_page(FILES["PNG"])


@pytest.mark.parametrize(
    "error",
    [
        RecursionError("deep"),
        struct.error("short"),
        SyntaxError("two\nlines"),
        Image.DecompressionBombError("big"),
        KeyError(5),
        AssertionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_other_error_of_a_decoder_escapes(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(ImageError, match=f"damaged or truncated .{type(error).__name__}") as caught:
        read_page(FILES["PNG"])
    assert "\n" not in str(caught.value)


def test_a_page_is_not_the_callers_image() -> None:
    image = SMALL.copy()
    page = read_page(image)
    image.paste((1, 2, 3), (0, 0, 40, 30))
    assert page.sha256 == read_page(page.image).sha256


def test_the_facts_of_a_page_are_json() -> None:
    page = read_page(FILES["PNG"])
    facts = json.loads(json.dumps(page.facts))
    assert facts == {
        "sha256": page.sha256,
        "width": 40,
        "height": 30,
        "format": "PNG",
        "exif_orientation": 1,
        "alpha": "none",
        "pages": 1,
        "notes": [],
    }


def test_what_is_known_of_an_image_that_pillow_opened() -> None:
    page = read_page(Image.open(io.BytesIO(FILES["PNG"])))
    assert (page.format, page.orientation, page.pages, page.notes) == ("PNG", 1, 1, ())
    page = read_page(SMALL)
    assert (page.format, page.orientation, page.pages, page.notes) == ("RGB", 1, 1, ())
    page = read_page(np.asarray(SMALL.convert("L")))
    assert (page.format, page.orientation, page.pages, page.notes) == ("L", 1, 1, ())


@pytest.mark.parametrize("value", ["6", 0, 9, (6, 6)])
def test_an_orientation_of_pillow_that_is_none_is_upright(value: object) -> None:
    image = SMALL.copy()
    image.getexif()[0x0112] = value
    page = read_page(image)
    assert (page.orientation, page.sha256) == (1, read_page(SMALL).sha256)


def test_decoding_is_timed() -> None:
    before = time.perf_counter()
    page = read_page(FILES["PNG"])
    assert 0 < page.decode_seconds <= time.perf_counter() - before


@pytest.mark.parametrize(
    ("path", "problem"), [("none.png", "No such file or directory"), ("a\0b.png", "embedded null")]
)
def test_the_systems_reason_is_given(path: str, problem: str) -> None:
    with pytest.raises(ImageError, match=f"cannot be read .{problem}"):
        read_page(path)
