"""ONNX Runtime's Python package. Nothing else imports it."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from pulse_edge.errors import EngineError


@cache
def load_onnxruntime() -> Any:
    """The module `onnxruntime`, which must not send usage data.

    Raises:
        EngineError: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the library is loaded
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            f"ONNX Runtime is not installed ({error}); "
            "for the CPU: pip install 'pulse-edge[cpu]', "
            "for NVIDIA GPUs: pip install 'pulse-edge[gpu]'"
        ) from None
    return onnxruntime


def first_line(error: BaseException) -> str:
    """Of ONNX Runtime's message, whose other lines are of its own source code."""
    return str(error).strip().split("\n", 1)[0]
