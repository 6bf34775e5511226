"""The kernels of a step: which source, compiled how, launched with how much shared memory.

A product's kernel is compiled for its inputs, its storage and what follows it, once for one row and
once for 2 to 8. Everything else is an argument. The sources say what the macros mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

FOLDER = Path(__file__).with_name("kernels")
HEADERS = (
    *("common.cuh", "device.cuh", "blocks.cuh", "halves.cuh"),
    *("cache_halves.cuh", "cache_bytes.cuh", "attention.cu"),  # cache.cu includes the last
)
MOST_ROWS = 8  # of a step
TILE = 16  # outputs of a product that share a warp's registers, and whose sums are kept
BITS = (4, 8, 16)
BLOCKS = (32, 64, 128)
HEAD_SIZES = (32, 64, 128)


class Epilogue(IntEnum):
    """What a product does with its sums: EPILOGUE of gemv.cu."""

    STORE = 0
    RESIDUAL = 1
    GATED = 2
    LOGITS = 3


class ActivationLayout(IntEnum):
    """The order of activations that a product wants: see common.cuh."""

    PLAIN = 0
    INT4 = 1
    INT4_FINE = 2
    INT8 = 3
    INT8_FINE = 4
    FP16 = 5


@dataclass(frozen=True)
class Kernel:
    """A kernel as it is compiled and launched.

    Attributes:
        source: a file of `FOLDER`.
        entry: the function's name.
        defines: macros.
        threads: of a CTA.
        shared_bytes: of a CTA, at least what the source's `Shared` takes.
    """

    source: str
    entry: str
    defines: tuple[tuple[str, int], ...]
    threads: int
    shared_bytes: int


@dataclass(frozen=True)
class Product:
    """What a product is: activations [rows, k] times weights of `bits`, `block` to a scale.

    Weights of 16 bits have no scales, and block 0.
    """

    k: int
    bits: int
    block: int
    epilogue: Epilogue

    @property
    def layout(self) -> ActivationLayout:
        """The order it wants its activations in."""
        if self.bits == 16:
            return ActivationLayout.FP16
        group = 512 // self.bits  # weights in the 64 bytes that four lanes share
        if self.bits == 4:
            return ActivationLayout.INT4 if self.block >= group else ActivationLayout.INT4_FINE
        return ActivationLayout.INT8 if self.block >= group else ActivationLayout.INT8_FINE


@dataclass(frozen=True)
class Tuning:
    """How a product is spread over a GPU.

    Attributes:
        warps: of a CTA.
        stages: slots of a warp's ring.
        tiles: of 16 outputs, computed at once.
        ctas: of a multiprocessor.
        resident: CTAs of a multiprocessor that registers are limited for. More than `ctas` leaves
            room for the next kernel, which starts to load weights while this one ends.
        slot: most weights of a row in a slot of 4 or 8 bits, 128 or 256.
    """

    warps: int
    stages: int
    tiles: int
    ctas: int
    resident: int
    slot: int = 256


# Measured on an H100, in a step of a 7B decoder: benchmarks/results/gpu. By bits of a weight; for
# one row, then for 2 to 8. STORE is qkv, RESIDUAL the output projection and
# down, which is `WIDE`, GATED gate and up, LOGITS the head.
_T = Tuning
TUNINGS: dict[tuple[int, Epilogue], tuple[Tuning, Tuning]] = {
    (4, Epilogue.STORE): (_T(8, 4, 1, 2, 4), _T(8, 4, 2, 1, 1)),
    (4, Epilogue.RESIDUAL): (_T(8, 4, 2, 1, 2), _T(8, 2, 2, 1, 1)),
    (4, Epilogue.GATED): (_T(8, 4, 2, 1, 2), _T(8, 4, 2, 1, 1)),
    (4, Epilogue.LOGITS): (_T(8, 4, 1, 2, 4), _T(8, 4, 2, 1, 1)),
    (8, Epilogue.STORE): (_T(8, 4, 1, 1, 2), _T(8, 3, 2, 1, 1)),
    (8, Epilogue.RESIDUAL): (_T(8, 2, 1, 2, 3), _T(8, 2, 2, 1, 1)),
    (8, Epilogue.GATED): (_T(8, 3, 2, 1, 1), _T(8, 3, 2, 1, 1)),
    (8, Epilogue.LOGITS): (_T(8, 2, 2, 1, 2), _T(8, 2, 2, 1, 1)),
    (16, Epilogue.STORE): (_T(4, 6, 2, 2, 2), _T(4, 4, 2, 3, 3)),
    (16, Epilogue.RESIDUAL): (_T(8, 4, 2, 1, 1), _T(4, 4, 2, 3, 3)),
    (16, Epilogue.GATED): (_T(4, 6, 2, 2, 2), _T(8, 6, 2, 1, 1)),
    (16, Epilogue.LOGITS): (_T(8, 4, 2, 1, 1), _T(8, 6, 2, 1, 1)),
}
WIDE = 8192  # inputs from which activations of several rows do not fit a CTA's registers
WIDE_TUNINGS: dict[int, tuple[Tuning, Tuning]] = {
    4: (_T(12, 3, 2, 1, 1), _T(8, 4, 2, 1, 1)),
    8: (_T(16, 3, 1, 1, 1), _T(8, 3, 2, 1, 1)),
    16: (_T(8, 6, 2, 1, 1), _T(16, 3, 2, 1, 1)),
}


def tuning_of(product: Product, several: bool) -> Tuning:
    """The default for one row, or for several."""
    wide = product.epilogue is Epilogue.RESIDUAL and product.k >= WIDE
    pair = WIDE_TUNINGS[product.bits] if wide else TUNINGS[product.bits, product.epilogue]
    return pair[several]


def fitting(product: Product, several: bool, tuning: Tuning, outputs: int, room: int) -> Tuning:
    """A tuning that the outputs can be divided by and that fits a CTA's shared memory.

    Args:
        product: the product.
        several: for several rows.
        tuning: what would be best.
        outputs: of the product.
        room: most shared memory of a CTA, in bytes.
    """
    if product.bits == 16 or product.epilogue is Epilogue.GATED:
        tuning = replace(tuning, tiles=2)
    elif outputs % (TILE * tuning.tiles):
        tuning = replace(tuning, tiles=1)
    for smaller in _smaller(product, tuning):
        if product_kernel(product, several, tuning).shared_bytes <= room:
            break
        tuning = smaller
    return tuning


def _smaller(product: Product, tuning: Tuning) -> Iterator[Tuning]:
    """Tunings that take less and less shared memory."""
    while tuning.stages > 2:
        tuning = replace(tuning, stages=tuning.stages - 1)
        yield tuning
    while tuning.warps > 4:
        tuning = replace(tuning, warps=max(4, tuning.warps // 2))
        yield tuning
    if product.bits != 16 and product.epilogue is not Epilogue.GATED:
        tuning = replace(tuning, tiles=1)
        yield tuning
    yield replace(tuning, slot=128)


def product_kernel(product: Product, several: bool, tuning: Tuning) -> Kernel:
    """The kernel of a product for one row, or for several."""
    rows = MOST_ROWS if several else 1
    defines = {
        "K": product.k,
        "BITS": product.bits,
        "BLOCK": product.block,
        "ROWS": rows,
        "WARPS": tuning.warps,
        "STAGES": tuning.stages,
        "TILES": tuning.tiles,
        "MOST_SLOT": tuning.slot,
        "CTAS": tuning.resident,
        "EPILOGUE": int(product.epilogue),
    }
    shared = _product_shared(product, rows, tuning)
    defines["SHARED_BYTES"] = shared
    return Kernel("gemv.cu", "gemv", tuple(defines.items()), 32 * tuning.warps, shared)


def _product_shared(product: Product, rows: int, tuning: Tuning) -> int:
    """sizeof(Shared) of gemv.cu."""
    if product.bits == 16:
        tile, zero = 64 * TILE * 2, 4
    else:
        slot = 128 if product.k % tuning.slot else tuning.slot
        groups, scales = slot * product.bits // 512, max(2, slot // product.block)
        tile = groups * 2 * 32 * 16 + TILE * scales * 2
        zero = product.k // product.block * rows * 4
    ring = tile * tuning.tiles * tuning.warps * tuning.stages
    partial = 2 * tuning.warps * tuning.tiles * TILE * rows * 4
    x = 2 * product.k if rows == 1 else 16
    return _rounded(ring + partial + zero + 4 * MOST_ROWS, 16) + x


def product_grid(outputs: int, tuning: Tuning, epilogue: Epilogue, multiprocessors: int) -> int:
    """CTAs of a product."""
    sets = outputs // TILE // (1 if epilogue is Epilogue.GATED else tuning.tiles)
    return min(sets, tuning.ctas * multiprocessors)


ATTENTION_STAGES = {16: 3, 8: 4}  # by bits of the cache
MOST_SPLITS = 16  # of the positions before a step
LEAST_OF_SPLIT = 256  # positions: adding up one more split costs as much as reading so many


def attention_kernel(
    head_size: int, group: int, several: bool, cache_bits: int, room: int
) -> Kernel:
    """The attention of one row, or of several.

    Args:
        head_size: numbers of a head.
        group: query heads that share a head of keys and values.
        several: for 2 to 8 rows.
        cache_bits: of a number in the cache, 16 or 8.
        room: most shared memory of a CTA, in bytes.
    """
    sizes = [(warps, stages) for warps in (4, 2) for stages in (ATTENTION_STAGES[cache_bits], 2)]
    made = [_attention(head_size, group, several, cache_bits, *size) for size in sizes]
    return next((kernel for kernel in made if kernel.shared_bytes <= room), made[-1])


def _attention(
    head_size: int, group: int, several: bool, cache_bits: int, warps: int, stages: int
) -> Kernel:
    defines = {
        "HEAD": head_size,
        "GROUP": group,
        "ROWS": MOST_ROWS if several else 1,
        "WARPS": warps,
        "STAGES": stages,
        "CACHE_BITS": cache_bits,
    }
    scales = 64 if cache_bits == 8 else 0
    keys_values = 2 * 16 * head_size * cache_bits // 8 + scales
    queries = queries_of(group, several)
    merge = _rounded(queries * (head_size + 2) * 4, 16)
    after = _rounded(queries * (2 + MOST_SPLITS) * 4 + 4, 16)
    shared = max(warps * stages * keys_values, warps * merge) + keys_values + after
    defines["SHARED_BYTES"] = shared
    return Kernel("attention.cu", "attention", tuple(defines.items()), 32 * warps, shared)


def quantize_kernel(head_size: int) -> Kernel:
    """What fills a cache of bytes from one of fp16."""
    return Kernel("cache.cu", "quantize_cache", (("HEAD", head_size),), 128, 0)


def queries_of(group: int, several: bool) -> int:
    """Queries of a CTA of the attention: QUERIES of attention.cu."""
    return min(16, group * (MOST_ROWS if several else 1))


def query_tiles(group: int, several: bool) -> int:
    """CTAs that share the queries of a slot's rows: Q_TILES of attention.cu."""
    return -(-group * (MOST_ROWS if several else 1) // 16)


EMBED = Kernel("step.cu", "embed", (("THREADS", 256),), 256, 0)
CHOOSE = Kernel("step.cu", "choose", (("THREADS", 256),), 32, 0)


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit
