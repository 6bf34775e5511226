"""How to run: the options of every engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pulse_edge.engines.table import DEVICES, check_engine
from pulse_edge.errors import ParameterError, UnknownDeviceError
from pulse_edge.system import most_threads

# Tokens of a prompt at a time on a CPU. At 7B width 2,933 tokens take as long as all at once (247
# against 237 tokens/s on two layers), and the attention's scores 0.2 GB instead of 1.1 GB.
# TensorRT's plans for small devices are built for as many.
PREFILL_CHUNK = 512
# Rows of a prompt up to which weights of its own do not pay: a pass reads all of them, and its last
# row reads the others as well.
FEW_ROWS = 32
MOST_SLOTS = 64
MOST_TOKENS = (1 << 31) - 1  # positions are 32-bit numbers in the graphs and kernels


@dataclass(frozen=True)
class EngineOptions:
    """How to run a bundle.

    Attributes:
        device: hardware, one of `DEVICES`; `auto` is what the bundle was exported for.
        threads: of the CPU, up to `most_threads()`; 0 leaves the number to the engine.
        context: most tokens of the KV cache; None for as many as the model takes.
        prefill_chunk: tokens of a prompt that run at a time; fewer take less memory. 0 runs a
            prompt in one piece, None leaves the number to the engine.
        engine: one of `engine_names()`; `auto` takes the first that runs the bundle on `device`.
        slots: requests that may decode at the same time, up to `MOST_SLOTS`. Each has a KV cache of
            its own.

    Raises:
        UnknownDeviceError: the device is unknown.
        ParameterError: another value is not legal.
    """

    device: str = "auto"
    threads: int = 0
    context: int | None = None
    prefill_chunk: int | None = None
    engine: str = "auto"
    slots: int = 1

    def __post_init__(self) -> None:
        _check_whole("threads", self.threads, 0, most_threads())
        if self.prefill_chunk is not None:
            _check_whole("prefill_chunk", self.prefill_chunk, 0, MOST_TOKENS)
        if self.context is not None:
            _check_whole("context", self.context, 1, MOST_TOKENS)
        _check_whole("slots", self.slots, 1, MOST_SLOTS)
        if self.device not in DEVICES:
            raise UnknownDeviceError(f"device {self.device!r} is not one of {', '.join(DEVICES)}")
        check_engine(self.engine)


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
        raise ParameterError(
            f"{name} is {value!r:.40}, but must be a whole number from {least} to {most}"
        )
