"""The rows of `benchmarks.recipes`: ways to store a decoder's matrices, there and back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from typing import Protocol

import numpy as np

from benchmarks.peers.ggml import (
    GGML_ROWS,
    INSTALL,
    GgmlLibrary,
    GgmlRow,
    format_of,
    there_and_back,
)
from benchmarks.peers.int4_formats import INTEGER_ROWS, IntegerFormat
from pulse_edge.bundle.spec import ModelSpec
from pulse_export.checkpoint import Floats
from pulse_export.quantize.decoder_codes import DecoderCodes, MatrixError
from pulse_export.quantize.lockstep import through_layer
from pulse_export.quantize.mix import eight_bit_names
from pulse_export.quantize.rounding import ROWS as RECIPES
from pulse_export.quantize.rounding import Rounding
from pulse_export.quantize.search import BlockFormat
from pulse_export.quantize.sensitivity import sensitivities, stored_bytes
from pulse_export.quantize.statistics import hessian
from pulse_export.quantize.weights import quantize

BLOCKS = (32, 64, 128)
PLAIN = "plain"  # what an export does without --recipe
MIX_BITS = 4.5  # bytes of a mix: as Q4_0's, 18 for 32 weights


@dataclass(frozen=True)
class Stored:
    """A model in a row's format.

    Attributes:
        tensors: those that differ from the checkpoint's, by canonical name.
        size: bytes of the decoder's matrices with their scales.
        seconds: of processor time.
        errors: of each matrix's outputs on the calibration data.
        problem: why the row has no figures; "" if it has.
    """

    tensors: dict[str, Floats]
    size: int
    seconds: float
    errors: tuple[MatrixError, ...] = ()
    problem: str = ""


class Weights(Protocol):
    """A model's tensors, by canonical name: a `Checkpoint`, or a `LanguageModel`."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def names(self) -> Sequence[str]: ...

    def tensor(self, name: str) -> Floats: ...

    def elements(self, name: str) -> int: ...


@dataclass(frozen=True)
class RowRequest:
    """What every row is made from.

    Attributes:
        states: the calibration samples' embeddings.
        scale_type: of our rows' scales: what the target stores.
        library: ggml's; None leaves out the rows that need it.
    """

    source: Weights
    states: Sequence[Floats]
    scale_type: type[np.generic]
    library: GgmlLibrary | None

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        return self.source.spec

    @property
    def matrices(self) -> list[str]:
        """Names of the decoder's linear layers."""
        names = (n.removesuffix(".weight") for n in self.source.names if n.startswith("layers."))
        return [name for name in names if name.endswith("_proj")]


Maker = Callable[[RowRequest], Stored]


def rows() -> dict[str, Maker]:
    """Every row by its name."""
    table: dict[str, Maker] = {}
    for block in BLOCKS:
        table[f"{PLAIN}-{block}"] = _plain(block)
        for recipe in RECIPES:
            table[f"{recipe}-{block}"] = _ours(Rounding(recipe), block)
    for recipe, block in product(("gptq", "auto"), BLOCKS):
        table[f"{recipe}-{block}-act-order"] = _ours(Rounding(recipe, act_order=True), block)
    table["auto-128-mix"] = _ours(Rounding("auto"), 128, MIX_BITS)
    for name, row in GGML_ROWS.items():
        table[name] = _ggml(row)
    for name, kind in INTEGER_ROWS.items():
        table[name] = _integers(kind)
    return table


def _plain(block: int) -> Maker:
    def make(request: RowRequest) -> Stored:
        start = time.process_time()
        layout = BlockFormat(4, block, True, request.scale_type)
        tensors, size = {}, 0
        for name in request.matrices:
            weight = request.source.tensor(f"{name}.weight")
            codes = quantize(weight, 4, block)
            codes = replace(codes, scales=layout.stored(codes.scales))
            tensors[f"{name}.weight"] = codes.dequantize()
            size += stored_bytes(weight.shape, layout)
        return Stored(tensors, size, time.process_time() - start)

    return make


