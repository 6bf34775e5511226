"""pulse-edge itself, as one of the peers. Variants: a precision of the export; after colons a block size, and `kv8` for
an int8 cache, `head4` for a head of 4 bits, `cuda` for a GPU: `int4:128:head4:kv8`, `int4:128:cuda`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.protocol import serve
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine


class Ours:
    def __init__(self, path: Path, threads: int, context: int) -> None:
        bundle = open_bundle(path)
        manifest = bundle.manifest
        options = EngineOptions(threads=threads, context=context)
        self._engine = open_engine(bundle, options)
        self._vision = manifest.model.vision
        self._pixels: NDArray[np.float32] | None = None
        self.engine = self._engine.describe() | {
            "weights": manifest.precision.decoder, "head": manifest.precision.head,
            "activations": manifest.precision.activations, "cache": manifest.precision.kv_cache,
        }  # fmt: skip

    def feed(self, tokens: list[int]) -> None:
        rows = self._engine.rows(np.array(tokens))
        if len(tokens) == 1:
            self._engine.choose(rows)  # as greedy decoding does; the next token is known then
        else:
            self._engine.prefill(rows)

    def rewind(self, length: int) -> None:
        self._engine.rewind(length)

    def see(self, views: int) -> None:
        if self._pixels is None or len(self._pixels) != views:
            side = self._vision.image_size
            self._pixels = np.random.default_rng(0).standard_normal((views, 3, side, side), np.float32)
        self._engine.encode(self._pixels)


def convert(checkpoint: Path, out: Path, variant: str) -> None:
    from pulse_export.pipeline import export

    precision, *more = variant.split(":")
    block = next((int(part) for part in more if part.isdigit()), None)
    cache, head = "int8" if "kv8" in more else "float", "int4" if "head4" in more else None
    tower = "int8" if "tower8" in more else None  # fp16 on a GPU otherwise: int4:128:cuda:tower8
    target = "cuda" if "cuda" in more else "cpu"
    export(
        checkpoint,
        out,
        precision=precision,
        block_size=block,
        target=target,
        cache=cache,
        head=head,
        tower=tower,
    )


def load(path: Path, variant: str, threads: int, context: int) -> Ours:
    return Ours(path, threads, context)


if __name__ == "__main__":
    serve(convert, load)
