"""Strokes and letters, pixel by pixel: against the formula of coverage, and against Pillow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pulse_edge.ecg import raster
from pulse_edge.ecg.layout import PageStyle, page_cells
from pulse_edge.ecg.raster import stroke, write_texts
from pulse_edge.errors import ParameterError

Segment = tuple[float, float, float, float]


def distance(x: float, y: float, segment: Segment) -> float:
    """Of a point to a segment."""
    x0, y0, x1, y1 = segment
    length = (x1 - x0) ** 2 + (y1 - y0) ** 2
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length if length else 0.0
    along = min(1.0, max(0.0, along))
    return math.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))


def covered(shape: tuple[int, int], segments: list[Segment], width: float) -> np.ndarray:
    """Coverage of each pixel: half the width and half a pixel, less the nearest distance."""
    ink = np.zeros(shape)
    for row, column in np.ndindex(shape):
        nearest = min(distance(column + 0.5, row + 0.5, segment) for segment in segments)
        ink[row, column] = min(1.0, width, max(0.0, width / 2 + 0.5 - nearest))
    return ink * 255


SEGMENTS: list[Segment] = [
    (3, 4.25, 12.5, 4.25),
    (18.2, 3.1, 18.2, 9.7),
    (20.1, 14.9, 6.3, 8.2),
    (2.5, 12.5, 2.5, 12.5),  # a dot
    (10.4, 11.3, 10.9, 11.2),
    (-3, 1.2, 4, -2.5),  # over the corners
    (21, 17, 30, 12.1),
    (-9, -9, -8, -8),  # outside
    (40, 3, 50, 3),
    (3, 40, 9, 44),
]


@pytest.mark.parametrize("width", [0.3, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("chunk", [1 << 18, 40])
def test_a_stroke_covers_what_the_formula_says(
    width: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raster, "CHUNK", chunk)
    ink = np.zeros((18, 24), np.uint8)
    stroke(ink, np.array(SEGMENTS, np.float32), width)
    assert np.abs(ink - covered((18, 24), SEGMENTS, width)).max() <= 0.51
    for segment in SEGMENTS:  # also where no other line is near
        alone = np.zeros((18, 24), np.uint8)
        stroke(alone, np.array([segment], np.float32), width)
        assert np.abs(alone - covered((18, 24), [segment], width)).max() <= 0.51


@pytest.mark.parametrize("width", [1.0, 2.5])
def test_a_stroke_at_an_edge_covers_the_last_rows_and_columns(width: float) -> None:
    edges: list[Segment] = [(0, 0, 7, 0), (0, 0, 0, 5), (7, 0, 7, 5), (0, 5, 7, 5)]
    for segment in edges:
        ink = np.zeros((5, 7), np.uint8)
        stroke(ink, np.array([segment], np.float32), width)
        assert np.abs(ink - covered((5, 7), [segment], width)).max() <= 0.51
        assert ink.any()


def test_ink_only_grows() -> None:
    ink = np.full((6, 6), 100, np.uint8)
    stroke(ink, np.array([(0, 3.25, 6, 3.25)], np.float32), 1)
    assert ink[0].tolist() == [100] * 6
    assert ink[3].tolist() == [191] * 6  # 0.75, rounded


# --- letters --------------------------------------------------------------------------------------

DPI = 127  # 5 pixels a millimetre


def font(style: PageStyle) -> ImageFont.FreeTypeFont:
    made = ImageFont.load_default(style.px(style.text_pt))
    assert isinstance(made, ImageFont.FreeTypeFont)
    return made


def written(
    shape: tuple[int, int], style: PageStyle, texts: list[tuple[float, float, str]]
) -> np.ndarray:
    """Lines of text as Pillow writes them, each with its base line and left edge at a place."""
    ink = np.zeros(shape, np.uint8)
    for x, y, line in texts:
        image = Image.new("L", (shape[1], shape[0]))
        place = (round(x), round(y))
        ImageDraw.Draw(image).text(place, line, fill=255, font=font(style), anchor="ls")
        ink = np.maximum(ink, np.asarray(image))
    return ink


def texts_of(style: PageStyle, height: int) -> list[tuple[float, float, str]]:
    """Lead names 7 mm below their lines, and scales 50 and 100 mm from the left."""
    names = [(cell.x, cell.y + 35, cell.lead) for cell in page_cells(style)]
    return [*names, (250, height - 25, "25mm/s"), (500, height - 25, "10mm/mV")]


def test_names_and_scales_and_missing_leads() -> None:
    style = PageStyle(dpi=DPI)
    ink = np.zeros((1080, 1397), np.uint8)
    write_texts(ink, style, ("V1", "V6"), None)
    texts = [*texts_of(style, 1080), (750, 1055, "not recorded: V1 V6")]
    assert np.array_equal(ink, written(ink.shape, style, texts))


@pytest.mark.parametrize("shape", [(1080, 1397), (1068, 1029), (660, 400), (488, 88), (3, 5)])
def test_what_lies_over_an_edge_is_cut(shape: tuple[int, int]) -> None:
    """Through the middle of letters, at the right and below."""
    style = PageStyle(dpi=DPI, show_scale=False)
    ink = np.zeros(shape, np.uint8)
    write_texts(ink, style, (), None)
    assert np.array_equal(ink, written(shape, style, texts_of(style, 0)[:13]))


@pytest.mark.parametrize("label", [20, 19, -18.5, -20])
def test_names_over_the_upper_and_lower_edge_are_cut(label: float) -> None:
    style = PageStyle(
        dpi=DPI, label_mm=label, layout="12x1", row_mm=16, height_in=1050 / DPI, show_scale=False
    )
    ink = np.zeros((1050, 1397), np.uint8)
    write_texts(ink, style, (), None)
    names = [(cell.x, cell.y - 5 * label, cell.lead) for cell in page_cells(style)]
    assert np.array_equal(ink, written(ink.shape, style, names))


BARE = PageStyle(dpi=DPI, show_names=False, show_scale=False)


def lines_of(header: str, shape: tuple[int, int] = (1080, 1397)) -> list[tuple[float, float, str]]:
    """The header's lines, wrapped word by word: at most the page less 5 mm on either side."""
    pitch = 1.3 * BARE.px(BARE.text_pt)
    room = shape[1] - 50
    lines = []
    for line in header.splitlines():
        current = ""
        for word in line.split(" "):
            longer = f"{current} {word}" if current else word
            if font(BARE).getlength(longer) > room:
                lines.append(current)
                longer = word
            current = longer
        lines.append(current)
    return [(25, number * pitch, line) for number, line in enumerate(lines, 1)]


