"""Names, scales and headers: against Pillow, and clear of the traces."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pulse_edge.ecg.layout import PageStyle, page_cells
from pulse_edge.ecg.texts import write_texts
from pulse_edge.errors import ParameterError

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


# --- clear of traces ------------------------------------------------------------------------------


def bands(style: PageStyle) -> np.ndarray:
    """Ink where each lead's name usually is, and to the right of it."""
    height, width = style.size[1], style.size[0]
    ink = np.zeros((height, width), np.uint8)
    for cell in page_cells(style):
        left, line = round(cell.x), round(cell.y)
        ink[line : line + round(8 * style.px_per_mm), left + 2 : left + 12] = 255
    return ink


@pytest.mark.parametrize("layout", ["3x4", "6x2", "12x1"])
@pytest.mark.parametrize("dpi", [60, 110, 200])
def test_names_move_to_where_no_ink_is(layout: str, dpi: int) -> None:
    style = PageStyle(layout=layout, dpi=dpi, show_scale=False)
    before = bands(style)
    ink = before.copy()
    write_texts(ink, style, (), None)
    assert (ink[before > 0] == 255).all()  # nothing was cleared
    letters = (ink > 0) & (before == 0)
    near = np.zeros_like(letters)  # the ink and the pixels beside it
    near[:, 1:-1] = (before[:, :-2] > 0) | (before[:, 2:] > 0)
    assert not (letters & near).any()
    blank = np.zeros_like(before)
    write_texts(blank, style, (), None)
    assert letters.sum() == (blank > 0).sum()  # all of every name


def test_a_name_without_a_clear_place_stands_on_cleared_ground() -> None:
    style = PageStyle(dpi=60, show_scale=False)
    ink = np.full(style.size[::-1], 255, np.uint8)
    write_texts(ink, style, (), None)
    cell = page_cells(style)[0]
    ground = ink[round(cell.y) :, round(cell.x) :][: round(12 * style.px_per_mm), :60]
    assert (ground == 0).any()
    assert (ground == 255).any()


@pytest.mark.parametrize("place", [50, 100])
def test_scales_move_aside_from_a_trace(place: float) -> None:
    style = PageStyle(dpi=100, show_names=False)
    ink = np.zeros(style.size[::-1], np.uint8)
    column = round((place + 3) * style.px_per_mm)
    ink[:, column] = 255
    before = ink.copy()
    write_texts(ink, style, (), None)
    letters = (ink > 0) & (before == 0)
    assert not letters[:, column - 1 : column + 2].any()


def test_a_header_moves_aside_from_a_trace_or_is_refused() -> None:
    ink = np.zeros((1080, 1397), np.uint8)
    ink[:60, 60:80] = 255
    write_texts(ink, BARE, (), "ID 7")
    written_at = np.flatnonzero(ink[:40, 80:].any(axis=0))[0] + 80
    assert written_at > 80
    ink = np.zeros((1080, 1397), np.uint8)
    ink[:60, ::20] = 255
    with pytest.raises(ParameterError, match="line 1 of the header would run through a trace"):
        write_texts(ink, BARE, (), "a header of some words")
