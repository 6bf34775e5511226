"""pulse-edge: answers questions about ECG images from an optimized bundle of PULSE-7B or a model like it.

Research use only: not a medical device.

The names below are imported when they are first used, so that `import pulse_edge` costs no more than its errors.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pulse_edge.errors import PulseEdgeError

if TYPE_CHECKING:
    from pulse_edge.answer import Answer
    from pulse_edge.model import Chat, Model, Stream, load
    from pulse_edge.params import SamplingParams

    __version__: str

__all__ = ["Answer", "Chat", "Model", "PulseEdgeError", "SamplingParams", "Stream", "__version__", "load"]

_HOMES = {"Answer": "answer", "Chat": "model", "Model": "model", "Stream": "model", "load": "model"} | {
    "SamplingParams": "params"
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pulse-edge")
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
