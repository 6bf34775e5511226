"""Checks of a page before a model reads it: what would make its answer less likely to be right.

Nothing is repaired. Each check says what it cannot see.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.page.check import CheckStatus, PageCheck
from pulse_edge.page.grid import PageGrid, find_grid
from pulse_edge.page.sharpness import edge_blur
from pulse_edge.page.strokes import cut_strokes, lie_of_traces
from pulse_edge.page.swatch import Swatch, swatch_of
from pulse_edge.page.views import select_grid

# Below it traces are thinner than a pixel of the views.
LEAST_DPI = 60.0
MOST_SKEW = 2.0  # degrees
MOST_ANISOTROPY = 4.5  # %: 5 % is found although the measurement has an error of 0.3 %
MOST_BLUR_MM = 0.22  # a Q wave of 40 ms is 1 mm wide
MOST_BLUR_PX = 1.1  # of a page of low resolution: resampling alone gives 0.7
LEAST_CONTRAST = 25.0  # %
DARK_PAPER = 90.0  # of 255
MOST_BLACK = 50.0  # %
PORTRAIT = 0.95  # width over height
LYING = 1.2  # nepers, from which on the direction of the traces is likely
LYING_LANDSCAPE = 2.5  # the same for a page whose shape says otherwise
_SHEET_IN = 11.0  # long side of a usual sheet, in inches
_MM = 25.4  # of an inch
_SQUARE = 5.0  # mm
_MULTIPLE = 1.5  # of the pitch of a usual sheet: a grid's is more likely a multiple of its own

_UNSEEN = "Unknown: the grid does not show it."


def check_page(image: Image.Image, model: ModelSpec | None = None) -> tuple[PageCheck, ...]:
    """Check a page.

    Args:
        image: RGB, upright as far as its file says.
        model: that will see the page; None leaves the check of its views unknown.
    """
    return check_looks(look_over(image), model)


@dataclass(frozen=True)
class PageLooks:
    """What the checks need of a page.

    Attributes:
        size: (width, height) in pixels.
        swatch: the page, reduced.
        blur: see `edge_blur`.
    """

    size: tuple[int, int]
    swatch: Swatch
    blur: float | None


def look_over(image: Image.Image) -> PageLooks:
    """What needs the whole page; the rest of the checks does not.

    Args:
        image: RGB.
    """
    return PageLooks(image.size, swatch_of(image), edge_blur(image))


def check_looks(looks: PageLooks, model: ModelSpec | None) -> tuple[PageCheck, ...]:
    """The checks of a page.

    Args:
        looks: of the page.
        model: as for `check_page`.
    """
    size, swatch = looks.size, looks.swatch
    grid = find_grid(swatch)
    # Lines of a page this small are aliases of each other as often as not.
    tiny = max(size) / _SHEET_IN < LEAST_DPI
    squares = grid if grid is not None and grid.certain and not tiny else None
    return (
        _resolution(size, squares),
        _grid_found(size, grid),
        _skew(grid),
        _pitch("x", squares),
        _pitch("y", squares),
        _anisotropy(squares),
        _blur(looks, squares),
        _crop(swatch),
        _contrast(swatch),
        _colour(swatch),
        _orientation(size, swatch),
        _black_share(size, model),
    )


def _resolution(size: tuple[int, int], grid: PageGrid | None) -> PageCheck:
    blind = "Whether the squares are of 5 mm; details that were lost before the page was enlarged."
    if grid is None:
        guess = max(size) / _SHEET_IN
        low = guess < LEAST_DPI
        message = f"By the grid unknown; a sheet of {_SHEET_IN:g} in would have {guess:.0f} dpi"
        message += f", under {LEAST_DPI:g}: traces vanish." if low else "."
        return PageCheck("resolution", "warn" if low else "unknown", guess, "dpi", message, blind)
    dpi = min(grid.pitch_x, grid.pitch_y) / _SQUARE * _MM
    if dpi < LEAST_DPI:
        message = f"{dpi:.0f} dpi, under {LEAST_DPI:g}: traces vanish in the model's views."
        return PageCheck("resolution", "warn", dpi, "dpi", message, blind)
    return PageCheck("resolution", "ok", dpi, "dpi", f"{dpi:.0f} dpi by the grid.", blind)


def _grid_found(size: tuple[int, int], grid: PageGrid | None) -> PageCheck:
    blind = "Whether it is the grid of an ECG; paper speed and gain, which are text."
    if grid is not None:
        decibel = 4.343 * grid.strength
        return PageCheck("grid", "ok", decibel, "dB", "A grid was found.", blind)
    if max(size) / _SHEET_IN < LEAST_DPI:
        message = "No grid was found, but the page is too small to show one."
        return PageCheck("grid", "unknown", None, "dB", message, blind)
    message = "No grid: the page has no scale, and may be no ECG."
    return PageCheck("grid", "warn", None, "dB", message, blind)


def _skew(grid: PageGrid | None) -> PageCheck:
    blind = "Turns by 90 or 180 degrees, and a page that is bent."
    if grid is None:
        return PageCheck("skew", "unknown", None, "deg", _UNSEEN, blind)
    turned = abs(grid.skew) > MOST_SKEW
    side = "counter-clockwise" if grid.skew > 0 else "clockwise"
    message = f"The page is turned {abs(grid.skew):.1f} degrees {side}."
    return PageCheck("skew", "warn" if turned else "ok", grid.skew, "deg", message, blind)


def _pitch(axis: str, grid: PageGrid | None) -> PageCheck:
    name = f"pitch_{axis}"
    blind = "Whether a square is of 5 mm, which is assumed; pages that are bent."
    if grid is None:
        return PageCheck(name, "unknown", None, "px/mm", _UNSEEN, blind)
    pitch = (grid.pitch_x if axis == "x" else grid.pitch_y) / _SQUARE
    message = f"A millimetre is {pitch:.2f} px in {axis}."
    return PageCheck(name, "ok", pitch, "px/mm", message, blind)


def _anisotropy(grid: PageGrid | None) -> PageCheck:
    blind = "A grid that was drawn with other squares; perspective that is the same in x and y."
    if grid is None:
        return PageCheck("anisotropy", "unknown", None, "%", _UNSEEN, blind)
    percent = 100 * (grid.pitch_x / grid.pitch_y - 1)
    squashed = abs(percent) > MOST_ANISOTROPY
    how = "wider" if percent > 0 else "narrower"
    message = f"Squares are {abs(percent):.1f} % {how} than high."
    return PageCheck("anisotropy", "warn" if squashed else "ok", percent, "%", message, blind)


def _blur(looks: PageLooks, grid: PageGrid | None) -> PageCheck:
    blind = "Blur of a single corner; details that were lost before the page was enlarged."
    blur = looks.blur
    if blur is None:
        message = "Unknown: there is too little ink."
        return PageCheck("blur", "unknown", None, "mm", message, blind)
    pitch = max(looks.size) / (_SHEET_IN * _MM)
    if grid is not None:
        by_grid = min(grid.pitch_x, grid.pitch_y) / _SQUARE
        # Blur hides lines of a grid, and others are then a multiple as far apart.
        pitch = by_grid if by_grid < _MULTIPLE * pitch else pitch
    soft = blur / pitch > MOST_BLUR_MM and blur > MOST_BLUR_PX
    message = f"Edges of ink are blurred by {blur / pitch:.2f} mm (standard deviation)."
    return PageCheck("blur", "warn" if soft else "ok", blur / pitch, "mm", message, blind)


def _crop(swatch: Swatch) -> PageCheck:
    blind = "A page that was cut where no trace is, or set on other paper afterwards."
    cut = cut_strokes(swatch)
    if cut.dense:
        message = "Unknown: the border of the page is full of ink, or the page is tiny."
        return PageCheck("crop", "unknown", None, "strokes", message, blind)
    status: CheckStatus = "warn" if cut.sides else "ok"
    message = "No traces run off the page."
    if cut.sides:
        message = f"Strokes run off the page at the {' and '.join(cut.sides)}."
    return PageCheck("crop", status, float(cut.strokes), "strokes", message, blind)


def _contrast(swatch: Swatch) -> PageCheck:
    blind = "A grid that is as dark as the traces."
    percent = 100 * swatch.contrast
    status: CheckStatus = "ok"
    message = f"The darkest strokes are {percent:.0f} % darker than the paper."
    if percent < LEAST_CONTRAST:
        status, message = "warn", f"Faint: {message[0].lower()}{message[1:]}"
    elif swatch.paper < DARK_PAPER:
        status, message = "warn", "The page is dark: inverted, or photographed in little light."
    return PageCheck("contrast", status, percent, "%", message, blind)


def _colour(swatch: Swatch) -> PageCheck:
    blind = "Whether the grid was in colour before the page was copied."
    percent = 100 * swatch.coloured
    message = f"{percent:.0f} % of the page is in colour." if percent >= 1 else "The page is grey."
    return PageCheck("colour", "ok", percent, "%", message, blind)


def _orientation(size: tuple[int, int], swatch: Swatch) -> PageCheck:
    blind = "Upside down: a grid looks the same; and to which side a page lies."
    ratio = size[0] / size[1]
    lie = lie_of_traces(swatch)
    status: CheckStatus = "ok"
    message = "Landscape."
    if lie is not None and lie < (-LYING if ratio < 1 / PORTRAIT else -LYING_LANDSCAPE):
        status, message = "warn", "Traces seem to run down the page: it lies on its side."
    elif ratio < PORTRAIT and (lie is None or lie < LYING):
        status, message = "warn", "The page is higher than wide: perhaps it lies on its side."
    elif ratio < PORTRAIT:
        message = "Portrait, and traces run across it."
    return PageCheck("orientation", status, ratio, "width/height", message, blind)


def _black_share(size: tuple[int, int], model: ModelSpec | None) -> PageCheck:
    blind = "Margins of the page itself, which are also lost to the traces."
    if model is None:
        return PageCheck("black_share", "unknown", None, "%", "Unknown without a model.", blind)
    share = 0.0
    if model.image.aspect == "anyres":
        width, height = select_grid(size, model.image.grids)
        scale = min(width / size[0], height / size[1])
        share = 100 * (1 - size[0] * size[1] * scale**2 / (width * height))
    status: CheckStatus = "warn" if share > MOST_BLACK else "ok"
    message = f"{share:.0f} % of the model's views is black around the page."
    return PageCheck("black_share", status, share, "%", message, blind)
