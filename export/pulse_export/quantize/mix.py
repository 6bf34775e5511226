"""Which matrices get 8 bits, for a budget of bytes.

Each matrix has a price, what 8 bits take over 4, and a gain, what its outputs' error falls by.
Matrices are taken in the order of gain per byte while the budget lasts, as for a knapsack.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pulse_edge.errors import ExportError
from pulse_edge.units import size


@dataclass(frozen=True)
class Sensitivity:
    """What 4 and 8 bits cost a matrix, or several that are stored as one.

    Attributes:
        names: the linear layers.
        errors: squared error of their outputs on the calibration data over the outputs' own
            square, in 4 and in 8 bits.
        sizes: bytes with the scales, in 4 and in 8 bits.
    """

    names: tuple[str, ...]
    errors: tuple[float, float]
    sizes: tuple[int, int]

    @property
    def gain(self) -> float:
        """Error that 8 bits remove, for each further byte."""
        return (self.errors[0] - self.errors[1]) / max(1, self.sizes[1] - self.sizes[0])


def eight_bit_names(table: Iterable[Sensitivity], budget: int) -> frozenset[str]:
    """Names of the linear layers that get 8 bits.

    Args:
        table: all of the decoder's matrices.
        budget: bytes that they may take together.

    Raises:
        ExportError: even 4 bits take more.
    """
    rows = list(table)
    least = sum(row.sizes[0] for row in rows)
    if least > budget:
        raise ExportError(
            f"budget {size(budget)} is too small: the decoder's matrices take {size(least)} in "
            "4 bits; raise --budget-mib or take larger blocks"
        )
    chosen: set[str] = set()
    left = budget - least
    for row in sorted(rows, key=lambda row: (-row.gain, row.names)):
        price = row.sizes[1] - row.sizes[0]
        if row.gain > 0 and price <= left:
            chosen.update(row.names)
            left -= price
    return frozenset(chosen)
