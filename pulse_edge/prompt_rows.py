"""A prompt as numbers of rows, of the embedding table and of a page's features; see `backends.Engine`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .backends import Numbers
from .bundle import ModelSpec
from .image import merge
from .prompt import IMAGE


def image_rows(views: int, size: tuple[int, int], model: ModelSpec, table_rows: int) -> Numbers:
    """Numbers int64 [tokens] of a page's image tokens, in upstream's order.

    Args:
        views: of the page, the base view among them.
        size: of the page, (width, height) in pixels.
        table_rows: of the embedding table; its last row is the newline where the model has one.
    """
    patches = model.vision.grid**2
    numbers = table_rows + np.arange(views * patches, dtype=np.int64).reshape(views, patches, 1)
    return merge(numbers, size, model, np.array([table_rows - 1])).reshape(-1)


def prompt_rows(ids: Sequence[int], image: Numbers | None) -> Numbers:
    """Token ids -> numbers int64 [n], with `image`'s in the placeholder's place."""
    parts = [image if id_ == IMAGE and image is not None else np.array([id_], np.int64) for id_ in ids]
    return np.concatenate(parts)