def _ours(rounding: Rounding, block: int, bits: float | None = None) -> Maker:
    """A recipe; with `bits`, the mean of a mix."""

    def make(request: RowRequest) -> Stored:
        start = time.process_time()

        def layouts(width: int, _: int) -> BlockFormat:
            return BlockFormat(width, block, True, request.scale_type)

        eight: frozenset[str] = frozenset()
        source, spec = request.source, request.spec
        if bits is not None:
            elements = sum(source.elements(f"{name}.weight") for name in request.matrices)
            table = sensitivities(source.tensor, spec, layouts, request.states)
            eight = eight_bit_names(table, int(elements * bits / 8))
        states = request.states if rounding.takes_data else ()
        codes = DecoderCodes(source.tensor, spec, rounding, layouts, states, eight)
        tensors, size = _collected(codes, request, layouts, eight)
        return Stored(tensors, size, time.process_time() - start, tuple(codes.errors))

    return make


def _collected(
    codes: DecoderCodes,
    request: RowRequest,
    layouts: Callable[[int, int], BlockFormat],
    eight: frozenset[str],
) -> tuple[dict[str, Floats], int]:
    tensors: dict[str, Floats] = {}
    size = 0
    for name in sorted(request.matrices, key=lambda name: int(name.split(".")[1])):
        weight = codes.codes((name,)).dequantize()
        tensors[f"{name}.weight"] = weight
        size += stored_bytes(weight.shape, layouts(8 if name in eight else 4, weight.shape[1]))
    for i in range(request.spec.text.layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"layers.{i}.{norm}.weight"] = codes(f"layers.{i}.{norm}.weight")
    return tensors, size


def _ggml(row: GgmlRow) -> Maker:
    def make(request: RowRequest) -> Stored:
        if find_spec("gguf") is None:
            return Stored({}, 0, 0.0, problem=f"needs {INSTALL}")
        if row.library and request.library is None:
            return Stored({}, 0, 0.0, problem="needs ggml's library (--ggml)")
        layers, start = request.spec.text.layers, time.process_time()
        squares = _squares(request) if row.importances else {}
        library = request.library if row.library else None
        tensors, size = {}, 0
        for name in request.matrices:
            weight = request.source.tensor(f"{name}.weight")
            kind = format_of(row, name, layers, weight.shape[1])
            if kind is None:
                return Stored(
                    {}, 0, 0.0, problem=f"rows of {weight.shape[1]}, not multiples of 256"
                )
            back, bytes_ = there_and_back(weight, kind, library, squares.get(name))
            tensors[f"{name}.weight"] = back
            size += bytes_
        return Stored(tensors, size, time.process_time() - start)

    return make


def _integers(kind: IntegerFormat) -> Maker:
    def make(request: RowRequest) -> Stored:
        start, tensors, size = time.process_time(), {}, 0
        for name in request.matrices:
            weight = request.source.tensor(f"{name}.weight")
            if problem := kind.problem(weight.shape[1]):
                return Stored({}, 0, 0.0, problem=problem)
            tensors[f"{name}.weight"] = kind.there_and_back(weight)
            size += kind.size(weight)
        return Stored(tensors, size, time.process_time() - start)

    return make


def _squares(request: RowRequest) -> dict[str, Floats]:
    """Mean squared inputs of every matrix in the float model, as llama-imatrix collects them."""
    found: dict[str, Floats] = {}
    tokens = sum(map(len, request.states))

    def visit(names: tuple[str, ...], inputs: Sequence[Floats]) -> None:
        moments = hessian(inputs, names[0])
        squares: Floats = (np.diagonal(moments) / tokens).astype(np.float32)
        found.update(dict.fromkeys(names, squares))

    states = list(request.states)
    for i in range(request.spec.text.layers):
        states = through_layer(states, i, request.spec, request.source.tensor, visit)
    return found
