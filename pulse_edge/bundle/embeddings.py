"""The embedding table of a bundle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.manifest import EMBEDDINGS
from pulse_edge.errors import BundleError


class Embeddings:
    """Turns a prompt's numbers into embeddings, on the host.

    Numbers below `len(embeddings)` are rows of the bundle's table. Numbers from there on are rows
    of a page's features.
    """

    def __init__(self, bundle: Bundle, dtype: type[np.floating[Any]]) -> None:
        """`dtype`: the float type of the engine's networks, which the embeddings get."""
        self._table = open_embeddings(bundle)
        self._dtype = dtype

    def __len__(self) -> int:
        """Rows of the table."""
        return len(self._table)

    def rows(self, numbers: Numbers, page: Floats | None = None) -> Floats:
        """Look the numbers up.

        Args:
            numbers: int64 [n].
            page: features [views, patches, hidden].

        Returns:
            Embeddings [n, hidden].

        Raises:
            IndexError: a number is of a page's features, and there is no page.
        """
        if page is None:
            return self._table[numbers].astype(self._dtype, copy=False)
        out = np.empty((len(numbers), self._table.shape[1]), self._dtype)
        text = numbers < len(self._table)
        out[text] = self._table[numbers[text]]
        out[~text] = page.reshape(-1, out.shape[1])[numbers[~text] - len(self._table)]
        return out


def open_embeddings(bundle: Bundle) -> NDArray[Any]:
    """The embedding table [rows, hidden] in memory: float16, float32 in fp32 bundles.

    It is a copy, because it is read for as long as the model lives, and the file may change.
    """
    manifest = bundle.manifest
    dtype = np.float32 if manifest.precision.embeddings == "fp32" else np.float16
    hidden = manifest.model.text.hidden
    file = bundle.files.opened(EMBEDDINGS)
    # Below the vocabulary's rows is `image_newline`, if the features are merged with it.
    rows = manifest.model.text.vocab + (manifest.model.image.merge == "spatial_unpad")
    if file.size != rows * hidden * np.dtype(dtype).itemsize:
        problem = f"{file.size} bytes are no table of {rows} x {hidden} {np.dtype(dtype)}"
        raise BundleError(f"{file.path}: {problem}; export the bundle again")
    with file.steady():
        content = file.content()
        table = content.array(0, dtype, (rows, hidden))
        return table if content.private else np.array(table)