@pytest.mark.parametrize(
    "header",
    [
        "ID: 7",
        "ID: 7\nSex: F",
        "one\n\nthree",
        "some words of a header " * 12,
        "i" * 60,
        *("i" * n + " some words" * 16 for n in range(1, 9)),
    ],
)
def test_a_header_is_wrapped_at_spaces(header: str) -> None:
    ink = np.zeros((1080, 1397), np.uint8)
    write_texts(ink, BARE, (), header)
    assert np.array_equal(ink, written(ink.shape, BARE, lines_of(header)))


def test_a_word_that_is_too_long_is_cut_where_the_page_ends() -> None:
    """Without a space every line holds as many letters as fit."""
    word = "".join(chr(ord("a") + n * 7 % 26) for n in range(200))
    fit = next(n for n in range(200, 0, -1) if font(BARE).getlength(word[:n]) <= 1347)
    assert 100 < fit < 180
    ink = np.zeros((1080, 1397), np.uint8)
    write_texts(ink, BARE, (), word)
    pitch = 1.3 * BARE.px(BARE.text_pt)
    expected: list[tuple[float, float, str]] = [
        (25, pitch, word[:fit]),
        (25, 2 * pitch, word[fit:]),
    ]
    assert np.array_equal(ink, written(ink.shape, BARE, expected))


def test_a_header_may_take_the_room_over_the_first_row() -> None:
    """The first row stands 450 px below the edge, less 5 mm; lines are 25.2 px high."""
    room = int((450 - 25) / (1.3 * BARE.px(11)))
    assert room == 16
    ink = np.zeros((1080, 1397), np.uint8)
    write_texts(ink, BARE, (), "x\n" * room)
    with pytest.raises(
        ParameterError, match=r"^the header takes 17 lines, the page has room for 16; shorten it$"
    ):
        write_texts(ink, BARE, (), "x\n" * (room + 1))


def test_the_room_for_a_header_ends_over_the_first_row_of_one_column() -> None:
    """115 px, less 5 mm, are three lines."""
    style = PageStyle(dpi=DPI, layout="12x1", show_names=False, show_scale=False)
    ink = np.zeros((1080, 1397), np.uint8)
    write_texts(ink, style, (), "x\n" * 3)
    with pytest.raises(ParameterError, match="room for 3; shorten it"):
        write_texts(ink, style, (), "x\n" * 4)


def test_a_space_at_the_beginning_of_a_line_is_no_place_to_wrap_it() -> None:
    line = " " + "w" * 150
    fit = next(n for n in range(150, 0, -1) if font(BARE).getlength(line[:n]) <= 1347)
    ink = np.zeros((1080, 1397), np.uint8)
    write_texts(ink, BARE, (), line)
    pitch = 1.3 * BARE.px(BARE.text_pt)
    top = written(ink.shape, BARE, [(25, pitch, line[:fit])])
    assert np.array_equal(ink[: round(pitch)], top[: round(pitch)])
