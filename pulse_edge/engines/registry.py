"""The table of engines. A new one is a file here and a row."""

from __future__ import annotations

from importlib import import_module

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import EngineError

BACKENDS = {
    "cpu": "onnxruntime",
    "cuda": "onnxruntime",
    "standard": "tensorrt",
}  # bundle target -> file here; on the CPU always onnxruntime


def open_engine(bundle: Bundle, options: EngineOptions) -> Engine:
    """The engine for a bundle's target. Raises `EngineError`."""
    target = bundle.manifest.target
    name = "onnxruntime" if (target, options.device) == ("standard", "cpu") else BACKENDS.get(target)
    if name is None:
        raise EngineError(
            f"{bundle.path} was exported for {target}, which no backend runs in this version; "
            f"export it again with --target {' or '.join(BACKENDS)}"
        )
    engine: Engine = import_module(f".{name}", __package__).open_engine(bundle, options)
    return engine
