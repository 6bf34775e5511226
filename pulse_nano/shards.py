"""Training pages: what the model's views show of a drawn page, cheap enough to make tens of
thousands.

The real path is `pulse_edge.ecg.drawing.draw_page` at 200 dpi, letterboxed to 672 x 672 (a letter
page becomes 672 x 520) and squashed to 336 x 336 for the base view. Here the same ink is drawn by
the same code at about 122 dpi and reduced to those two sizes once; grid, paper and colours are put
in when a batch is made, so that every epoch sees other ones. The grid's coverage is a product of a
row and a column profile, and so is its reduction: five vectors replace a picture.
`tests/nano/test_shards.py` compares a composed page with the real path.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_edge.ecg.drawing import draw_ink, grid_cover
from pulse_edge.ecg.layout import Cell, PageStyle
from pulse_edge.ecg.recording import LEADS, Recording
from pulse_edge.ecg.spacing import Arrangement, arrange
from pulse_edge.simulation.ecg import LBBB, Ecg
from pulse_edge.simulation.noise import Noise, add_noise
from pulse_edge.simulation.pages import (
    make_ecg,
    sample_header,
    sample_style,
    shown_ectopy,
)
from pulse_edge.simulation.population import sample_spec, vary_repolarization
from pulse_edge.simulation.simulator import simulate
from pulse_nano.hearts import VariedHeart, sample_varied_spec
from pulse_nano.sheets import draw_sheet, sample_sheet, sheet_profiles

SIDE = 336
CANVAS = 2 * SIDE
RARE = 1.5  # weight of rare findings among training pages
SUPERSAMPLED = CANVAS * 2 / 11  # dpi that makes a letter page twice as wide as the canvas

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# Columns of `Page.events`, canvas pixels first. kind: 0 conducted QRS, 1 premature ventricular, 2
# premature atrial, 3 paced, 4 escape, 5 P wave, 6 pacing spike, 7 P wave that no QRS complex
# belongs to. NaN: does not apply.
EVENT_COLUMNS = ("x", "y", "kind", "pr_s", "st_mm", "rr_s", "qrs_s")
P_WAVE, SPIKE, LONE_P = 5, 6, 7


@dataclass(frozen=True)
class Page:
    """One page as ink: uint8 coverage `ink` (height, 672) and `base` (336, 336), grid profiles, and
    the truth.

    `grid`: float32 vectors of uncovered share, named (axis, lines, size): "x" or "y"; "all" lines
    or only "major" ones; "canvas" or "base". `events`: float32 (n, 7), see EVENT_COLUMNS. `labels`:
    EcgSpec's fields and the measured rate. `plot` (left, top, right, bottom): what the grid covers,
    in pixels of the canvas from the page's top; None: all of it.
    """

    ink: U8
    base: U8
    grid: dict[str, F32]
    events: F32
    labels: dict[str, Any]
    plot: tuple[int, int, int, int] | None = None

    @property
    def top(self) -> int:
        """Canvas row where the letterboxed page begins."""
        return (CANVAS - int(self.ink.shape[0])) // 2


def _shrink(vector: F32, length: int) -> F32:
    """Bicubic reduction of a vector, with Pillow's filter."""
    image = Image.fromarray(np.ascontiguousarray(np.repeat(vector[None], 2, axis=0)), mode="F")
    out: F32 = np.asarray(image.resize((length, 2)), np.float32)[0].copy()
    return out


def grid_profiles(style: PageStyle, height: int) -> dict[str, F32]:
    """Profiles for `Page.grid` of a page whose canvas height is `height`."""
    out: dict[str, F32] = {}
    for axis, size, canvas in (("x", style.size[0], CANVAS), ("y", style.size[1], height)):
        minor, major = 1 - grid_cover(size, style, style.grid_pt)[:, :: -1 if axis == "y" else 1]
        for lines, free in (("all", minor * major), ("major", major)):
            out[f"{axis} {lines} canvas"] = _shrink(free, canvas)
            out[f"{axis} {lines} base"] = _shrink(free, SIDE)
    return out


