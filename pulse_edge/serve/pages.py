"""Pages that were sent ahead of their questions: a bounded number of them, for a bounded time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from pulse_edge.errors import PulseEdgeError, QueueFullError
from pulse_edge.look import Look
from pulse_edge.serve.refusals import Refusal

RETRY_SECONDS = 5.0  # after which a page is likely to be prefilled


@dataclass
class KeptPage:
    """A page and when it was last used.

    Attributes:
        look: the model's, which keeps the page's views.
        picture: a PNG for people; None unless its sender asked for one.
        used: time.monotonic().
    """

    look: Look
    picture: bytes | None = None
    used: float = field(default_factory=lambda: time.monotonic())
    _end: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What provenance will say of the page."""
        prepared = self.look.page.prepared
        return {} if prepared is None else prepared.facts

    @property
    def state(self) -> str:
        """`waiting`, `ready`, or `failed`, as by a deadline."""
        if not self.look.done:
            return "waiting"
        if not self._end:
            try:
                self._end = "ready" if self.look.wait() else "failed"
            except PulseEdgeError:
                self._end = "failed"
        return self._end


class KeptPages:
    """Pages by their SHA-256. The one that was used longest ago makes room.

    Args:
        most: pages.
        seconds: after which a page that nobody asks about is dropped.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._pages: OrderedDict[str, KeptPage] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pages)

    def add(self, page: KeptPage) -> KeptPage:
        """Keep a page.

        Returns:
            The page, or the same one that is kept already. Then the new one's prefill is stopped.

        Raises:
            QueueFullError: there are as many already, and all of them still wait.
        """
        name = page.look.sha256
        removed: list[KeptPage] = []
        try:
            with self._lock:
                removed += self._expired()
                old = self._pages.pop(name, None)
                if old is not None and old.state != "failed":
                    old.used = page.used
                    removed.append(page)
                    page = old
                elif old is None and len(self._pages) >= self._most:
                    removed.append(self._make_room())
                self._pages[name] = page
        except QueueFullError:
            removed.append(page)
            raise
        finally:
            for other in removed:
                other.look.cancel()
        return page

    def _make_room(self) -> KeptPage:
        done = next((name for name, page in self._pages.items() if page.look.done), None)
        if done is None:
            raise QueueFullError(f"{self._most} pages wait already; ask again later", RETRY_SECONDS)
        return self._pages.pop(done)

    def find(self, name: str) -> KeptPage:
        """The page of an id, which is then the last one used.

        Raises:
            Refusal: nobody has sent it, or it was dropped.
        """
        with self._lock:
            page = self._pages.get(name)
            if page is None:
                raise Refusal(
                    "no such page; it was never sent, or dropped since; send it again",
                    404, "page_not_found", param="page",
                )  # fmt: skip
            page.used = time.monotonic()
            self._pages.move_to_end(name)
            return page

    def seconds_left(self, page: KeptPage) -> float:
        """Seconds until a page is dropped, unless somebody asks about it."""
        return max(0.0, page.used + self._seconds - time.monotonic())

    def drop(self, name: str) -> None:
        """Forget a page. Raises as `find` does."""
        page = self.find(name)
        with self._lock:
            self._pages.pop(name, None)
        page.look.cancel()

    def expire(self) -> None:
        """Drop pages that nobody has asked about for too long."""
        with self._lock:
            removed = self._expired()
        for page in removed:
            page.look.cancel()

    def clear(self) -> None:
        """Drop all pages."""
        with self._lock:
            removed = list(self._pages.values())
            self._pages.clear()
        for page in removed:
            page.look.cancel()

    def _expired(self) -> list[KeptPage]:
        oldest = time.monotonic() - self._seconds
        names = [name for name, page in self._pages.items() if page.used < oldest]
        return [self._pages.pop(name) for name in names]
