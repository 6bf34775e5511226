"""Answers questions about ECG images, from a bundle of a PULSE model.

The model is PULSE-7B or one like it. Research use only: not a medical device.

Names are imported when they are first used: `import pulse_edge` costs no more than its errors.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pulse_edge.errors import (
    AuditError,
    BundleError,
    CheckpointError,
    ContextError,
    DeadlineError,
    EngineError,
    ExportError,
    ImageError,
    ParameterError,
    PulseEdgeError,
    QueueFullError,
    QueueTimeoutError,
    RecordingError,
    RegressionError,
    TrustError,
)

if sys.version_info < (3, 11):  # noqa: UP036 - pip refuses older ones, a clone does not
    _PROBLEM = (
        "pulse-edge needs Python 3.11 or newer, and this is Python "
        f"{sys.version_info[0]}.{sys.version_info[1]}; run it with a newer one"
    )
    # `python -m pulse_edge` imports this before anything that could show an error in one line.
    raise SystemExit(f"error: {_PROBLEM}") if sys.argv[:1] == ["-m"] else ImportError(_PROBLEM)

if TYPE_CHECKING:
    from pulse_edge.answer import Answer, Timings, Usage
    from pulse_edge.bundle.bundle import open_bundle
    from pulse_edge.chat import Chat
    from pulse_edge.deadline import DeadlineReport
    from pulse_edge.decode.scoring import OptionScore
    from pulse_edge.ecg.drawing import draw_page
    from pulse_edge.ecg.drawn import DrawnRecording
    from pulse_edge.ecg.layout import PageStyle
    from pulse_edge.ecg.readers.registry import CsvTerms, read_recording
    from pulse_edge.ecg.recording import Recording
    from pulse_edge.engines.options import EngineOptions
    from pulse_edge.health import Health
    from pulse_edge.look import Look
    from pulse_edge.model import Model, load
    from pulse_edge.page.numbered import FilePage
    from pulse_edge.panels.result import Result
    from pulse_edge.params import GenerationParams
    from pulse_edge.stream import Stream

    __version__: str

__all__ = [
    "Answer",
    "AuditError",
    "BundleError",
    "Chat",
    "CheckpointError",
    "ContextError",
    "CsvTerms",
    "DeadlineError",
    "DeadlineReport",
    "DrawnRecording",
    "EngineError",
    "EngineOptions",
    "ExportError",
    "FilePage",
    "GenerationParams",
    "Health",
    "ImageError",
    "Look",
    "Model",
    "OptionScore",
    "PageStyle",
    "ParameterError",
    "PulseEdgeError",
    "QueueFullError",
    "QueueTimeoutError",
    "Recording",
    "RecordingError",
    "RegressionError",
    "Result",
    "Stream",
    "Timings",
    "TrustError",
    "Usage",
    "__version__",
    "draw_page",
    "load",
    "open_bundle",
    "read_recording",
]

_HOMES = {
    "Answer": "answer",
    "Chat": "chat",
    "CsvTerms": "ecg.readers.registry",
    "DeadlineReport": "deadline",
    "DrawnRecording": "ecg.drawn",
    "EngineOptions": "engines.options",
    "FilePage": "page.numbered",
    "GenerationParams": "params",
    "Health": "health",
    "Look": "look",
    "Model": "model",
    "OptionScore": "decode.scoring",
    "PageStyle": "ecg.layout",
    "Recording": "ecg.recording",
    "Result": "panels.result",
    "Stream": "stream",
    "Timings": "answer",
    "Usage": "answer",
    "draw_page": "ecg.drawing",
    "load": "model",
    "open_bundle": "bundle.bundle",
    "read_recording": "ecg.readers.registry",
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
