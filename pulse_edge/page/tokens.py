"""Which features of a page's views are its image tokens, in order."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pulse_edge.arrays import Numbers
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.page.views import select_grid, view_count

Scalar = TypeVar("Scalar", bound=np.generic)


def unpad_box(size: tuple[int, int], rows: int, cols: int) -> tuple[slice, slice]:
    """Rows and columns of a feature map [rows, cols] that show page, not letterbox.

    llava_arch.py `unpad_image`. `size` is the page's (width, height) in pixels.
    """
    width, height = size
    if width / height > cols / rows:
        cut = (rows - int(height * (cols / width))) // 2
        return slice(cut, rows - cut), slice(0, cols)
    cut = (cols - int(width * (rows / height))) // 2
    return slice(0, rows), slice(cut, cols - cut)


def token_count(size: tuple[int, int], model: ModelSpec) -> int:
    """Image tokens of a page of this (width, height) in pixels."""
    side = model.vision.grid
    if model.image.merge == "flat" or model.image.aspect != "anyres":
        return view_count(size, model) * side * side
    grid = select_grid(size, model.image.grids)
    rows, cols = (side * (edge // model.vision.image_size) for edge in (grid[1], grid[0]))
    box = unpad_box(size, rows, cols)
    kept = [len(range(*s.indices(n))) for s, n in zip(box, (rows, cols), strict=True)]
    return side * side + kept[0] * (kept[1] + 1)


def merge(
    features: NDArray[Scalar],
    size: tuple[int, int],
    model: ModelSpec,
    newline: NDArray[Any] | None,
) -> NDArray[Scalar]:
    """View features -> image tokens, in upstream's order.

    `flat`: view after view. `spatial_unpad`: the base view, then the tiles as one map without its
    letterbox, each row closed by the newline (llava_arch.py
    `prepare_inputs_labels_for_multimodal`).

    Args:
        features: [views, patches, hidden].
        size: of the page, (width, height) in pixels.
        model: says how to merge.
        newline: [hidden]; needed for `spatial_unpad`.

    Returns:
        [tokens, hidden].
    """
    hidden = features.shape[-1]
    # Upstream merges only lists of views.
    if model.image.merge == "flat" or model.image.aspect != "anyres":
        return features.reshape(-1, hidden)
    assert newline is not None, "export writes the newline row for every spatial_unpad model"
    side = model.vision.grid
    grid = select_grid(size, model.image.grids)
    across, down = (edge // model.vision.image_size for edge in grid)
    tiles = features[1:].reshape(down, across, side, side, hidden)
    page = tiles.transpose(0, 2, 1, 3, 4).reshape(down * side, across * side, hidden)
    page = page[unpad_box(size, down * side, across * side)]
    column = np.broadcast_to(newline, (page.shape[0], 1, hidden))
    return np.concatenate([features[0], np.concatenate([page, column], axis=1).reshape(-1, hidden)])


def image_rows(views: int, size: tuple[int, int], model: ModelSpec, table_rows: int) -> Numbers:
    """Rows int64 [tokens] of a page's image tokens, as `Engine.rows` takes them.

    They are in upstream's order.

    Args:
        views: of the page, the base view among them.
        size: of the page, (width, height) in pixels.
        model: says how views become tokens.
        table_rows: of the embedding table; its last row is the newline, if the model has one.
    """
    patches = model.vision.grid**2
    numbers = table_rows + np.arange(views * patches, dtype=np.int64).reshape(views, patches, 1)
    return merge(numbers, size, model, np.array([table_rows - 1])).reshape(-1)
