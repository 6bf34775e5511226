"""pulse-edge itself, as one of the peers.

A variant is a precision of the export, followed by any of these, with colons between: a block size,
`kv8` for an int8 cache, `head4` for a head of 4 bits, `prefill8` for w8a8 weights for prompts,
`openvino` for that engine, which needs `pulse-edge[openvino]` here, `cuda` for a GPU, and there
`tower8` for an int8 tower (fp16 otherwise) and `native` for that engine. Examples:
`int4:128:head4:kv8:prefill8`, `int4:128:head4:kv8:openvino`, `int4:128:cuda:tower8`,
`int4:128:cuda:native`. With `optimum`, Optimum exports the tower instead of us: the peer
`optimum-tower`, whose decoder is ours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.protocol import serve
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.engines.table import ENGINES


class Ours:
    def __init__(self, path: Path, variant: str, threads: int, context: int) -> None:
        bundle = open_bundle(path)
        manifest = bundle.manifest
        engine = next((part for part in variant.split(":") if part in ENGINES), "auto")
        options = EngineOptions(threads=threads, context=context, engine=engine)
        self._engine = open_engine(bundle, options)
        self._vision = manifest.model.vision
        self._pixels: NDArray[np.float32] | None = None
        self.engine = self._engine.describe() | {
            "weights": manifest.precision.decoder, "prefill": manifest.precision.prefill,
            "head": manifest.precision.head,
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
            self._pixels = np.random.default_rng(0).standard_normal(
                (views, 3, side, side), np.float32
            )
        self._engine.encode(self._pixels)


def convert(checkpoint: Path, out: Path, variant: str) -> None:
    from pulse_export import ExportOptions, export

    precision, *parts = variant.split(":")
    options = ExportOptions(
        precision=precision,
        target="cuda" if "cuda" in parts else "cpu",
        block_size=next((int(part) for part in parts if part.isdigit()), None),
        cache="int8" if "kv8" in parts else "float",
        head="int4" if "head4" in parts else None,
        prefill="w8a8" if "prefill8" in parts else None,
        tower="int8" if "tower8" in parts else None,
        network="optimum" if "optimum" in parts else "own",
    )
    export(checkpoint, out, options)


def load(path: Path, variant: str, threads: int, context: int) -> Ours:
    return Ours(path, variant, threads, context)


if __name__ == "__main__":
    serve(convert, load)
