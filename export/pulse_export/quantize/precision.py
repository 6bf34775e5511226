"""The tables of storages and precisions. A new precision is one row here, and its name in the
targets that run it; the options, checks, graphs and builds of the export read these rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Storage:
    """One way to store a weight.

    Attributes:
        bits: of one stored number.
        quantized: whether the numbers are integer codes with scales.
        rounds_inputs: whether the layer's input is rounded to 8 bits as well.
        bytes_per_weight: on disk; with the float32 scales of blocks of 32 if that is an option.
        plan_memory: host memory that TensorRT takes to build a plan, in multiples of the graph's
            weights. The worst case measured with tensorrt_rtx 1.7
            (benchmarks/results/engines.jsonl).
        stored_twice: whether tensorrt_rtx 1.7 stores the weights a second time in a plan with a
            profile of single tokens.
    """

    name: str
    bits: int
    quantized: bool
    bytes_per_weight: float
    plan_memory: float
    rounds_inputs: bool = False
    stored_twice: bool = False


STORAGES = {
    s.name: s
    for s in (
        Storage("fp32", 32, False, 4.0, plan_memory=3.0),
        Storage("fp16", 16, False, 2.0, plan_memory=3.0, stored_twice=True),
        Storage("int8", 8, True, 1.04, plan_memory=2.0),
        Storage("int4", 4, True, 0.63, plan_memory=2.5),
        Storage("w8a8", 8, True, 1.04, plan_memory=3.0, rounds_inputs=True, stored_twice=True),
    )
}


@dataclass(frozen=True)
class Precision:
    """A row: the storage of each part's weights, by its name in `STORAGES`.

    The patch embedding, norms, biases and positions stay in the target's float type. The roofline
    (`pulse_edge.measure.roofline`) knows a precision by the same `name`.
    """

    name: str
    decoder: str
    head: str
    vision: str  # tower and projector
    block_size: int  # default of the inputs that share a scale; 0: nothing is quantized
    recipe: str

    @property
    def storages(self) -> frozenset[str]:
        """Names of the storages in use."""
        return frozenset({self.decoder, self.head, self.vision})

    @property
    def full(self) -> bool:
        """Whether the decoder's weights are float32; then so are the embeddings."""
        return self.decoder == "fp32"

    def parts_that_round_inputs(self) -> tuple[str, ...]:
        """Of `vision` and `decoder`, those whose activations are rounded to 8 bits."""
        parts = {"vision": self.vision, "decoder": self.decoder}
        return tuple(part for part, storage in parts.items() if STORAGES[storage].rounds_inputs)


# The head of int4 stays in 8 bits, the tower in 8: together under 5 % of PULSE-7B's bytes, and the
# parts where 4 bits cost most (llama.cpp keeps the output matrix in 6 bits for the same reason).
PRECISIONS = {
    p.name: p
    for p in (
        Precision("fp32", "fp32", "fp32", "fp32", 0, "none"),
        Precision("fp16", "fp16", "fp16", "fp16", 0, "none"),
        Precision("int8", "int8", "int8", "int8", 128, "RTN symmetric"),
        Precision("int4", "int4", "int8", "int8", 32, "RTN symmetric"),
        # The head reads one row per token: 8-bit activations would save nothing there, and cost
        # accuracy where tokens are sampled.
        Precision("w8a8", "w8a8", "int8", "w8a8", 128, "RTN symmetric"),
    )
}
BLOCK_SIZES = (32, 64, 128)
RECIPE_STORAGE = "int4"  # the storage whose codes a recipe may choose
HEADS = ("int8", "int4")  # storages that a quantized precision's head may have instead of its own
TOWERS = ("int8", "fp16")  # storages that a tower may have instead, if the target runs them
CACHES = ("float", "int8")  # of the KV cache: the target's float type, or 8-bit codes
