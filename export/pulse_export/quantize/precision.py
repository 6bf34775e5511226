"""The table of precisions: what each part of the model is stored as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Storage = Literal["fp32", "fp16", "int8", "int4", "w8a8"]
BITS: dict[str, int] = {"int8": 8, "int4": 4, "w8a8": 8}  # w8a8: weights as int8's, multiplied with 8-bit activations


@dataclass(frozen=True)
class Precision:
    """A row: storage of each part's weights. The patch embedding, norms, biases and positions stay in `io`'s float."""

    name: str
    decoder: Storage
    head: Storage
    vision: Storage  # tower and projector
    block_size: int  # default of the export
    recipe: str


# The head of int4 stays in 8 bits, the tower in 8: together under 5 % of PULSE-7B's bytes, and the parts where 4 bits
# cost most (llama.cpp keeps the output matrix in 6 bits for the same reason).
PRECISIONS = {
    p.name: p
    for p in (
        Precision("fp32", "fp32", "fp32", "fp32", 0, "none"),
        Precision("fp16", "fp16", "fp16", "fp16", 0, "none"),
        Precision("int8", "int8", "int8", "int8", 128, "RTN symmetric"),
        Precision("int4", "int4", "int8", "int8", 32, "RTN symmetric"),
        # The head reads one row a token: 8-bit activations would save nothing there, and cost what is sampled from.
        Precision("w8a8", "w8a8", "int8", "w8a8", 128, "RTN symmetric"),
    )
}
BLOCK_SIZES = (32, 64, 128)
