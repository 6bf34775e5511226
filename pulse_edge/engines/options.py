"""How to run: the options of every engine."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_edge.engines.table import DEVICES, check_engine
from pulse_edge.errors import EngineError, ParameterError

# Tokens of a prompt at a time on a CPU. At 7B width 2,933 tokens take as long as all at once (247
# against 237 tokens/s on two layers), and the attention's scores 0.2 GB instead of 1.1 GB.
# TensorRT's plans for small devices are built for as many.
PREFILL_CHUNK = 512


@dataclass(frozen=True)
class EngineOptions:
    """How to run a bundle.

    Attributes:
        device: hardware, one of `DEVICES`; `auto` is what the bundle was exported for.
        threads: of the CPU; 0 leaves the number to the engine.
        context: most tokens of the KV cache; None for as many as the model takes.
        prefill_chunk: tokens of a prompt that run at a time; fewer take less memory. 0 runs a
            prompt in one piece, None leaves the number to the engine.
        engine: one of `engine_names()`; `auto` takes the first that runs the bundle on `device`.

    Raises:
        EngineError: the device is unknown.
        ParameterError: another value is not legal.
    """

    device: str = "auto"
    threads: int = 0
    context: int | None = None
    prefill_chunk: int | None = None
    engine: str = "auto"

    def __post_init__(self) -> None:
        for name in ("threads", "prefill_chunk"):
            value = getattr(self, name)
            if (not isinstance(value, int) or value < 0) and (name, value) != (
                "prefill_chunk",
                None,
            ):
                raise ParameterError(f"{name} is {value!r}, but must be a whole number from 0")
        if self.context is not None and (not isinstance(self.context, int) or self.context < 1):
            raise ParameterError(f"context is {self.context!r}, but must be a whole number from 1")
        if self.device not in DEVICES:
            raise EngineError(f"device {self.device!r} is not one of {', '.join(DEVICES)}")
        check_engine(self.engine)
