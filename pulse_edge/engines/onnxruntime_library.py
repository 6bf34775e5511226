"""ONNX Runtime's Python package. Nothing else imports it."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from pulse_edge.errors import EngineError
from pulse_edge.privacy import silence

# The oldest version that runs every bundle; pyproject.toml asks for the same. 1.26 and older lack
# the KV cache of bytes, 1.25 `OrtValue.from_dlpack`, and 1.24 the check that a graph in memory
# names no external data outside its folder.
OLDEST = (1, 27)
INSTALL = (
    "for the CPU: pip install 'pulse-edge[cpu]', for NVIDIA GPUs: pip install 'pulse-edge[gpu]'"
)
# What the dynamic loader and mmap say when there is no memory for a library.
NO_MEMORY = re.compile(
    r"cannot allocate memory|failed to map segment|cannot create TLS|bad_alloc", re.IGNORECASE
)


@cache
def load_onnxruntime() -> Any:
    """The module `onnxruntime`, which must not send usage data.

    Raises:
        EngineError: it is not installed, does not load, or is too old; the message says which.
    """
    silence("onnxruntime")  # read when the library is loaded
    try:
        import onnxruntime
    except (ImportError, OSError, MemoryError) as error:
        raise EngineError(_why_not_loaded(error)) from None
    if not hasattr(onnxruntime, "InferenceSession"):  # an empty folder imports, too
        raise EngineError(
            "ONNX Runtime's folder is there, but its files are not; "
            "install it again: pip install --force-reinstall onnxruntime, or onnxruntime-gpu"
        )
    _check_version(onnxruntime.__version__)
    # Where a program imported ONNX Runtime before us, it has already read its environment. This
    # still stops all but what it reports of its start.
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def first_line(error: BaseException) -> str:
    """Of ONNX Runtime's message, whose other lines are of its own source code."""
    return str(error).strip().split("\n", 1)[0]


def _check_version(found: str) -> None:
    """Refuse a version older than `OLDEST`: `1.26.0`, and `1.26.0.dev20260101`, too."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", found)[:2])
    if numbers < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise EngineError(
            f"ONNX Runtime {found} is too old, pulse-edge needs {needed} or newer: "
            f"pip install --upgrade 'onnxruntime>={needed}', "
            f"or 'onnxruntime-gpu>={needed}' for an NVIDIA GPU"
        )


def _why_not_loaded(error: ImportError | OSError | MemoryError) -> str:
    """Why an import failed, and what to do."""
    why = first_line(error)
    if isinstance(error, MemoryError) or NO_MEMORY.search(why):
        return (
            f"not enough memory to load ONNX Runtime ({why or 'out of memory'}); "
            "close other programs, or raise the process's limit (ulimit -v)"
        )
    if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
        return f"ONNX Runtime is not installed ({why}); {INSTALL}"
    return (
        f"ONNX Runtime is installed but does not load ({why}); check that its wheel is for this "
        "machine, Python and CUDA, and install it again: "
        "pip install --force-reinstall onnxruntime, or onnxruntime-gpu"
    )
