"""Where leads stand on a page, in pixels that were computed by hand, and the limits of styles."""

from __future__ import annotations

from typing import Any

import pytest

from pulse_edge.ecg.layout import PageStyle, page_cells
from pulse_edge.ecg.leads import LEADS
from pulse_edge.errors import ParameterError

DPI = 127  # 5 pixels a millimetre: a US letter sheet has 1397 x 1080


def places(**style: Any) -> dict[str, list[tuple[float, float]]]:
    """(x, y) of each lead's cells."""
    found: dict[str, list[tuple[float, float]]] = {}
    for cell in page_cells(PageStyle(dpi=DPI, **style)):
        found.setdefault(cell.lead, []).append((cell.x, cell.y))
    return found


def test_the_default_page() -> None:
    """15 mm to the left of the trace, columns of 62.5 mm; rows 126, 90, 54 and 21 mm high."""
    found = places()
    columns, rows = (75, 387.5, 700, 1012.5), (450, 630, 810)
    for number, lead in enumerate(LEADS):
        place = (columns[number // 3], rows[number % 3])
        assert found[lead] == ([place, (75, 975)] if lead == "II" else [place])


def test_two_strips_and_none() -> None:
    two = places(strips=("V1", "V5"))
    assert (two["I"], two["II"], two["III"]) == ([(75, 385)], [(75, 540)], [(75, 695)])
    assert (two["V1"][1], two["V5"][1]) == ((75, 835), (75, 990))
    none = places(strips=())
    assert (none["I"], none["II"], none["III"]) == ([(75, 325)], [(75, 540)], [(75, 755)])


def test_other_layouts_and_sizes() -> None:
    assert places(layout="6x2")["V1"] == [(700, 205)]
    assert places(layout="6x2")["aVF"] == [(75, 880)]
    assert places(layout="12x1")["I"] == [(75, 115)]
    assert places(layout="12x1")["V6"] == [(75, 965)]
    assert places(width_in=300 / 25.4)["I"][0][0] == 150
    assert places(width_in=299 / 25.4)["I"][0][0] == 125
    assert places(row_mm=40)["I"] == [(75, 380)]


def test_times_run_on_from_column_to_column() -> None:
    cells = page_cells(PageStyle(speed=50))
    assert {cell.column: (cell.start, cell.stop) for cell in cells[:12]} == {
        0: (0, 1.25),
        1: (1.25, 2.5),
        2: (2.5, 3.75),
        3: (3.75, 5),
    }
    assert cells[12][:3] == ("II", 0, 5)
    assert cells[12].column == 0


def test_scales() -> None:
    style = PageStyle(dpi=DPI, speed=50, gain=20)
    assert (style.px_per_mm, style.px_per_second, style.px_per_mv) == (5, 250, 100)
    assert style.px(72) == DPI
    assert style.size == (1397, 1080)
    assert PageStyle(row_mm=30).row_pitch_mm == 30


@pytest.mark.parametrize(
    ("name", "low", "high", "with_"),
    [
        ("dpi", 30, 600, {}),
        ("width_in", 270 / 25.4, 24, {}),
        ("height_in", 150 / 25.4, 24, {}),
        ("grid_pt", 0, 4, {}),
        ("trace_pt", 0.1, 6, {}),
        ("text_pt", 4, 24, {}),
        ("label_mm", -20, 20, {}),
        ("row_mm", 12, 100, {"height_in": 24}),
    ],
)
def test_the_limits_of_a_style_are_accepted_and_no_more(
    name: str, low: float, high: float, with_: dict[str, Any]
) -> None:
    value: Any
    for value in (low, high):
        assert getattr(PageStyle(**with_ | {name: value}), name) == value
    for value in (low - 0.01, high + 0.01, float("nan"), "5", None):
        if value is None and name == "row_mm":
            continue
        with pytest.raises(ParameterError, match=f"^{name} is .*; expected {low:g} to {high:g}$"):
            PageStyle(**with_ | {name: value})


def test_the_first_row_stands_10_mm_below_the_edge() -> None:
    """12 rows of 16 mm, the last 24 mm above the lower edge, are 200 mm."""
    style = PageStyle(layout="12x1", row_mm=16, dpi=DPI, height_in=1050 / DPI)
    assert page_cells(style)[0].y == 50
    with pytest.raises(ParameterError, match=r"^row_mm is 16: too much for a page 8\.2\d* in high"):
        PageStyle(layout="12x1", row_mm=16, dpi=DPI, height_in=1049 / DPI)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("paper", (0, 0, 0)),
        ("ink", (1, 1, 1)),
        ("strips", ("I", "II", "V1", "V6")),
        ("strips", ()),
        ("speed", 25.0),
    ],
)
def test_values_at_their_limits_are_accepted(name: str, value: Any) -> None:
    assert getattr(PageStyle(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("layout", "4x3", "expected one of 3x4, 6x2, 12x1"),
        ("speed", 12.5, "expected one of 25, 50"),
        ("gain", 2.5, "expected one of 5, 10, 20"),
        ("paper", (-0.1, 0, 0), r"expected \(red, green, blue\), each 0 to 1"),
        ("grid_minor", (0, 0, 1.1), "each 0 to 1"),
        ("grid_major", [0, 0, 0], "each 0 to 1"),
        ("ink", (0, 0, 0, 0), "each 0 to 1"),
        ("strips", ["II"], f"a tuple of up to 4 of {', '.join(LEADS)}"),
        ("strips", ("I", "II", "III", "V1", "V2"), "up to 4"),
        ("strips", ("II", "X"), "up to 4"),
    ],
)
def test_other_values_are_refused_with_what_is_legal(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ParameterError, match=f"^{name} is ") as caught:
        PageStyle(**{name: value})
    assert expected.replace("\\", "") in str(caught.value)
