"""The embedding table of a bundle.

It is read for as long as a model lives, and the file may change meanwhile. So the table is copied.
Where 262 MB of a 7B model are too many, each row is read when it is needed and compared with a
digest.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.manifest import EMBEDDINGS
from pulse_edge.bundle.opened import OpenedFile
from pulse_edge.errors import BundleError

DIGEST_BYTES = 16


class Embeddings:
    """Turns a prompt's numbers into embeddings, on the host.

    Numbers below `len(embeddings)` are rows of the bundle's table. Numbers from there on are rows
    of a page's features.

    Args:
        bundle: see `open_embeddings`.
        dtype: the float type of the engine's networks, which the embeddings get.
        copied: keep the whole table in memory.

    Raises:
        BundleError: see `open_embeddings`.
    """

    def __init__(self, bundle: Bundle, dtype: type[np.floating[Any]], copied: bool = True) -> None:
        self._table = open_embeddings(bundle) if copied else CheckedRows(bundle)
        self._dtype = dtype

    def __len__(self) -> int:
        """Rows of the table."""
        return int(self._table.shape[0])

    def rows(self, numbers: Numbers, page: Floats | None = None) -> Floats:
        """Look the numbers up.

        Args:
            numbers: int64 [n].
            page: features [views, patches, hidden].

        Returns:
            Embeddings [n, hidden].

        Raises:
            IndexError: a number is of a page's features, and there is no page.
            BundleError: the file was changed, and its rows are not in memory.
        """
        if page is None:
            return self._table[numbers].astype(self._dtype, copy=False)
        rows = self._table.shape[0]
        out = np.empty((len(numbers), self._table.shape[1]), self._dtype)
        text = numbers < rows
        out[text] = self._table[numbers[text]]
        out[~text] = page.reshape(-1, out.shape[1])[numbers[~text] - rows]
        return out


def open_embeddings(bundle: Bundle) -> NDArray[Any]:
    """The embedding table [rows, hidden] in memory: float16, float32 in fp32 bundles.

    Raises:
        BundleError: the file is not of that size, or was changed since the bundle was opened.
    """
    file, dtype, shape = _described(bundle)
    with file.steady():
        content = file.content()
        return content.array(0, dtype, shape) if content.private else file.array(0, dtype, shape)


class CheckedRows:
    """The embedding table in its file. Indexed by numbers, it reads and checks their rows.

    Raises:
        BundleError: see `open_embeddings`.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._file, self._dtype, self.shape = _described(bundle)
        with self._file.steady():
            self._digests = [_digest(self._row(number)) for number in range(self.shape[0])]

    def __getitem__(self, numbers: Numbers) -> NDArray[Any]:
        """Rows [n, hidden] of the numbers, int64 [n].

        Raises:
            IndexError: there is no such row.
            BundleError: the file was changed.
        """
        out = np.empty((len(numbers), self.shape[1]), self._dtype)
        for place, number in enumerate(numbers.tolist()):
            digest = self._digests[number]
            row = self._row(number)
            if _digest(row) != digest:
                problem = "was changed since it was loaded; load the bundle again"
                raise BundleError(f"{self._file.path}: {problem}")
            out[place] = row
        return out

    def _row(self, number: int) -> NDArray[Any]:
        row = np.empty(self.shape[1], self._dtype)
        self._file.read_into(row.data.cast("B"), number * row.nbytes)
        return row


def _digest(row: NDArray[Any]) -> bytes:
    return hashlib.sha256(row.data).digest()[:DIGEST_BYTES]


def _described(bundle: Bundle) -> tuple[OpenedFile, Any, tuple[int, int]]:
    """The table's file, its numpy type and its shape."""
    manifest = bundle.manifest
    model = manifest.model
    dtype = np.dtype(np.float32 if manifest.precision.embeddings == "fp32" else np.float16)
    # Below the vocabulary's rows is `image_newline`, if the features are merged with it.
    shape = model.text.vocab + (model.image.merge == "spatial_unpad"), model.text.hidden
    file = bundle.files.opened(EMBEDDINGS)
    if file.size != shape[0] * shape[1] * dtype.itemsize:
        problem = f"{file.size} bytes are no table {list(shape)} of {dtype}"
        raise BundleError(f"{file.path}: {problem}; export the bundle again")
    return file, dtype, shape
