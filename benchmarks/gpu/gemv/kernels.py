"""What is measured: the products of a decode step, and variants of the kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).with_name("gemv.cu")
TILE = 16  # outputs of a CTA's tile
BLOCK = 128  # weights that share a scale


class Loads(IntEnum):
    """How weights reach a warp: LOADS of gemv.cu."""

    REGISTERS = 0
    ASYNC = 1
    BULK = 2


LOADS_NAMES = {Loads.REGISTERS: "registers", Loads.ASYNC: "cp.async", Loads.BULK: "bulk"}
OLDEST_ARCH = {Loads.REGISTERS: 75, Loads.ASYNC: 80, Loads.BULK: 90}


@dataclass(frozen=True)
class Shape:
    """A product of a decode step.

    Attributes:
        n: outputs.
        k: inputs.
        norm: RMSNorm comes first; where it does not, a residual is added instead.
    """

    name: str
    n: int
    k: int
    norm: bool

    @property
    def weight_bytes(self) -> int:
        return self.n * self.k // 2

    @property
    def scale_bytes(self) -> int:
        return self.n * self.k // BLOCK * 2

    @property
    def bytes(self) -> int:
        """What a step must read of it."""
        return self.weight_bytes + self.scale_bytes


# PULSE-7B's, which are LLaMA-7B's.
LAYER = (
    Shape("qkv", 12288, 4096, norm=True),
    Shape("o", 4096, 4096, norm=False),
    Shape("gate+up", 22016, 4096, norm=True),
    Shape("down", 4096, 11008, norm=False),
)
HEAD = Shape("head", 32000, 4096, norm=True)


@dataclass(frozen=True)
class Variant:
    """One compilation of gemv.cu.

    Attributes:
        stages: of the ring: pairs of blocks of a warp (cp.async), or tiles of a CTA (bulk).
        ctas: CTAs an SM that the grid has at most; 0: a CTA for each tile.
        resident: CTAs an SM that registers are limited for. Twice `ctas` leaves room for the next
            kernel to start early.
    """

    loads: Loads
    k: int
    warps: int
    stages: int = 1
    ctas: int = 0
    resident: int = 1
    rows: int = 1
    norm: bool = True

    @property
    def threads(self) -> int:
        return 32 * self.warps

    @property
    def name(self) -> str:
        ring = "" if self.loads is Loads.REGISTERS else f" x{self.stages} c{self.ctas}"
        return f"{LOADS_NAMES[self.loads]} w{self.warps}{ring}"

    @property
    def defines(self) -> dict[str, int]:
        return {
            "LOADS": self.loads,
            "K": self.k,
            "WARPS": self.warps,
            "STAGES": self.stages,
            "CTAS": self.resident,
            "ROWS": self.rows,
            "NORM": self.norm,
            "RESIDUAL": not self.norm,
            "SHARED_BYTES": self.shared_bytes,
        }

    @property
    def shared_bytes(self) -> int:
        """sizeof(Shared), rounded up. gemv.cu refuses to compile where this is too small."""
        blocks = self.k // BLOCK
        activations = 2 * self.k * self.rows
        zeros = 4 * blocks * self.rows
        partial = 4 * 2 * self.warps * TILE * self.rows
        ring = 0
        if self.loads is Loads.ASYNC:
            ring = self.warps * self.stages * (2048 + 256)
        elif self.loads is Loads.BULK:
            row = self.k // 2 + 64 + 2 * blocks  # weights, padding, scales
            ring = self.stages * TILE * row + 8 * (self.stages + 1)
        return -(-(activations + zeros + partial + ring) // 32) * 32

    def grid(self, n: int, multiprocessors: int) -> int:
        tiles = n // TILE
        return min(tiles, self.ctas * multiprocessors) if self.ctas else tiles


def _ring(loads: Loads, warps: int, stages: int, ctas: int) -> Variant:
    # At most 1,024 threads an SM: more would leave fewer than 64 registers.
    return Variant(loads, 4096, warps, stages, ctas, resident=min(2 * ctas, 32 // warps))


# The first of each is what the first step is measured with. An H100's SM has 228 KB of shared
# memory: where a kernel's CTAs take less than half, the next kernel's loads overlap this one's end.
_NORM = (
    _ring(Loads.ASYNC, 8, 4, 1),
    Variant(Loads.REGISTERS, 4096, 8, resident=2),
    _ring(Loads.ASYNC, 8, 4, 2),
    _ring(Loads.ASYNC, 8, 5, 1),
    _ring(Loads.ASYNC, 16, 2, 1),
    _ring(Loads.ASYNC, 8, 2, 2),
    _ring(Loads.ASYNC, 8, 3, 2),
    _ring(Loads.ASYNC, 8, 8, 1),
    _ring(Loads.BULK, 8, 3, 1),
    _ring(Loads.BULK, 8, 2, 2),
    _ring(Loads.BULK, 16, 3, 1),
)
_RESIDUAL = (
    _ring(Loads.ASYNC, 8, 4, 1),
    Variant(Loads.REGISTERS, 4096, 8, resident=2),
    Variant(Loads.REGISTERS, 4096, 16, resident=1),
    _ring(Loads.ASYNC, 8, 4, 2),
    _ring(Loads.ASYNC, 16, 2, 1),
    _ring(Loads.ASYNC, 8, 2, 2),
    _ring(Loads.BULK, 8, 1, 2),
    _ring(Loads.BULK, 8, 2, 1),
)
_RESIDUAL_WIDE = (
    _ring(Loads.ASYNC, 8, 4, 1),
    Variant(Loads.REGISTERS, 4096, 16, resident=1),
    Variant(Loads.REGISTERS, 4096, 22, resident=1),
    _ring(Loads.ASYNC, 8, 4, 2),
    _ring(Loads.ASYNC, 16, 2, 1),
    _ring(Loads.ASYNC, 8, 3, 2),
    _ring(Loads.ASYNC, 11, 3, 1),
    _ring(Loads.ASYNC, 8, 8, 1),
    _ring(Loads.BULK, 8, 1, 2),
    _ring(Loads.BULK, 8, 2, 1),
    _ring(Loads.BULK, 16, 2, 1),
)


def candidates(shape: Shape) -> tuple[Variant, ...]:
    """Variants of one row to try for a product, the default first."""
    if shape.norm:
        return _NORM
    table = _RESIDUAL if shape.k == 4096 else _RESIDUAL_WIDE
    return tuple(replace(variant, k=shape.k, norm=False) for variant in table)


def of_rows(shape: Shape, rows: int) -> Variant:
    """For several rows of activations. 8 rows of 11008 leave little room for the ring."""
    warps, stages = (8, 4) if shape.k == 4096 else (6, 3)
    return Variant(Loads.ASYNC, shape.k, warps, stages, ctas=1, rows=rows, norm=shape.norm)
