"""Texts of a page: lead names, scales and header, where no trace runs through them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pulse_edge.ecg.layout import Cell, PageStyle, page_cells
from pulse_edge.ecg.lettering import (
    LINE_PITCH,
    Glyphs,
    glyphs_of,
    header_text,
    is_plain,
    wrap_lines,
)
from pulse_edge.ecg.vacancy import Box, Ink, Reach, nearest_vacancy
from pulse_edge.errors import ParameterError

_MARGIN_MM = 0.5  # between a text and a trace
_SCALE_REACH_MM = 45.0  # how far a scale may stand from its place, along the lower edge


class _Text(NamedTuple):
    """A line of text, with its origin on the page in whole pixels."""

    glyphs: Glyphs
    x: int
    base_line: int

    @property
    def box(self) -> Box:
        height, width = self.glyphs.cover.shape
        left, top = self.x + self.glyphs.left, self.base_line + self.glyphs.top
        return Box(left, top, left + width, top + height)


def write_texts(
    ink: Ink,
    style: PageStyle,
    missing: tuple[str, ...],
    header: str | None,
    cells: tuple[Cell, ...] | None = None,
) -> None:
    """Write header, lead names and scales, in place.

    A name or scale whose place holds ink goes to the nearest one that holds none. If there is none,
    it stands on cleared ground, where the least ink is.

    Args:
        ink: coverage, uint8 [height, width], with the traces.
        style: of the page.
        missing: leads that the recording lacks.
        header: lines of text for the upper left corner.
        cells: where leads stand; None: in their usual places.

    Raises:
        ParameterError: the header does not fit over the first row of leads, or has right-to-left
            letters that cannot be ordered here.
    """
    usual = page_cells(style)
    cells = usual if cells is None else cells
    if header:
        _write_header(ink, style, header, cells)
    if style.show_names:
        _write_names(ink, style, cells, moved=cells != usual)
    height = ink.shape[0]
    mm = style.px_per_mm
    scales: list[tuple[float, str]] = []
    if style.show_scale:
        scales += [(50, f"{style.speed:g}mm/s"), (100, f"{style.gain:g}mm/mV")]  # [kit]
    if missing:
        scales.append((150, "not recorded: " + " ".join(missing)))
    sideways, upwards = round(_SCALE_REACH_MM * mm), round(2 * mm)
    reach = Reach(left=sideways, right=sideways, up=upwards, down=upwards)
    for x, line in scales:
        glyphs = glyphs_of(line, style.px(style.text_pt))
        text = _Text(glyphs, round(x * mm), round(height - 5 * mm))
        _write_clear(ink, text, reach, round(_MARGIN_MM * mm))


def _write_names(ink: Ink, style: PageStyle, cells: tuple[Cell, ...], moved: bool) -> None:
    """Write the name of each lead. `moved`: rows are not in their usual places."""
    mm = style.px_per_mm
    margin = round(_MARGIN_MM * mm)
    lines = sorted({cell.y for cell in cells})
    for cell in cells:
        glyphs = glyphs_of(cell.lead, style.px(style.text_pt))
        high, wide = glyphs.cover.shape
        row = lines.index(cell.y)
        over = (cell.y - lines[row - 1]) / 2 if row else cell.y
        under = (lines[row + 1] - cell.y) / 2 if row + 1 < len(lines) else ink.shape[0] - cell.y
        drop = -style.label_mm * mm
        if moved:  # nearer to its own line than to the next one
            drop = min(drop, under + high / 2 - margin)
        text = _Text(glyphs, round(cell.x), round(cell.y + drop))
        width = (cell.stop - cell.start) * style.px_per_second
        reach = Reach(
            right=max(0, round(width - wide - 2 * margin)),
            up=max(0, round(text.box.top - cell.y + over)),
            down=max(0, round(cell.y + under - text.box.bottom)),
        )
        _write_clear(ink, text, reach, margin)


def _write_header(ink: Ink, style: PageStyle, header: str, cells: tuple[Cell, ...]) -> None:
    mm = style.px_per_mm
    size = style.px(style.text_pt)
    text = header_text(header)
    lines = wrap_lines(text, size, ink.shape[1] - 10 * mm)
    pitch = LINE_PITCH * size
    margin = round(_MARGIN_MM * mm)
    plain = is_plain(text)
    texts: list[_Text] = []
    room = int((cells[0].y - 5 * mm) / pitch)
    if len(lines) > room:
        raise ParameterError(
            f"the header takes {len(lines)} lines, the page has room for {room}; shorten it"
        )
    for number, line in enumerate(lines, 1):
        written = _Text(glyphs_of(line, size, plain), round(5 * mm), round(number * pitch))
        reach = Reach(right=max(0, ink.shape[1] - round(5 * mm) - written.box.right))
        dx, _, vacant = nearest_vacancy(ink, written.box.widened(margin), reach)
        if not vacant:
            raise ParameterError(
                f"line {number} of the header would run through a trace; shorten the header, or "
                "draw at a lower gain"
            )
        texts.append(written._replace(x=written.x + dx))
    for each in texts:
        _put(ink, each)


def _write_clear(ink: Ink, text: _Text, reach: Reach, margin: int) -> None:
    """Write a text where no ink is, within `reach` of its place."""
    box = text.box.widened(margin)
    dx, dy, vacant = nearest_vacancy(ink, box, reach)
    if not vacant:
        box.moved(dx, dy).inside(ink)[:] = 0
    _put(ink, text._replace(x=text.x + dx, base_line=text.base_line + dy))


def _put(ink: Ink, text: _Text) -> None:
    box = text.box
    height, width = ink.shape
    cover = text.glyphs.cover[max(0, -box.top) : max(0, height - box.top)]
    cover = cover[:, max(0, -box.left) : max(0, width - box.left)]
    spot = box.inside(ink)[: cover.shape[0], : cover.shape[1]]
    np.maximum(spot, cover, out=spot)
