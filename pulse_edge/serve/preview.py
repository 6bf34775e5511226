"""A picture of a page for people: what browsers cannot show themselves, as a PNG."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from typing import Any

from pulse_edge.page.source import ImageSource, read_page

LONGEST_SIDE = 2_200  # pixels; a recording is drawn at this size, so it is not scaled
_one_at_a_time = threading.Lock()  # a decoded page may take hundreds of megabytes


def picture_of(image: ImageSource, facts: Mapping[str, Any]) -> bytes:
    """The page that the model reads, scaled down if it is large.

    Args:
        image: a file's bytes, or a recording.
        facts: of the page, which say what became of its transparent pixels.

    Returns:
        A PNG.

    Raises:
        ImageError: the image cannot be read.
    """
    with _one_at_a_time:
        page = read_page(image, "drop" if facts.get("alpha") == "dropped" else "white").image
        page.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        file = io.BytesIO()
        page.save(file, "PNG", compress_level=3)
        return file.getvalue()
