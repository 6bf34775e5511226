"""Labels of a page as training targets for the heads beside the tower, and their losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pulse_edge.simulation.ecg import AXES, CONDUCTION, ECTOPY, RHYTHMS, ST_CHANGES
from pulse_nano.model import BINS, CLASSES, DENSE, LOCAL, VIEWS, Seen
from pulse_nano.shards import CANVAS, EVENT_COLUMNS, LONE_P, P_WAVE, SIDE, SPIKE, Page

F32 = NDArray[np.float32]
PR, RR = EVENT_COLUMNS.index("pr_s"), EVENT_COLUMNS.index("rr_s")
UNITS = np.array([2.0, 0.1], np.float32)  # of LOCAL: what a target of 1 means
MAPS = sum(BINS.values())
FIRST_CLASS = dict(
    zip(CLASSES, (MAPS + np.cumsum([0, *CLASSES.values()])[:-1]).tolist(), strict=True)
)
SPARSE = {
    1: "pvc",
    2: "pac",
    SPIKE: "spike",
    LONE_P: "lone",
}  # kinds of events with a map of their own


def class_at(name: str, value: float) -> float:
    """Where a value lies among the classes of its kind; whole numbers are their middles.

    "pr" in seconds, 15 ms each from 105 ms on; "rr" in seconds, 6 % each from 0.3 s on; "turn" the
    logarithm of an RR interval over the one before it, 0.1 each from -0.75 on.
    """
    if name == "pr":
        return (value - 0.105) / 0.015 - 0.5
    return (math.log(value / 0.3) / 0.06 if name == "rr" else (value + 0.75) / 0.1) - 0.5


def classes(name: str, value: float) -> F32:
    """(CLASSES[name],) a distribution around the class of a value: neighbours are nearly right."""
    at = min(max(class_at(name, value), 0.0), CLASSES[name] - 1.0)
    spread = np.exp(-0.5 * ((np.arange(CLASSES[name]) - at) / 0.7) ** 2)
    shares: F32 = (spread / spread.sum()).astype(np.float32)
    return shares


def rr_turns(events: F32) -> F32:
    """(n,) log of the RR interval after a QRS complex over the one before it; NaN where a cell does
    not show both.

    0 in a regular rhythm, and about 0.5 at a premature beat.
    """
    turns = np.full(len(events), np.nan, np.float32)
    beats = find_beats(events)
    rr = events[beats, RR]  # NaN at a cell's first beat
    turns[beats[:-1]] = np.log(rr[1:] / rr[:-1])
    return turns


def find_beats(events: F32) -> NDArray[np.int64]:
    """Indices of the QRS complexes: in time's order, cell by cell."""
    return np.flatnonzero(~np.isin(events[:, 2], (P_WAVE, LONE_P, SPIKE)))


def hide_far(events: F32, edge: float) -> F32:
    """The events with intervals that reach over a tile's `edge` left out: a tile sees its own beats
    only.

    The last column holds `rr_turns`.
    """
    out = events.copy()
    beats = find_beats(events)
    tile = events[beats, 0] // edge
    apart = tile[1:] != tile[:-1]
    out[beats[1:][apart], RR] = np.nan
    out[beats[1:][apart], -1] = np.nan
    out[beats[:-1][apart], -1] = np.nan
    return out


def dense_target(page: Page, patch: int) -> F32:
    """float32 (VIEWS * patches, DENSE): heat maps in 0..1 with soft neighbours, CLASSES as
    distributions (zeros: no loss), then local values; NaN: no loss there. The base view first,
    which is the page squashed to a square.
    """
    events = np.column_stack([page.events, rr_turns(page.events)])
    small = events.copy()
    small[:, 0] /= CANVAS / SIDE
    small[:, 1] = (small[:, 1] - page.top) * SIDE / page.ink.shape[0]
    return np.concatenate(
        [_view_targets(small, SIDE, patch), _view_targets(hide_far(events, SIDE), CANVAS, patch)]
    )


