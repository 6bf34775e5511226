"""What the tests share that build with TensorRT-RTX."""

from __future__ import annotations

from typing import Any

# Heads of PULSE-7B's sizes (decoder 128, tower 64) and widths of whole blocks.
GEOMETRY = {
    "hidden": 512,
    "heads": 4,
    "ffn": 1024,
    "vision_width": 512,
    "vision_heads": 8,
    "vision_mlp": 2048,
}
# Bytes of a plan that are not weights, at most: sources of kernels and the listing.
KERNELS = 3_000_000
EXPECTED = ("Make sure input", "Cuda Runtime", "cudaError")  # int64 inputs; no driver here


def complaints(log: Any) -> list[str]:
    """What TensorRT warned of, or worse: a precision that fell back would be among it."""
    return [c for c in (*log.complaints, *log.warnings) if not any(e in c for e in EXPECTED)]
