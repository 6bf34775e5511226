"""Keeps libtiff's own messages off stderr.

libtiff prints what it thinks of a damaged file, several lines for a page, before Pillow raises. Its
message handler is one pointer for the process: it is set while pages are decoded, and set back.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

_lock = threading.Lock()
_quiet = 0  # how many threads decode at the moment
_before: int | None = None  # libtiff's handler, while it is replaced


@cache
def _set_handler() -> Any:
    """libtiff's function that sets the handler and returns the one before.

    None where the platform does not find it beside Pillow's own library.
    """
    library = find_spec("PIL._imaging")
    try:
        function = ctypes.CDLL(library.origin if library else None).TIFFSetErrorHandler
    except (AttributeError, OSError, TypeError):
        return None
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p]
    return function


@contextmanager
def quiet_libtiff() -> Iterator[None]:
    """While the body runs, libtiff prints nothing."""
    global _quiet, _before
    set_handler = _set_handler()
    if set_handler is None:
        yield
        return
    with _lock:
        if not _quiet:
            _before = set_handler(None)
        _quiet += 1
    try:
        yield
    finally:
        with _lock:
            _quiet -= 1
            if not _quiet:
                set_handler(_before)
