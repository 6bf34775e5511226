"""BMP files: their size is checked before Pillow reads them. They hold no checksums."""

from __future__ import annotations

import struct

from pulse_edge.errors import ImageError
from pulse_edge.page.container import Container
from pulse_edge.page.limits import check_page_size

_CORE_HEADER = 12  # bytes of OS/2's header, with 16-bit sizes
_RUN_LENGTH = (1, 2)
# Pillow expands runs in Python, about a million a second.
_MAX_RUN_LENGTH_BYTES = 2_000_000


def read_bmp(data: bytes) -> Container:
    """Check the header of a BMP.

    Raises:
        ImageError: it is truncated, too large, or of many runs.
    """
    if len(data) < 30:
        raise ImageError(f"the image is truncated: the BMP ends at byte {len(data)}")
    length = struct.unpack_from("<I", data, 14)[0]
    if length == _CORE_HEADER:
        width, height = struct.unpack_from("<HH", data, 18)
        compression = 0
    else:
        width, height = struct.unpack_from("<ii", data, 18)  # a negative height: top row first
        compression = struct.unpack_from("<I", data, 30)[0] if len(data) >= 34 else 0
    check_page_size(width, abs(height))
    if compression in _RUN_LENGTH and len(data) > _MAX_RUN_LENGTH_BYTES:
        raise ImageError(
            f"a run-length coded BMP of {len(data):,} bytes, over the "
            f"{_MAX_RUN_LENGTH_BYTES:,} accepted; save it as PNG"
        )
    return Container("BMP", (width, abs(height)), lambda: data)
