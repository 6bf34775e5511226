"""Whether the kernels give ONNX Runtime's logits on this GPU."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pulse_edge.arrays import Floats
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.native.driver import Gpu
from pulse_edge.engines.native.kernels import Kernel
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import EngineError
from pulse_edge.state import FACT, recall, remember
from pulse_edge.system import read_file

STEPS = (1, 2, 3, 4, 8)  # rows of the steps that are compared
DRIVER_VERSION = Path("/proc/driver/nvidia/version")  # of the kernel's module, on Linux
PROMPT = 300  # tokens before them: more than one split of the attention
# Most error of a row of logits, in the 2-norm, relative to ONNX Runtime's. Both round activations
# to fp16, by 2.8e-4 (2^-11 / sqrt 3) in the mean square. A layer adds two branches to the residual,
# each after about eight such roundings: of 32 layers sqrt(512) x 2.8e-4 = 6.4e-3 if they are
# independent, and 9e-3 between two engines. A wrong index or a lost barrier gives 0.1 and more.
BOUND = 2e-2
BYTE_BOUND = 6e-2  # with a cache of bytes; pulse-nano's steps err by 2.3e-2 in emulation


@dataclass(frozen=True)
class Verdict:
    """A self-check's result.

    Attributes:
        error: see `largest_error`.
        remembered: an earlier process measured it.
    """

    error: float
    remembered: bool


def check_facts(
    bundle: Bundle,
    options: EngineOptions,
    gpu: Gpu,
    cubins: Mapping[Kernel, bytes],
    details: Mapping[str, Any],
) -> dict[str, FACT]:
    """All that the error depends on; no identity of a single GPU is among it.

    Args:
        bundle: whose seal names its weights.
        options: of ONNX Runtime's engine.
        gpu: that the kernels run on.
        cubins: their code.
        details: how they are launched.
    """
    code = hashlib.sha256()
    for kernel, cubin in cubins.items():
        code.update(f"{kernel}\n".encode() + hashlib.sha256(cubin).digest())
    return {
        "bundle": bundle.manifest.seal,
        "options": repr(replace(options, engine="auto")),
        "kernels": code.hexdigest(),
        "launches": json.dumps(details, sort_keys=True),
        "gpu": gpu.name,
        "capability": gpu.capability,
        "multiprocessors": gpu.multiprocessors,
        "cuda": gpu.driver_version,
        "driver": read_file(DRIVER_VERSION),
        "onnxruntime": package_version("onnxruntime-gpu", "onnxruntime"),
        "cuda-bindings": package_version("cuda-bindings"),
        "pulse-edge": package_version("pulse-edge"),
    }


def package_version(*names: str) -> str | None:
    """The version of the first of some packages that is installed."""
    from importlib import metadata  # takes 50 ms to import

    for name in names:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def judge(native: Engine, reference: Engine, facts: Mapping[str, FACT] | None) -> Verdict:
    """Compare two engines as `largest_error` does, once for the same facts.

    The figure is remembered, whether it passes or not. Bounds are the caller's.

    Args:
        native: see `largest_error`.
        reference: see `largest_error`.
        facts: all that the error depends on; None measures, and remembers nothing.

    Raises:
        EngineError: see `largest_error`. This is not remembered.
    """
    kept = recall("verdicts", facts) if facts else None
    if kept is not None and isinstance(kept.get("error"), float):
        return Verdict(kept["error"], remembered=True)
    error = largest_error(native, reference)
    if facts:
        remember("verdicts", facts, {"error": error})
    return Verdict(error, remembered=False)


def largest_error(native: Engine, reference: Engine) -> float:
    """Compare a few steps of two engines that share their cache, which is then empty.

    Args:
        native: whose steps of up to 8 rows are checked.
        reference: whose longer steps are known to be right.

    Returns:
        The largest error of a row of logits, in the 2-norm, relative to the reference's; infinite
        if one is not finite.

    Raises:
        EngineError: a token that was chosen is not that of the largest logit.
    """
    counts = [k for i, k in enumerate(STEPS) if sum(STEPS[: i + 1]) < native.capacity]
    if not counts:
        return 0.0  # a context of one token has no room for a step
    prompt = min(PROMPT, native.capacity - sum(counts))
    random = np.random.default_rng(0)
    rows = native.rows(random.integers(0, native.table_rows, prompt + sum(counts)))
    try:
        reference.prefill(rows[:prompt])
        expected = reference.step(rows[prompt:]).copy()
        reference.rewind(prompt)
        errors = []
        for count in counts:
            start = native.length
            part = rows[start : start + count]
            logits = native.step(part).copy()
            native.rewind(start)
            chosen = native.choose(part)
            errors.append(_error(logits, expected[start - prompt :][:count]))
            if errors[-1] < BOUND and not np.array_equal(chosen, logits.argmax(axis=1)):
                raise EngineError(f"of {count} rows other tokens were chosen than their logits say")
    finally:
        reference.reset()
    return max(errors)


def _error(logits: Floats, expected: Floats) -> float:
    if not np.isfinite(logits).all():
        return float("inf")
    difference = np.linalg.norm(logits.astype(np.float64) - expected, axis=1)
    return float((difference / np.linalg.norm(expected, axis=1)).max())
