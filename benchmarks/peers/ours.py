"""pulse-edge itself, as one of the peers. Variants: a precision of the export; after colons a block size, and `kv8` for
an int8 cache, `head4` for a head of 4 bits: `int4:128:head4:kv8`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.peers.protocol import serve
from pulse_edge.backends import EngineOptions, open_engine
from pulse_edge.bundle import EMBEDDINGS, open_bundle


class Ours:
    def __init__(self, path: Path, threads: int, context: int) -> None:
        bundle = open_bundle(path)
        manifest = bundle.manifest
        options = EngineOptions(threads=threads, context=context)
        self._engine = open_engine(bundle, options)
        self._vision = manifest.model.vision
        dtype = np.float32 if manifest.precision.embeddings == "fp32" else np.float16
        self._embeddings = np.memmap(bundle.file(EMBEDDINGS), dtype, "r").reshape(-1, manifest.model.text.hidden)
        self.engine = self._engine.describe() | {
            "weights": manifest.precision.decoder, "head": manifest.precision.head,
            "activations": manifest.precision.activations, "cache": manifest.precision.kv_cache,
            "prefill_chunk": options.prefill_chunk,
        }  # fmt: skip

    def feed(self, tokens: list[int]) -> None:
        embeds = self._embeddings[tokens].astype(np.float32)
        if len(tokens) == 1:
            self._engine.step(embeds)
        else:
            self._engine.prefill(embeds)

    def rewind(self, length: int) -> None:
        self._engine.rewind(length)

    def see(self, views: int) -> None:
        side = self._vision.image_size
        self._engine.encode(np.random.default_rng(0).standard_normal((views, 3, side, side), np.float32))


def convert(checkpoint: Path, out: Path, variant: str) -> None:
    from pulse_edge.export.pipeline import export

    precision, *more = variant.split(":")
    block = next((int(part) for part in more if part.isdigit()), None)
    cache, head = "int8" if "kv8" in more else "float", "int4" if "head4" in more else None
    export(checkpoint, out, precision=precision, block_size=block, cache=cache, head=head)


def load(path: Path, variant: str, threads: int, context: int) -> Ours:
    return Ours(path, threads, context)


if __name__ == "__main__":
    serve(convert, load)
