"""Pages made ready for the vision tower, in the threads of those who ask.

Decoding and resizing take a tenth of a second for a usual page and seconds for the worst, so they
do not run in the engine's thread. The views are smaller than a large page and have a bounded size
(7 MB for PULSE-7B), so requests that wait for the engine hold views, neither pages nor files.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from pulse_edge.arrays import Floats
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.cancellation import Cancellation
from pulse_edge.errors import ImageError, ParameterError
from pulse_edge.page.pending_checks import PendingChecks
from pulse_edge.page.source import ImageSource, PageInput, decode_page, read_input
from pulse_edge.page.views import preprocess
from pulse_edge.params import ALPHA_MODES, AlphaMode, Patience

DECODED_AT_ONCE = 2  # pages in a process; each may take the memory that `page/limits.py` states
LOST_AFTER = 30.0  # seconds; a place that is taken for longer was lost, as by a Ctrl-C


class PreparationClock(Protocol):
    """Measures the work that a request does before its turn."""

    def preparing(self) -> AbstractContextManager[None]:
        """Count the body as work of the request."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Count the body as the stage of that name."""


@dataclass(frozen=True)
class Preparation:
    """How a model's pages are prepared. Raises `ParameterError` like `check_alpha`."""

    spec: ModelSpec  # of the model whose tower takes the views
    alpha: AlphaMode = "white"  # what becomes of transparent pixels

    def __post_init__(self) -> None:
        check_alpha(self.alpha)


def check_alpha(alpha: str) -> None:
    """Raises `ParameterError` if `alpha` is not an `AlphaMode`."""
    if alpha not in ALPHA_MODES:
        raise ParameterError(f"alpha is {alpha!r}, but must be {' or '.join(ALPHA_MODES)}")


@dataclass(frozen=True, eq=False)
class PreparedPage:
    """A page as the vision tower takes it."""

    sha256: str  # of the decoded page
    data_sha256: str | None  # of the encoded file; None when pixels were handed in
    facts: dict[str, Any]  # its part of the provenance
    size: tuple[int, int]  # width and height of the decoded page
    pixels: Floats  # float32 [views, 3, side, side]
    checks: PendingChecks | None = None


class PendingPage:
    """A page as it was handed in, prepared when a request first needs it.

    Args:
        source: what was handed in; let go once it is prepared.
        keep: whether several requests share the page, which is then prepared once.
    """

    def __init__(self, source: PageInput, keep: bool) -> None:
        self._source: PageInput | None = source
        self._keep = keep
        self._prepared: PreparedPage | None = None

    @property
    def prepared(self) -> PreparedPage | None:
        """The page, once it was prepared for several requests."""
        return self._prepared

    def prepare(
        self,
        how: Preparation,
        known: PreparedPage | None,
        clock: PreparationClock,
        patience: Patience,
        cancellation: Cancellation,
    ) -> PreparedPage:
        """Decode the page and cut it into views, as far as that is not known.

        Args:
            how: the model's pages are prepared.
            known: another page that is at hand, perhaps the same one.
            clock: measures the stages `decode_image` and `preprocess`, which known pages skip.
            patience: bounds the wait for others that decode a page.
            cancellation: looked at between the stages.

        Raises:
            Cancelled: by the cancellation.
            ImageError: the image cannot be decoded, or is too elongated for the model.
            QueueTimeoutError: patience ran out.
        """
        # Read the source first: another thread sets `_prepared` before it clears the source.
        source = self._source
        if self._prepared is not None:
            return self._prepared
        assert source is not None, "a page that no request shares was asked for twice"
        try:
            page = _prepare(source, how, known, clock, patience, cancellation)
        except MemoryError:
            problem = "too large for this machine's free memory; scale it down"
            raise ImageError(f"{source.name}: {problem}") from None
        if self._keep:
            self._prepared = page
        self._source = None
        return page


def pending_page(image: ImageSource, keep: bool = False) -> PendingPage:
    """Read an image that a caller handed in, without decoding it.

    Args:
        image: as `read_input` takes it.
        keep: whether several requests share the page. It is then prepared once, and later changes
            to the caller's array do not reach it.

    Raises:
        ImageError: the source cannot be read.
    """
    try:
        source = read_input(image)
        return PendingPage(source.snapshot() if keep else source, keep)
    except MemoryError:
        problem = "the image is too large for this machine's free memory; scale it down"
        raise ImageError(problem) from None


def _prepare(
    source: PageInput,
    how: Preparation,
    known: PreparedPage | None,
    clock: PreparationClock,
    patience: Patience,
    cancellation: Cancellation,
) -> PreparedPage:
    with clock.preparing():
        digest = source.data_sha256
    if known is not None and digest is not None and known.data_sha256 == digest:
        return known
    with _place(patience), clock.preparing():
        cancellation.check()
        with clock.stage("decode_image"):
            page = decode_page(source, how.alpha)
        cancellation.check()
        if known is not None and known.sha256 == page.sha256:  # perhaps from another kind of file
            return dataclasses.replace(known, data_sha256=digest, facts=page.facts)
        checks = PendingChecks(page.image, how.spec)
        with clock.stage("preprocess"):
            pixels = preprocess(page.image, how.spec)
            checks.release_page()
        return PreparedPage(page.sha256, digest, page.facts, page.size, pixels, checks)


@contextmanager
def _place(patience: Patience) -> Iterator[None]:
    """One of the places to decode a page in.

    A wait that exceeds `LOST_AFTER` goes on without a place, so that a lost one blocks nobody.

    Raises:
        QueueTimeoutError: patience ran out.
    """
    places = decoding_places(os.getpid())
    taken = False

    def take(seconds: float | None) -> bool:
        nonlocal taken
        try:
            places.get(timeout=LOST_AFTER if seconds is None else min(seconds, LOST_AFTER))
        except Empty:
            return seconds is None or seconds >= LOST_AFTER
        taken = True
        return True

    try:
        if not patience.wait(take):
            raise patience.exhausted()
        yield
    finally:
        if taken:
            places.put(None)


@functools.cache
def decoding_places(process: int) -> SimpleQueue[None]:
    """The free places of a process. A forked child has its own: no thread of its parent's is there
    to give a place back.
    """
    places: SimpleQueue[None] = SimpleQueue()
    for _ in range(DECODED_AT_ONCE):
        places.put(None)
    return places
