"""What a benchmark says if it cannot run: one line, with the install command of what is missing."""

from __future__ import annotations

import sys
from types import TracebackType

OURS = ("pulse_edge", "pulse_export", "pulse_nano", "benchmarks")
# Root of a module -> what brings it, if its package has another name.
BROUGHT_BY = {
    **dict.fromkeys(("onnx", "safetensors", "ml_dtypes", "rich"), "pulse-edge[export]"),
    **dict.fromkeys(("starlette", "uvicorn", "prometheus_client"), "pulse-edge[server]"),
    "cuda": "pulse-edge[native]",
    "cyclonedx": "pulse-edge[sbom]",
    "llguidance": "pulse-edge[schema]",
    "llama_cpp": "llama-cpp-python",
    "onnxruntime": "pulse-edge[cpu]",
    "onnxruntime_genai": "onnxruntime-genai",
    "optimum": "pulse-edge[optimum]",
    "pydicom": "pulse-edge[ecg]",
    "tensorrt": "pulse-edge[tensorrt]",
    "transformers": "pulse-edge[parity]",
}


def explain_failures() -> None:
    """End this process with one line where a package is missing or pulse-edge refuses something."""
    sys.excepthook = show_exception


def show_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """`sys.excepthook` of a benchmark. What is a mistake of ours keeps its traceback."""
    line = in_one_line(error)
    if line is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {line}", file=sys.stderr)


def in_one_line(error: BaseException) -> str | None:
    """What to say about an error; None if it is a mistake of ours."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        root = error.name.partition(".")[0]
        if root in OURS:
            return None
        return f"{root} is not installed; pip install '{BROUGHT_BY.get(root, root)}'"
    try:
        from pulse_edge.errors import PulseEdgeError
    except ImportError:
        return None
    return " ".join(str(error).split()) if isinstance(error, PulseEdgeError) else None
