"""Pages as features of the vision tower. Recent pages are remembered."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pulse_edge.arrays import Numbers
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.cancellation import Cancellation
from pulse_edge.engines.engine import Engine, Features
from pulse_edge.page.preparation import PreparedPage
from pulse_edge.page.tokens import image_rows
from pulse_edge.progress import Progress

Clock = Callable[[str], AbstractContextManager[object]]  # times the body as the stage of that name


REMEMBERED = 2  # pages whose features are kept: the last one, and one that gave way to it


@dataclass(frozen=True, eq=False)
class PlacedPage:
    """A page, and its image tokens in a prompt."""

    page: PreparedPage
    tokens: Numbers  # int64 [tokens]: rows of `Engine.rows`, in the prompt's order

    @property
    def key(self) -> int:
        """Placeholder id for this page's image tokens in the list of cached keys.

        Image tokens have no vocabulary id, so all of them get this one negative number. It is the
        whole digest of the page, so two prompts share a prefix only if they show the same page.
        """
        return -1 - int(self.page.sha256, 16)

    @property
    def record(self) -> dict[str, Any]:
        """The page's entry in the provenance."""
        return self.page.facts | {"views": len(self.page.pixels), "tokens": len(self.tokens)}


class PageEncoder:
    """Views -> features. A second question about a recent page does not run the tower again.

    Attributes:
        page: the last page that came here; None after `forget`. Any thread may read it.
    """

    def __init__(self, spec: ModelSpec, engine: Engine) -> None:
        self._spec = spec
        self._engine = engine
        self.page: PreparedPage | None = None
        self._recent: tuple[tuple[str, Features], ...] = ()  # by digest, the last one at the end

    def place(self, page: PreparedPage) -> PlacedPage:
        """A page's tokens in a prompt, which do not depend on its features. For any thread."""
        views = len(page.pixels)
        return PlacedPage(page, image_rows(views, page.size, self._spec, self._engine.table_rows))

    def views_to_run(self, page: PreparedPage) -> int:
        """Views that `encode` would run through the tower. For any thread; it is a guess."""
        known = any(digest == page.sha256 for digest, _ in self._recent)
        return 0 if known else len(page.pixels)

    def encode(
        self,
        page: PreparedPage,
        clock: Clock,
        progress: Progress | None = None,
        cancellation: Cancellation | None = None,
        between: Callable[[], None] | None = None,
    ) -> Features:
        """Features of a page, [views, patches, hidden]; from memory if it is a recent one.

        Args:
            page: ready for the tower.
            clock: times the stage `vision`; a recent page skips it.
            progress: told ("vision", 0, views) before the tower runs, and then of each view if they
                run one by one, else of all. What it raises is passed on.
            cancellation: may end the tower's run.
            between: is called between two views, which then run one by one, to the same bits. What
                it raises is passed on. None runs all views at once, as features that stay on a
                device always do.

        Raises:
            Cancelled: by the cancellation.
            EngineError: the vision tower failed.
        """
        self.page = page
        features = dict(self._recent).get(page.sha256)
        if features is None:
            features = self._run(page, clock, progress, cancellation, between)
        others = (pair for pair in self._recent if pair[0] != page.sha256)
        self._recent = (*others, (page.sha256, features))[-REMEMBERED:]
        return features

    def forget(self) -> None:
        """Encode the next page anew, whichever it is."""
        self.page = None
        self._recent = ()

    def _run(
        self,
        page: PreparedPage,
        clock: Clock,
        progress: Progress | None,
        cancellation: Cancellation | None,
        between: Callable[[], None] | None,
    ) -> Features:
        with clock("vision"):
            views = len(page.pixels)
            told = progress or _nobody
            told("vision", 0, views)
            # An engine may keep one page's features only, and this call overwrites them.
            self._recent = tuple(p for p in self._recent if isinstance(p[1], np.ndarray))
            if between is not None:
                features = self._run_apart(page, told, cancellation, between)
                if features is not None:
                    return features
            whole = self._engine.encode(page.pixels, cancellation)
            told("vision", views, views)
            return whole

    def _run_apart(
        self,
        page: PreparedPage,
        told: Progress,
        cancellation: Cancellation | None,
        between: Callable[[], None],
    ) -> Features | None:
        """View after view; None if the engine keeps the features of one call only."""
        parts = []
        for view in range(len(page.pixels)):
            if view:
                between()
            features = self._engine.encode(page.pixels[view : view + 1], cancellation)
            if not isinstance(features, np.ndarray):
                return None
            parts.append(features)
            told("vision", 1, len(page.pixels))
        return np.concatenate(parts)


def _nobody(_stage: str, _amount: int, _total: int) -> None:
    """Nobody is told."""
