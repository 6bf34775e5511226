"""What the runtime needs of an engine library, and the table of those there are. A backend is one file here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, Progress
from ..errors import EngineError, ParameterError

Floats = NDArray[np.floating[Any]]  # float32, or float16 where an engine's networks have it
# On a CPU, at 7B width, 512 tokens at a time prefill 2,933 as fast as all at once (247 against 237 tokens/s on two
# layers), and the attention's scores take 0.2 GB instead of 1.1 GB. It is also what TensorRT's plans are built for.
PREFILL_CHUNK = 512


@dataclass(frozen=True)
class EngineOptions:
    """How to run. `threads` 0 leaves the number to the engine; `context` caps the KV cache, in tokens;
    `prefill_chunk` 0 runs a prompt in one piece, else in pieces of so many tokens (less memory), None in the engine's
    own."""

    device: str = "auto"
    threads: int = 0
    context: int | None = None
    prefill_chunk: int | None = None

    def __post_init__(self) -> None:
        for name in ("threads", "prefill_chunk"):
            value = getattr(self, name)
            if (not isinstance(value, int) or value < 0) and (name, value) != ("prefill_chunk", None):
                raise ParameterError(f"{name} is {value!r}, but must be a whole number from 0")
        if self.context is not None and (not isinstance(self.context, int) or self.context < 1):
            raise ParameterError(f"context is {self.context!r}, but must be a whole number from 1")


class Engine(Protocol):
    """The two networks of a bundle on a device, and their KV cache.

    The cache holds `length` of at most `capacity` positions; it belongs to the engine and never leaves it.
    `prefill` and `step` append to it; `rewind` forgets from the end. A call that fails leaves `length` as it was.
    """

    capacity: int
    length: int
    dtype: type[np.floating[Any]]  # of its networks; what comes in another is converted on the host
    row_cost: float  # about what each further row adds to a step, over 0, as a share of a step of one row: lookup.cost

    def encode(self, pixels: Floats) -> Floats:
        """pixels [views, 3, side, side] -> features [views, patches, hidden]."""

    def prefill(self, embeds: Floats, progress: Progress | None = None) -> Floats:
        """embeds [n, hidden] of the next n positions -> logits [vocab] after the last."""

    def step(self, embeds: Floats) -> Floats:
        """embeds [k, hidden], k small -> logits [k, vocab] after each; valid until the next call.

        They are the logits of k single steps but for rounding: for several rows a kernel adds up in another order, and
        where activations are int8, a last bit may move one to its next level. Greedy decoding then differs only where
        the best two tokens tie within that.
        """

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` positions."""

    def describe(self) -> dict[str, Any]:
        """For provenance: engine, version, device, threads, …"""


BACKENDS = {"cpu": "ort", "cuda": "ort", "standard": "tensorrt"}  # bundle target -> file here; on the CPU always ort


def open_engine(bundle: Bundle, options: EngineOptions) -> Engine:
    """The engine for a bundle's target. Raises `EngineError`."""
    target = bundle.manifest.target
    name = "ort" if (target, options.device) == ("standard", "cpu") else BACKENDS.get(target)
    if name is None:
        raise EngineError(
            f"{bundle.path} was exported for {target}, which no backend runs in this version; "
            f"export it again with --target {' or '.join(BACKENDS)}"
        )
    engine: Engine = import_module(f".{name}", __package__).open_engine(bundle, options)
    return engine
