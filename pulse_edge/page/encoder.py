"""Pages as features of the vision tower. The last page is remembered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from pulse_edge.arrays import Numbers
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.cancellation import Cancellation
from pulse_edge.engines.engine import Engine, Features
from pulse_edge.page.preparation import PreparedPage
from pulse_edge.page.tokens import image_rows
from pulse_edge.progress import Progress

Clock = Callable[[str], AbstractContextManager[object]]  # times the body as the stage of that name


@dataclass(frozen=True, eq=False)
class EncodedPage:
    """A page that the vision tower has seen."""

    page: PreparedPage
    features: Features  # [views, patches, hidden], in the engine's memory or on the host
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
    """Views -> features. A second question about the last page does not run the tower again.

    Attributes:
        page: the last page that came here; None after `forget`. Any thread may read it.
    """

    def __init__(self, spec: ModelSpec, engine: Engine) -> None:
        self._spec = spec
        self._engine = engine
        self.page: PreparedPage | None = None
        self._last: EncodedPage | None = None

    def encode(
        self,
        page: PreparedPage,
        clock: Clock,
        progress: Progress | None = None,
        cancellation: Cancellation | None = None,
    ) -> EncodedPage:
        """Features of a page, from memory if it is the last one.

        Args:
            page: ready for the tower.
            clock: times the stage `vision`; the last page skips it.
            progress: told ("vision", 0, views) before the tower runs. What it raises is passed on.
            cancellation: may end the tower's run.

        Raises:
            Cancelled: by the cancellation.
            EngineError: the vision tower failed.
        """
        self.page = page
        last = self._last
        if last is not None and last.page.sha256 == page.sha256:
            self._last = dataclasses.replace(last, page=page)  # perhaps from another kind of file
        else:
            self._last = self._encode(page, clock, progress, cancellation)
        return self._last

    def forget(self) -> None:
        """Encode the next page anew, whichever it is."""
        self.page = None
        self._last = None

    def _encode(
        self,
        page: PreparedPage,
        clock: Clock,
        progress: Progress | None,
        cancellation: Cancellation | None,
    ) -> EncodedPage:
        views = len(page.pixels)
        with clock("vision"):
            if progress:
                progress("vision", 0, views)
            # Forget the last page before `encode`: an engine may keep only one page's features, and
            # this call overwrites them.
            self._last = None
            features = self._engine.encode(page.pixels, cancellation)
            tokens = image_rows(views, page.size, self._spec, self._engine.table_rows)
        return EncodedPage(page, features, tokens)
