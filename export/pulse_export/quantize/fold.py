"""Vectors that are folded into a checkpoint's tensors: readers multiplied, writers divided.

`quantize.smooth.sites` says which tensors write an activation and which read it. The model computes
what it did before, but for rounding.
"""

from __future__ import annotations

import numpy as np

from pulse_edge.bundle.spec import ModelSpec
from pulse_export.checkpoint import Floats, Tensors
from pulse_export.quantize.smooth import Site, sites


class DecoderFolds:
    """A checkpoint's tensors with the vectors of the decoder's activations folded in.

    Calling it with a canonical name gives that tensor. Activations without a vector stay.
    """

    def __init__(self, tensors: Tensors, spec: ModelSpec) -> None:
        self._tensors = tensors
        self._heads = spec.text.kv_heads, spec.text.head_size
        every = list(sites(spec, ("decoder",)))
        self._read = {reader: site for site in every for reader in site.readers}
        self._written = {writer: site for site in every for writer in site.writers}
        self._vectors: dict[Site, Floats] = {}

    def add(self, readers: tuple[str, ...], vector: Floats) -> None:
        """Fold s float32 [columns] of the activation that these layers read."""
        self._vectors[self._read[readers[0]]] = vector

    def shared(self, readers: tuple[str, ...], magnitudes: Floats) -> Floats:
        """Magnitudes of an activation's channels, equal where channels must have one s.

        Query heads that share a value head read the same rows of v_proj.
        """
        if not readers[0].endswith("o_proj"):
            return magnitudes
        heads = magnitudes.reshape(self._heads[0], -1, self._heads[1])
        largest = np.broadcast_to(heads.max(axis=1, keepdims=True), heads.shape)
        return largest.reshape(-1).copy()

    def __call__(self, name: str) -> Floats:
        tensor = self._tensors(name)
        reads = self._vectors.get(self._read.get(name.removesuffix(".weight"), Site(())))
        if reads is not None:
            tensor = tensor * reads
        writes = self._vectors.get(self._written.get(name, Site(())))
        if writes is not None:
            if len(writes) != len(tensor):  # heads that share a value head share its s
                heads = writes.reshape(self._heads[0], -1, self._heads[1])
                writes = heads[:, 0].reshape(-1)
            tensor = tensor / writes.reshape(-1, *[1] * (tensor.ndim - 1))
        return tensor
