"""Prompt tokens per run on a GPU, chosen from its free memory.

Arithmetic only. Every pass over a prompt reads all weights once more. If they are packed in 4 or 8
bits and a pass has more than 16 rows, ONNX Runtime also dequantizes all of them into fp16 again:
about 26 GB of traffic, 8.7 ms per pass of PULSE-7B in int4 on an H100. So the whole prompt runs at
once if memory allows: 2,933 tokens then take one pass instead of the six that chunks of 512 need.
"""

from __future__ import annotations

from pulse_edge.bundle.spec import TextSpec

FP16 = 2  # bytes of an activation
CHUNKS = (2048, 1024, 512)  # tokens at a time if the whole prompt does not fit, largest first
UNKNOWN = CHUNKS[0]  # if free memory is not known
# Free memory must be this many times the scratch: arenas round up and keep what they took, and
# `scratch` is an estimate.
MARGIN = 2

SMALL_PLAN, LARGE_PLAN = 512, 2048
# A device with at least so many bytes counts as one of 16 GB. These devices report a little less
# than 16 GiB (17.2e9): an Orin NX 15.6 GiB, a T4 15. A device of 12 GB has 12.9e9 at most.
LARGE_MEMORY = 14e9


def scratch_row_bytes(text: TextSpec) -> int:
    """Bytes of fp16 activations that one row (one token) of a prompt takes in a decoder layer.

    4 x ffn: gate, up, the activated gate and their product. 10 x hidden: q, k and v (3), the
    attention's output, the two projections back to the residual, and copies of the residual and of
    its norm. The head is left out because it runs for a prompt's last row only.
    """
    return (4 * text.ffn + 10 * text.hidden) * FP16


def scratch(text: TextSpec, rows: int) -> int:
    """Bytes that a pass of `rows` tokens takes besides weights and cache.

    These are activations [rows, ...] and the largest weight of a layer in fp16: [ffn, hidden], or
    [3 x hidden, hidden] for q, k and v side by side. Packed weights are dequantized into the
    latter, one at a time. For fp16 weights the estimate is too high.
    """
    largest = max(text.ffn, 3 * text.hidden) * text.hidden * FP16
    return rows * scratch_row_bytes(text) + largest


def plan_rows(memory: float | None) -> int:
    """Tokens of a prompt at a time that TensorRT plans are built for by default.

    With 2,048 a page reads the weights twice, with 512 six times. But 2,048 rows take 0.26 GB of
    activations more, which devices of 8 or 12 GB may not have beside the weights and the cache.

    Args:
        memory: bytes of the device; None if not known.

    Returns:
        2,048 on devices of 16 GB or more, else 512.
    """
    return SMALL_PLAN if memory is None or memory < LARGE_MEMORY else LARGE_PLAN


def prefill_chunk(free: int | None, text: TextSpec, capacity: int) -> int:
    """Tokens of a prompt at a time, 0 for the whole prompt at once.

    Args:
        free: bytes of the GPU's memory that are left after weights, cache and workspace; None if
            not known.
        text: the decoder's sizes.
        capacity: tokens that the cache holds, and so the longest prompt.

    Returns:
        0 if twice the scratch of `capacity` rows is free. Else the largest of `CHUNKS` for which
        twice its scratch is free, and 512 if there is none: fewer rows would save little beside the
        weights. 2,048 if `free` is None.
    """
    if free is None:
        return UNKNOWN
    if MARGIN * scratch(text, capacity) <= free:
        return 0
    return next((rows for rows in CHUNKS if MARGIN * scratch(text, rows) <= free), CHUNKS[-1])
