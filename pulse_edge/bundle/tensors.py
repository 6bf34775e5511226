"""An index of the decoder's weights in their file.

Engines read it to find the weights without ONNX. Bundles for CUDA have this index beside the graph.
Writer and reader.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH
from pulse_edge.bundle.opened import Bytes
from pulse_edge.bundle.sealed_json import dumps, from_json
from pulse_edge.errors import BundleError

SCHEMA_VERSION = 1
TENSORS = "decoder.tensors.json"
DATA = f"{DECODER_GRAPH}.data"
DTYPES = ("float16", "float32", "uint8")


@dataclass(frozen=True)
class TensorEntry:
    """A tensor, row-major, from `offset` of the file on. `dtype`: numpy's name of it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class TensorIndex:
    """`decoder.tensors.json`. The manifest seals it with the bundle's other files.

    Attributes:
        file: of the bundle, that all tensors lie in.
    """

    schema_version: int
    file: str
    tensors: tuple[TensorEntry, ...]


def index_bytes(tensors: tuple[TensorEntry, ...]) -> bytes:
    """The index's content."""
    return dumps(TensorIndex(SCHEMA_VERSION, DATA, tensors))


def has_tensors(bundle: Bundle) -> bool:
    """Whether a bundle has the index. Those of older exports have none."""
    return any(entry.path == TENSORS for entry in bundle.manifest.files)


def read_index(bundle: Bundle) -> dict[str, TensorEntry]:
    """The decoder's tensors by name.

    Raises:
        BundleError: there is no index, it is of another version, or it does not fit its file.
    """
    path = bundle.file(TENSORS)
    again = "export the checkpoint again"
    if not has_tensors(bundle):
        raise BundleError(f"{bundle.path} was exported without {TENSORS}; {again}")
    try:
        data = json.loads(bundle.read(TENSORS))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); {again}") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        problem = f"schema version {version!r:.60}, this pulse-edge reads {SCHEMA_VERSION}"
        raise BundleError(f"{path}: {problem}; {again}")
    index: TensorIndex = from_json(TensorIndex, data, str(path))
    sizes = {entry.path: entry.size for entry in bundle.manifest.files}
    for entry in index.tensors:
        if entry.dtype not in DTYPES:
            raise BundleError(f"{path}: {entry.name} is of {entry.dtype!r:.60}; {again}")
        if len(entry.shape) > 8 or not all(0 <= edge < 1 << 40 for edge in entry.shape):
            raise BundleError(f"{path}: {entry.name} has the shape {list(entry.shape)}; {again}")
        if entry.offset % np.dtype(entry.dtype).itemsize:
            raise BundleError(f"{path}: {entry.name} begins amid an element; {again}")
        if entry.offset < 0 or entry.offset + entry.size > sizes.get(index.file, 0):
            raise BundleError(f"{path}: {entry.name} does not lie in {index.file}; {again}")
    return {entry.name: entry for entry in index.tensors}


class TensorFile:
    """The decoder's weights in memory, by name. `open_tensors` makes it."""

    def __init__(self, entries: dict[str, TensorEntry], content: Bytes) -> None:
        self.entries = entries
        self._content = content

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A tensor as a view of the file. Raises `BundleError` if there is none of that name."""
        if name not in self.entries:
            raise BundleError(f"{TENSORS} lists no {name}; export the checkpoint again")
        entry = self.entries[name]
        content = self._content[entry.offset : entry.offset + entry.size]
        array: NDArray[Any] = content.view(entry.dtype).reshape(entry.shape)
        return array


@contextmanager
def open_tensors(bundle: Bundle) -> Iterator[TensorFile]:
    """The decoder's weights, which do not change while the body runs.

    Raises:
        BundleError: see `read_index`; or the file was changed since the bundle was opened.
    """
    entries = read_index(bundle)
    file = bundle.files.opened(DATA)
    with file.steady():
        yield TensorFile(entries, file.content().bytes)
