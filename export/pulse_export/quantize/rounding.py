"""The table of recipes: how weights become four-bit codes. A new recipe is one row here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pulse_edge.bundle.limits import DAMPINGS
from pulse_edge.bundle.manifest import RECIPES
from pulse_edge.errors import ExportError
from pulse_export.quantize.recipe import Recipe

DAMPING = 0.01  # the GPTQ paper's: of the mean of the Hessian's diagonal, added to it


@dataclass(frozen=True)
class RecipeRow:
    """A row: what a recipe does besides the search of scales, which all of them do.

    Attributes:
        name: as a bundle's manifest names it.
        title: in words, for the manifest's description.
        scales: large inputs are scaled into the weights first (`quantize.awq`).
        compensates: inputs that are not rounded yet make good the errors (`quantize.gptq`).
    """

    name: str
    title: str
    scales: bool
    compensates: bool

    @property
    def takes_data(self) -> bool:
        """Whether it needs a calibration."""
        return self.scales or self.compensates


ROWS = {
    row.name: row
    for row in (
        RecipeRow("rtn", "RTN with searched scales", scales=False, compensates=False),
        RecipeRow("gptq", "GPTQ", scales=False, compensates=True),
        RecipeRow("awq", "AWQ", scales=True, compensates=False),
        RecipeRow("auto", "GPTQ after scaling", scales=True, compensates=True),
    )
}
assert tuple(ROWS) == RECIPES, "the manifest's readers know these names"


@dataclass(frozen=True)
class Rounding:
    """A recipe with its options.

    Args:
        recipe: a name in `ROWS`.
        data: the calibration samples; None if the recipe takes none.
        damping: of the Hessian, as a share of the mean of its diagonal.
        act_order: round the inputs with the largest activations first. Scales then come from the
            weights before any was rounded, so that blocks stay as they are stored.
        budget: bytes that the decoder's matrices may take; None keeps all of them in 4 bits.

    Raises:
        ExportError: a value is out of range.
    """

    recipe: str
    data: Recipe | None = field(default=None)
    damping: float = DAMPING
    act_order: bool = False
    budget: int | None = None

    def __post_init__(self) -> None:
        if self.recipe not in ROWS:
            raise ExportError(f"recipe {self.recipe!r:.60} is not one of {', '.join(ROWS)}")
        least, most = DAMPINGS
        if not math.isfinite(self.damping) or not least <= self.damping <= most:
            raise ExportError(f"damping {self.damping} must be {least:g} to {most:g}")
        if self.budget is not None and self.budget < 1:
            raise ExportError(f"budget {self.budget} must be at least 1 byte")

    @property
    def row(self) -> RecipeRow:
        """What the recipe does."""
        return ROWS[self.recipe]

    @property
    def takes_data(self) -> bool:
        """Whether it needs a calibration."""
        return self.row.takes_data or self.budget is not None

    @property
    def passes(self) -> int:
        """How often the decoder's weights are read."""
        return 1 + self.row.scales + (self.budget is not None)