def _view_targets(events: F32, side: int, patch: int) -> F32:
    """Targets of the tiles that make up a square of `side` pixels, in which the events lie."""
    tiles, grid = side // SIDE, SIDE // patch
    out = np.zeros(((tiles * grid) ** 2, DENSE), np.float32)
    out[:, -len(LOCAL) :] = np.nan
    first = dict(zip(BINS, np.cumsum([0, *BINS.values()])[:-1].tolist(), strict=True))
    columns = [EVENT_COLUMNS.index(name) for name in LOCAL]

    def cell(x: float, y: float) -> tuple[int, int]:
        column, row = int(x) // patch, min(max(int(y), 0), side - 1) // patch
        tile = (row // grid) * tiles + column // grid
        return tile * grid * grid + (row % grid) * grid + column % grid, column * patch

    def mark(x: float, y: float, name: str) -> None:
        width = patch / BINS[name]
        for offset, value in ((-1.0, 0.35), (1.0, 0.35), (0.0, 1.0)):
            if 0 <= (at := x + offset * width) < side:
                index, left = cell(at, y)
                place = (index, first[name] + min(int((at - left) / width), BINS[name] - 1))
                out[place] = max(out[place], value)

    for event in events[(events[:, 0] >= 0) & (events[:, 0] < side)]:
        x, y, kind = float(event[0]), float(event[1]), int(event[2])
        wave = kind in (P_WAVE, LONE_P)
        if kind in SPARSE:
            mark(x, y, SPARSE[kind])
        if kind != SPIKE:
            mark(x, y, "p" if wave else "qrs")
        index, _ = cell(x, y)
        for name, column in (("pr", PR), ("rr", RR), ("turn", -1)):
            if np.isfinite(event[column]):
                first_class = FIRST_CLASS[name]
                out[index, first_class : first_class + CLASSES[name]] = classes(
                    name, float(event[column])
                )
        if not wave and kind != SPIKE:
            out[index, -len(LOCAL) :] = event[columns] / UNITS
    return out


def attribute_targets(labels: dict[str, Any] | None) -> dict[str, F32]:
    """Labels -> one vector per head (class index, or values); None stands for an image without ECG.

    NaN: no loss.
    """
    nan = float("nan")
    if labels is None:
        values: dict[str, Any] = {
            "rhythm": nan,
            "conduction": [nan] * len(CONDUCTION),
            "ectopy": nan,
            "st": nan,
            "lvh": nan,
            "axis": nan,
            "rate": nan,
            "pr": nan,
            "qrs": nan,
            "readable": 0.0,
        }
    else:
        pr = labels["pr_ms"]
        values = {
            "rhythm": RHYTHMS.index(labels["rhythm"]),
            "conduction": [float(name in labels["conduction"]) for name in CONDUCTION],
            "ectopy": ECTOPY.index(labels["ectopy"]),
            "st": ST_CHANGES.index(labels["st"]),
            "lvh": float(labels["lvh"]),
            "axis": AXES.index(labels["axis"]),
            "rate": float(np.log(labels["rate_bpm"] / 75)) / 0.35,
            "pr": nan if pr is None else (pr - 180) / 50,
            "qrs": (labels["qrs_ms"] - 110) / 30,
            "readable": 1.0,
        }
    return {name: np.atleast_1d(np.array(value, np.float32)) for name, value in values.items()}


EVENT_UNITS = 1100  # a page's sum of event losses in terms of the other losses
BCE_HEADS, CE_HEADS, VALUE_HEADS = (
    ("conduction", "lvh", "readable"),
    ("rhythm", "ectopy", "st", "axis"),
    ("rate", "pr", "qrs"),
)
WEIGHTS = {
    "rhythm": 1.0,
    "conduction": 3.0,
    "ectopy": 1.0,
    "st": 1.5,
    "lvh": 0.6,
    "axis": 0.5,
    "rate": 2.0,
    "pr": 1.0,
    "qrs": 0.6,
    "readable": 0.5,
}


CLASS_WEIGHTS = {"pr": 0.5, "rr": 0.7, "turn": 0.7}
GLANCE = 0.3  # weight of what single views say


def losses(seen: Seen, dense_t: Tensor, heads_t: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weighted terms; their sum is what stage A minimises.

    Shapes as `Seen` and the functions above.
    """
    of_views = {name: glance.flatten(0, 1) for name, glance in seen.glances.items()}
    repeated = {name: target.repeat_interleave(VIEWS, 0) for name, target in heads_t.items()}
    glances = torch.stack(list(attribute_losses(of_views, repeated).values())).sum()
    return (
        dense_losses(seen.dense, dense_t)
        | attribute_losses(seen.answers, heads_t)
        | {"glance": GLANCE * glances}
    )


def dense_losses(dense: Tensor, dense_t: Tensor) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    pages, split = dense.shape[0], MAPS + sum(CLASSES.values())
    maps = dense_t[..., :MAPS]
    each = F.binary_cross_entropy_with_logits(
        dense[..., :MAPS], maps, 1 + 7 * maps, reduction="sum"
    )
    out["events"] = each / (pages * EVENT_UNITS)
    for name, count in CLASSES.items():
        part = slice(FIRST_CLASS[name], FIRST_CLASS[name] + count)
        wanted, said = dense_t[..., part], F.log_softmax(dense[..., part], -1)
        out[f"{name} classes"] = (
            CLASS_WEIGHTS[name] * -(wanted * said).sum() / wanted.sum().clamp(min=1)
        )
    local, real = dense_t[..., split:], torch.isfinite(dense_t[..., split:])
    error = (
        F.smooth_l1_loss(dense[..., split:], torch.nan_to_num(local), beta=0.1, reduction="none")
        * real
    )
    scale = torch.tensor([2.0, 1.0])
    out["local"] = (error.sum((0, 1)) / real.sum((0, 1)).clamp(min=1) * scale).sum()
    return out


def attribute_losses(heads: dict[str, Tensor], heads_t: dict[str, Tensor]) -> dict[str, Tensor]:
    """Both (n, classes or values)."""
    out: dict[str, Tensor] = {}
    for name, logits in heads.items():
        target = heads_t[name]
        good = torch.isfinite(target[:, 0])
        count = good.sum().clamp(min=1)
        safe = torch.nan_to_num(target)
        if name in CE_HEADS:
            each = F.cross_entropy(logits, safe[:, 0].long(), reduction="none")
        elif name in BCE_HEADS:
            each = F.binary_cross_entropy_with_logits(logits, safe, reduction="none").mean(1)
        else:
            each = F.smooth_l1_loss(logits, safe, beta=0.1, reduction="none").mean(1)
        out[name] = WEIGHTS[name] * (each * good).sum() / count
    return out
