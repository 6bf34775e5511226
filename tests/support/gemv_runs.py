"""Runs gemv.cu in emulation on a case and compares all that it writes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.engines.native.arguments import Gemv
from pulse_edge.engines.native.kernels import MOST_ROWS, TILE, ActivationLayout, Epilogue

from support.emulation import Emulated, Kind, Memory
from support.kernel_reference import (
    GemvCase,
    best_of,
    gemv_sums,
    laid_out,
    order_of,
    silu,
    tile_sums,
)

Array = NDArray[Any]
BEST = np.dtype([("value", np.float32), ("index", np.int32)])


def run(
    kernel: Emulated,
    case: GemvCase,
    *,
    ctas: int,
    next_layout: ActivationLayout = ActivationLayout.PLAIN,
    in_place: bool = True,
    seed: int = 0,
    late: bool = False,
) -> dict[str, Array]:
    """What the kernel writes, by the argument's field.

    Args:
        in_place: y takes the residual's place.
    """
    memory = Memory()
    n, rows = case.n, case.rows
    epilogue = case.product.epilogue
    argument = Gemv(n=n, rows=rows, next_layout=int(next_layout), x_factor=case.x_factor)
    argument.epsilon = case.epsilon
    for i, w in enumerate(case.weights):
        argument.weights[i] = memory.put(f"weights[{i}]", w.codes, Kind.READ_ONLY)
        if w.scales.size:
            argument.scales[i] = memory.put(f"scales[{i}]", w.scales, Kind.READ_ONLY)
    argument.x = memory.put("x", laid_out(case.x, case.product.layout))
    argument.x_sums = memory.put("x_sums", tile_sums(case.x))
    if case.squares is not None:
        argument.x_squares = memory.put("x_squares", case.squares)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {}
    if epilogue in (Epilogue.STORE, Epilogue.RESIDUAL):
        shapes["y"] = ((rows, n), np.float16)
    if epilogue in (Epilogue.GATED, Epilogue.RESIDUAL):
        shapes["next_x"] = ((rows, n), np.float16)
        shapes["next_sums"] = ((rows, n // TILE), np.float32)
    if epilogue is Epilogue.RESIDUAL:
        argument.residual = memory.put("residual", case.residual)
        argument.gain = memory.put("gain", case.gain, Kind.READ_ONLY)
        shapes["next_squares"] = ((rows, n // TILE), np.float32)
        if in_place:
            argument.y = argument.residual
    if epilogue is Epilogue.LOGITS:
        shapes["logits"] = ((rows, n), np.float32)
        shapes["best"] = ((ctas, MOST_ROWS), BEST)
    for name, (shape, dtype) in shapes.items():
        if not getattr(argument, name):
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            setattr(argument, name, memory.empty(name, size))
    kernel.launch(argument, (ctas,), memory, seed=seed, late=late)
    return {
        name: memory.read(getattr(argument, name), shape, dtype)
        for name, (shape, dtype) in shapes.items()
    }


def problem(case: GemvCase, outputs: dict[str, Array], next_layout: ActivationLayout) -> str | None:
    """What is wrong with what the kernel wrote; None if nothing is."""
    sums = gemv_sums(case)
    epilogue = case.product.epilogue
    if epilogue is Epilogue.LOGITS:
        return _logits_problem(outputs, sums[0])
    if epilogue is Epilogue.STORE:
        return _difference("y", outputs["y"], sums[0])
    if epilogue is Epilogue.GATED:
        activation = silu(sums[0]) * sums[1]
    else:
        value = sums[0] + case.residual.astype(np.float64)
        y = outputs["y"]
        squares = (y.astype(np.float64) ** 2).reshape(case.rows, -1, TILE).sum(-1)
        wrong = _difference("y", y, value)
        wrong = wrong or _difference("next_squares", outputs["next_squares"], squares, 1e-5)
        if wrong:
            return wrong
        activation = y.astype(np.float64) * case.gain.astype(np.float64)
    order = order_of(next_layout, case.n)
    x = np.empty((case.rows, case.n))
    x[:, order] = outputs["next_x"].astype(np.float64)
    if next_layout in (ActivationLayout.INT4, ActivationLayout.INT4_FINE):
        x[:, 1::2] *= 16
    wrong = _difference("next_x", x, activation)
    tiles = activation.reshape(case.rows, -1, TILE).sum(-1)
    return wrong or _difference("next_sums", outputs["next_sums"], tiles)


def _logits_problem(outputs: dict[str, Array], expected: Array) -> str | None:
    logits = outputs["logits"]
    value, index = best_of(logits)
    for row in range(len(logits)):
        best = outputs["best"][:, row]
        order = np.lexsort((best["index"], -best["value"]))
        first = best[order[0]]
        if first["value"] != value[row] or first["index"] != index[row]:
            return f"best of row {row}: {first}, not {value[row]}, {index[row]}"
    return _difference("logits", logits, expected)


def _difference(name: str, actual: Array, expected: Array, most: float = 2e-3) -> str | None:
    """`most`: relative to the largest, of each element."""
    actual = actual.astype(np.float64)
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    return None if error < most else f"{name} differs by {error:.2g}"
