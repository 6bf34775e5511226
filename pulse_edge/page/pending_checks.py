"""Checks of a page that run in a thread of their own, while its answer is made."""

from __future__ import annotations

import atexit
import os
import threading

# numpy imports these two where they are first used, which would be in our thread. A process that is
# forked in the midst of an import waits for it for ever.
import numpy.fft
import numpy.ma  # noqa: F401
from PIL import Image

from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.log import LOGGER
from pulse_edge.page.check import PageCheck
from pulse_edge.page.preflight import check_looks, look_over

_unfinished: set[PendingChecks] = set()
_exiting = threading.Event()


def _end_all() -> None:
    """Wait for all checks before the interpreter takes itself apart, and begin no more.

    A thread that returns to Python after that is ended in the midst of whatever library it is in,
    which ends the process where that is C++ that must not be left so.
    """
    _exiting.set()
    while _unfinished:
        for checks in tuple(_unfinished):
            checks.result()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unfinished.clear)  # whose threads are the parent's


class PendingChecks:
    """Checks of a page, begun at once.

    Args:
        image: RGB; nobody changes it.
        model: that will see the page.
    """

    def __init__(self, image: Image.Image, model: ModelSpec) -> None:
        self._image: Image.Image | None = image
        self._model = model
        self._released = threading.Event()
        self._checks: tuple[PageCheck, ...] = ()
        self._done = threading.Event()
        if _exiting.is_set():
            self._end()
            return
        _unfinished.add(self)
        thread = threading.Thread(target=self._run, name="pulse-edge page checks", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # no thread to be had
            self._failed(error)
            self._end()

    def release_page(self) -> None:
        """Wait until the page is no longer needed, which takes a third of the time."""
        self._released.wait()

    def result(self) -> tuple[PageCheck, ...]:
        """What they found, once they are done. Nothing if memory ran out or they failed."""
        self._done.wait()
        return self._checks

    def _run(self) -> None:
        try:
            image, self._image = self._image, None
            assert image is not None, "checks run once"
            looks = look_over(image)
            del image
            self._released.set()
            self._checks = check_looks(looks, self._model)
        except Exception as error:  # an answer is worth more than its page's checks
            self._failed(error)
        finally:
            self._end()

    def _failed(self, error: Exception) -> None:
        LOGGER.warning("the page checks failed (%s)", type(error).__name__)

    def _end(self) -> None:
        self._image = None
        self._released.set()
        _unfinished.discard(self)
        self._done.set()
