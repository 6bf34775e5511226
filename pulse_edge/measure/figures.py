"""A benchmark's figures and the points of its sweeps.

They are the two nouns of a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pulse_edge.measure.intervals import median_interval

Record = Mapping[str, Any]
SCHEMA_VERSION = 3  # of a record, docs/bench.schema.json
OLDER_SCHEMAS = (2,)  # that are still read and compared with
LEAST_FOR_P99 = 100  # samples: of fewer, a 99th percentile would be little but the worst one
Unit = Literal["s", "tokens/s", "bytes"]
Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Figure:
    """Repeated measurements of one thing.

    p90 and p99 look to the bad side: 90 % and 99 % of the samples are as good or better, linearly
    interpolated between samples.

    Attributes:
        what: the thing measured, in words.
        unit: of the samples.
        better: whether lower or higher is.
        gate: whether a comparison with a baseline may fail on it.
        samples: in the order of measurement, to six digits.
        p50: the median.
        p90: see above.
        p99: see above; None of fewer than `LEAST_FOR_P99` samples.
        low: lower end of the median's bootstrap interval, 95 %.
        high: upper end.
    """

    what: str
    unit: Unit
    better: Better
    gate: bool
    samples: tuple[float, ...]
    p50: float
    p90: float
    p99: float | None
    low: float
    high: float


def figure(what: str, unit: Unit, better: Better, gate: bool, samples: Iterable[float]) -> Figure:
    """The statistics of `samples`, at least one."""
    kept = tuple(float(f"{s:.6g}") for s in samples)  # a clock says no more
    ranks = (50, 90, 99) if better == "lower" else (50, 10, 1)
    p50, p90, p99 = (float(p) for p in np.percentile(kept, ranks))
    low, high = median_interval(kept)
    enough = len(kept) >= LEAST_FOR_P99
    return Figure(what, unit, better, gate, kept, p50, p90, p99 if enough else None, low, high)


@dataclass(frozen=True)
class Point:
    """One point of a sweep: what a run of it needs at least, and the rates of the median run.

    Attributes:
        kind: "pp" prefills `tokens` from an empty cache, "tg" takes `tokens` single steps after
            `depth` cached positions.
        tokens: see `kind`.
        depth: see `kind`.
        flop: multiplications and additions, attention over the positions that are attended to.
        read: bytes; the decoder's weights once for each pass, and the cache's positions before it.
        flop_per_s: of the median run.
        gemm_share: of the measured peak; None if there is none.
        read_per_s: of the median run.
        read_share: likewise; None also if the processor's caches could hold all that is read.
    """

    kind: Literal["pp", "tg"]
    tokens: int
    depth: int
    flop: int
    read: int
    flop_per_s: float
    gemm_share: float | None
    read_per_s: float
    read_share: float | None

    @property
    def name(self) -> str:
        """As llama-bench has it."""
        return point_name(self.kind, self.tokens, self.depth)


def point_name(kind: str, tokens: int, depth: int) -> str:
    """`pp512`, or `tg128 @ d512`, as llama-bench has it."""
    return f"pp{tokens}" if kind == "pp" else f"tg{tokens} @ d{depth}"