def style_events(ecg: Ecg, page: Arrangement, top: int) -> F32:
    """`find_events` for a page of `pulse_edge.ecg.layout`."""
    style = page.style
    scale = CANVAS / style.size[0]
    cells = [cell._replace(x=cell.x * scale, y=cell.y * scale) for cell in page.cells]
    return find_events(ecg, cells, style.px_per_second * scale, style.gain, top)


def find_events(
    ecg: Ecg, cells: Sequence[Cell], px_per_second: float, gain: float, top: int
) -> F32:
    """Where every beat and P wave lies on the canvas, float32 (n, 7), see EVENT_COLUMNS.

    Args:
        ecg: the recording.
        cells: in pixels of the canvas.
        px_per_second: of the canvas.
        gain: mm a millivolt.
        top: canvas row where the page begins.
    """
    rows: list[tuple[float, ...]] = []
    nan = float("nan")
    measurable_st = LBBB not in ecg.spec.conduction
    pr_of = {
        round(onset - pr, 4): pr
        for onset, pr in zip(ecg.qrs, ecg.pr, strict=True)
        if np.isfinite(pr)
    }
    for cell in cells:
        lead = LEADS.index(cell.lead)
        y = cell.y + top

        def x(time: float, cell: Cell = cell) -> float:
            return cell.x + (time - cell.start) * px_per_second

        previous = nan
        for onset, width, kind, pr in zip(ecg.qrs, ecg.qrs_s, ecg.kind, ecg.pr, strict=True):
            if not cell.start <= onset < cell.stop - 0.06:
                continue
            seen_pr = pr if onset - pr >= cell.start else nan
            st = ecg.st_mv[lead] * gain if kind in (0, 2, 4) and measurable_st else nan
            rows.append((x(onset + 0.45 * width), y, kind, seen_pr, st, onset - previous, width))
            previous = onset
        for p in ecg.p:
            if cell.start <= p < cell.stop - 0.08:
                pr = pr_of.get(round(p, 4), nan)
                rows.append((x(p + 0.05), y, LONE_P if np.isnan(pr) else P_WAVE, pr, nan, nan, nan))
        rows += [
            (x(s), y, SPIKE, nan, nan, nan, nan) for s in ecg.spikes if cell.start <= s < cell.stop
        ]
    return np.array(rows, np.float32).reshape(-1, len(EVENT_COLUMNS))


