"""What the runtime needs of an engine library, and the table of those there are. A backend is one file here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle import EMBEDDINGS, Bundle, Progress
from ..errors import EngineError, ParameterError

Floats = NDArray[np.floating[Any]]  # float32, or float16 where an engine's networks have it
Numbers = NDArray[np.int64]
Features = Any  # what `Engine.encode` returns: a page's features where the engine keeps them
Rows = NDArray[Any]  # what `Engine.rows` returns: a stretch of a prompt as the engine takes it
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
    `prefill`, `step` and `choose` append to it; `rewind` forgets from the end. A call that fails leaves `length` as it
    was.

    A prompt is a list of numbers: rows of the embedding table (a token's is its id; the newline of `spatial_unpad` is
    the last one), and, from the table's length on, rows of a page's features, view after view. `rows` turns numbers
    into what the other calls take, which only the engine looks into: embeddings where they come from the host, the
    numbers themselves where table and features lie on a device.
    """

    capacity: int
    length: int
    table_rows: int  # of the embedding table
    row_cost: float  # about what each further row adds to a step, over 0, as a share of a step of one row: lookup.cost

    def encode(self, pixels: Floats) -> Features:
        """pixels float32 [views, 3, side, side] -> features [views, patches, hidden]; `np.asarray` reads them.

        An engine may keep those of the last call only: `rows` then refuses earlier ones.
        """

    def rows(self, numbers: Numbers, page: Features | None = None) -> Rows:
        """numbers int64 [n] -> as many rows. page: the features that numbers from `table_rows` on refer to."""

    def prefill(self, rows: Rows, progress: Progress | None = None) -> Floats:
        """rows [n, …] of the next n positions -> logits float32 [vocab] after the last; valid until the next call."""

    def choose(self, rows: Rows) -> Numbers:
        """As `step`, for greedy decoding: the likeliest token after each row [k], -1 where its logit is not finite.

        What is not copied is the logits: on a device they stay there.
        """

    def step(self, rows: Rows) -> Floats:
        """rows [k, …], k small -> logits float32 [k, vocab] after each; valid until the next call.

        They are the logits of k single steps but for rounding: for several rows a kernel adds up in another order, and
        where activations are int8, a last bit may move one to its next level. Greedy decoding then differs only where
        the best two tokens tie within that.
        """

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` positions."""

    def reset(self) -> None:
        """Forget everything, also what lies in the cache beyond `length`.

        After a request that failed: on a GPU, attention multiplies what it masks with 0, and 0 times a NaN that a
        forgotten position has left is a NaN.
        """

    def describe(self) -> dict[str, Any]:
        """For provenance: engine, version, device, threads, …"""


def likeliest(logits: Floats) -> Numbers:
    """logits [k, vocab] -> the first of the largest of each row [k], or -1 where that is not finite."""
    finite = np.isfinite(logits.max(axis=1))  # a NaN anywhere in a row is its maximum
    chosen: Numbers = np.where(finite, logits.argmax(axis=1), -1)
    return chosen


class HostTable:
    """The embedding table in the bundle's file, for engines that take embeddings from the host. Rows are read as they
    are needed, in `dtype`, the type of the engine's networks."""

    def __init__(self, bundle: Bundle, dtype: type[np.floating[Any]]) -> None:
        self._table, self._dtype = open_table(bundle), dtype

    def __len__(self) -> int:
        return len(self._table)

    def rows(self, numbers: Numbers, page: Floats | None) -> Floats:
        """numbers [n] -> embeddings [n, hidden]; see `Engine`. page: features [views, patches, hidden]."""
        out = np.empty((len(numbers), self._table.shape[1]), self._dtype)
        text = numbers < len(self._table)
        out[text] = self._table[numbers[text]]
        if not text.all():
            assert page is not None, "numbers of a page's features, without a page"
            out[~text] = page.reshape(-1, out.shape[1])[numbers[~text] - len(self._table)]
        return out


def open_table(bundle: Bundle) -> NDArray[Any]:
    """The embedding table [rows, hidden], mapped: float16, float32 in fp32 bundles."""
    manifest = bundle.manifest
    dtype = np.float32 if manifest.precision.embeddings == "fp32" else np.float16
    table: NDArray[Any] = np.memmap(bundle.file(EMBEDDINGS), dtype, "r")
    return table.reshape(-1, manifest.model.text.hidden)


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
