"""gemv.cu in emulation against float64: every way to store, to count rows and to go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product as combinations

import numpy as np
import pytest

from pulse_edge.engines.native.kernels import (
    ActivationLayout,
    Epilogue,
    Kernel,
    Product,
    Tuning,
    product_grid,
    product_kernel,
)

from support import gemv_runs
from support.emulation import EmulationError, Workshop
from support.kernel_reference import Weights, laid_out, order_of, random_case

STORAGES = ((4, 32), (4, 64), (4, 128), (8, 32), (8, 64), (8, 128), (16, 0))
LAYOUTS = tuple(ActivationLayout)


@dataclass(frozen=True)
class Variant:
    """What is compiled."""

    k: int
    bits: int
    block: int
    epilogue: Epilogue = Epilogue.STORE
    several: bool = False
    warps: int = 8
    stages: int = 3
    tiles: int = 2

    @property
    def product(self) -> Product:
        return Product(self.k, self.bits, self.block, self.epilogue)

    @property
    def kernel(self) -> Kernel:
        tuning = Tuning(self.warps, self.stages, self.tiles, 1, 1)
        return product_kernel(self.product, self.several, tuning)

    def __str__(self) -> str:
        rows = "rows" if self.several else "row"
        size = f"{self.warps}x{self.stages}x{self.tiles}"
        return f"{self.epilogue.name}-{self.k}-{self.bits}:{self.block}-{rows}-{size}"


def _variants() -> list[Variant]:
    """Storages, epilogues and rows in all combinations; sizes and tunings each with some."""
    variants = [
        Variant(256 if several else 512, bits, block, epilogue, several)
        for (bits, block), epilogue, several in combinations(STORAGES, Epilogue, (False, True))
    ]
    sizes = (  # 11008 has 43 slots, and so has 5504 of 128; warps have unequal shares
        (128, 4, 64, 1),
        (256, 4, 128, 1),
        (384, 8, 128, 1),
        (1024, 4, 32, 2),
        (1408, 16, 0, 2),
        (2816, 4, 128, 1),
        (2816, 8, 64, 2),
        (4096, 4, 128, 1),
    )
    tunings = ((4, 2), (8, 4), (16, 2), (16, 3))
    for number, (k, bits, block, tiles) in enumerate(sizes):
        for several in (False, True):
            warps, stages = tunings[(number + several) % 4]
            variants.append(
                Variant(k, bits, block, Epilogue(number % 2), several, warps, stages, tiles)
            )
    return variants


@pytest.mark.parametrize("variant", _variants(), ids=str)
def test_products(workshop: Workshop, variant: Variant) -> None:
    """Several row counts, grids and orders of one compiled kernel."""
    kernel = workshop.build(variant.kernel)
    assert kernel.shared_bytes == variant.kernel.shared_bytes
    assert kernel.threads == variant.kernel.threads
    number = variant.k // 128 + variant.bits + variant.block // 32 + variant.epilogue
    runs = ((2, 1), (8, 2), (5, 3)) if variant.several else ((1, 1), (1, 3))
    for run, (rows, ctas) in enumerate(runs):
        normed = (run + number) % 2 == 0
        case = random_case(variant.product, 128, rows, normed, seed=number + run)
        layout = LAYOUTS[(number + run) % len(LAYOUTS)]
        outputs = gemv_runs.run(
            kernel,
            case,
            ctas=ctas,
            next_layout=layout,
            in_place=run != 1,
            seed=number + run,
            late=run % 2 == 1,
        )
        assert gemv_runs.problem(case, outputs, layout) is None


def test_every_order_gives_the_same_bytes(workshop: Workshop) -> None:
    variant = Variant(512, 4, 128, Epilogue.RESIDUAL, several=True)
    kernel = workshop.build(variant.kernel)
    case = random_case(variant.product, 128, 3)
    results = [
        gemv_runs.run(kernel, case, ctas=ctas, seed=seed, late=late)
        for seed, ctas, late in ((1, 1, False), (2, 4, True), (3, 3, False))
    ]
    for other in results[1:]:
        for name, value in results[0].items():
            assert other[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite(workshop: Workshop, rows: int, bad: float) -> None:
    """They are the best, and named -1."""
    variant = Variant(256, 16, 0, Epilogue.LOGITS, several=rows > 1)
    case = random_case(variant.product, 64, rows)
    w = case.weights[0].codes.copy()
    w[:, 37] = bad
    case = replace(case, weights=(Weights(w, case.weights[0].scales, w.T.astype(float)),))
    outputs = gemv_runs.run(workshop.build(variant.kernel), case, ctas=2)
    best = outputs["best"][:, :rows]
    nans = np.isnan(outputs["logits"]) | (outputs["logits"] == np.inf)
    assert nans[:, 37].any()
    for row in np.flatnonzero(nans[:, 37]):
        assert -1 in best["index"][:, row]
        assert best["value"][:, row].max() == np.inf


def test_of_equal_logits_the_first_is_best(workshop: Workshop) -> None:
    variant = Variant(256, 16, 0, Epilogue.LOGITS)
    case = random_case(variant.product, 128, 1)
    w = np.repeat(case.weights[0].codes[:, :1], 128, 1)
    case = replace(case, weights=(Weights(w, case.weights[0].scales, w.T.astype(float)),))
    outputs = gemv_runs.run(workshop.build(variant.kernel), case, ctas=2)
    assert sorted(outputs["best"][:, 0]["index"]) == [0, 32]


def test_unequal_widths_are_refused_when_compiled(workshop: Workshop) -> None:
    with pytest.raises(EmulationError, match="unsupported BLOCK"):
        workshop.build(Variant(320, 4, 128).kernel)
    kernel = Variant(256, 4, 128).kernel
    others = tuple(define for define in kernel.defines if define[0] != "SHARED_BYTES")
    small = replace(kernel, defines=(*others, ("SHARED_BYTES", 1000)))
    with pytest.raises(EmulationError, match="too little shared memory"):
        workshop.build(small)


@pytest.mark.parametrize("layout", ActivationLayout)
def test_layouts_are_permutations(layout: ActivationLayout) -> None:
    order = order_of(layout, 256)
    assert sorted(order) == list(range(256))
    x = np.arange(256, dtype=np.float64)[None] + 1
    x = x.astype(np.float16)
    halved = layout in (ActivationLayout.INT4, ActivationLayout.INT4_FINE)
    expected = x[0, order].astype(np.float64) / np.where(halved & (order % 2 == 1), 16, 1)
    assert (laid_out(x, layout)[0] == expected).all()


def test_grids() -> None:
    tuning = Tuning(8, 2, 2, 2, 1)
    assert product_grid(128, tuning, Epilogue.STORE, 132) == 4
    assert product_grid(128, tuning, Epilogue.GATED, 132) == 8
    assert product_grid(1 << 16, tuning, Epilogue.STORE, 132) == 264