def draw_training_page(ecg: Ecg, style: PageStyle, header: str | None = None) -> Page:
    """A recording as a training page. `style` is the 200 dpi style; only its ink and geometry
    matter."""
    small = replace(style, dpi=style.dpi * SUPERSAMPLED / 200)
    # The simulator's noise is drawn for each lead, so it obeys no law of limb leads.
    recording = Recording(ecg.signal.astype(np.float32), ecg.hz, LEADS, tolerance=math.inf)
    image = draw_ink(recording, small, header)
    height = math.ceil(style.size[1] * CANVAS / style.size[0])
    ink = np.asarray(image.resize((CANVAS, height)))
    return Page(
        ink,
        np.asarray(image.resize((SIDE, SIDE))),
        grid_profiles(style, height),
        style_events(ecg, arrange(recording, small, bool(header)), (CANVAS - height) // 2),
        labels_of(ecg, style.layout),
    )


def labels_of(ecg: Ecg, layout: str) -> dict[str, Any]:
    """`Page.labels`."""
    return asdict(ecg.spec) | {
        "axis": ecg.spec.axis,
        "rate_bpm": ecg.rate_bpm,
        "layout": layout,
        "conduction": list(ecg.spec.conduction),
        "ectopy": shown_ectopy(ecg),
    }


def varied_page(seed: int, index: int) -> Page:
    """A training page of another program: other beats, on a sheet of another geometry."""
    spec = sample_varied_spec(np.random.default_rng([seed, index, 0]), RARE)
    number = int(np.random.default_rng([seed, index, 1]).integers(2**31))
    rng = np.random.default_rng([seed, index, 2])
    noise = Noise(*(rng.uniform(0.3, 1.8) * v for v in (0.12, 0.03, 0.015, 0.12)))
    ecg = add_noise(simulate(spec, number, 250, VariedHeart), number, noise)
    sheet = sample_sheet(rng)
    image = draw_sheet(ecg, sheet, rng)
    return Page(
        np.asarray(image.resize((CANVAS, sheet.height))),
        np.asarray(image.resize((SIDE, SIDE))),
        sheet_profiles(sheet, SIDE),
        find_events(ecg, sheet.cells, sheet.second, sheet.gain, (CANVAS - sheet.height) // 2),
        labels_of(ecg, sheet.layout),
        sheet.plot,
    )


def make_page(seed: int, index: int) -> Page:
    """A training page: `RARE` findings more often, T waves and ST segments varied."""
    spec = sample_spec(np.random.default_rng([seed, index, 0]), RARE)
    spec = vary_repolarization(spec, np.random.default_rng([seed, index, 3]))
    rng = np.random.default_rng([seed, index, 2])
    return draw_training_page(
        make_ecg(seed, index, spec=spec), sample_style(rng), sample_header(rng)
    )


def write_shard(path: Path, seed: int, start: int, count: int, varied: float = 0.0) -> None:
    """Pages start .. start + count - 1 of the set `seed` as one file; renamed into place when
    complete.

    Args:
        path: of the file.
        seed: of the set.
        start: number of its first page.
        count: of pages.
        varied: share of pages that are `varied_page`s.
    """
    blobs: list[bytes] = []
    index: list[dict[str, Any]] = []
    for number in range(start, start + count):
        other = np.random.default_rng([seed, number, 7]).random() < varied
        page = varied_page(seed, number) if other else make_page(seed, number)
        parts = [
            zlib.compress(page.ink.tobytes(), 1),
            zlib.compress(page.base.tobytes(), 1),
            np.concatenate([page.grid[k] for k in sorted(page.grid)]).astype(np.float16).tobytes(),
            page.events.tobytes(),
        ]
        index.append(
            {
                "height": page.ink.shape[0],
                "sizes": [len(p) for p in parts],
                "labels": page.labels,
                "plot": page.plot,
            }
        )
        blobs += parts
    head = json.dumps(index).encode()
    partial = path.with_suffix(".tmp")
    partial.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(blobs))
    partial.rename(path)


class Shard:
    """Pages of one shard file, unpacked on access."""

    def __init__(self, path: Path) -> None:
        raw = path.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        self._raw, self.index = raw, json.loads(raw[8 : 8 + size])
        self._at: list[int] = []
        at = 8 + size
        for entry in self.index:
            self._at.append(at)
            at += sum(entry["sizes"])

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Page:
        entry, at = self.index[number], self._at[number]
        parts = []
        for size in entry["sizes"]:
            parts.append(self._raw[at : at + size])
            at += size
        height = entry["height"]
        ink = np.frombuffer(zlib.decompress(parts[0]), np.uint8).reshape(height, CANVAS)
        base = np.frombuffer(zlib.decompress(parts[1]), np.uint8).reshape(SIDE, SIDE)
        flat = np.frombuffer(parts[2], np.float16).astype(np.float32)
        grid, start = {}, 0
        for axis in ("x", "y"):
            for lines in ("all", "major"):
                for where in ("base", "canvas"):
                    length = SIDE if where == "base" else CANVAS if axis == "x" else height
                    grid[f"{axis} {lines} {where}"] = flat[start : start + length]
                    start += length
        events = np.frombuffer(parts[3], np.float32).reshape(-1, len(EVENT_COLUMNS))
        plot = entry.get("plot")
        return Page(ink, base, grid, events, entry["labels"], None if plot is None else tuple(plot))
