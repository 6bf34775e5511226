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
from pulse_edge.page.source import Page, PageInput, decode_page
from pulse_edge.page.tokens import image_rows
from pulse_edge.page.views import preprocess
from pulse_edge.progress import Progress

Clock = Callable[[str], AbstractContextManager[object]]  # times the body as the stage of that name


@dataclass(frozen=True, eq=False)
class EncodedPage:
    """A page that the vision tower has seen."""

    sha256: str  # of the decoded page
    data_sha256: str | None  # of the encoded file; None when pixels were handed in
    record: dict[str, Any]  # its entry in the provenance
    features: Features  # [views, patches, hidden], in the engine's memory or on the host
    tokens: Numbers  # int64 [tokens]: rows of `Engine.rows`, in the prompt's order

    @property
    def key(self) -> int:
        """Placeholder id for this page's image tokens in the list of cached keys.

        Image tokens have no vocabulary id, so all of them get this one negative number, derived
        from the page's hash. Two prompts share a prefix only if they show the same page.
        """
        return -1 - int(self.sha256[:15], 16)


class PageEncoder:
    """Image -> decoded page -> views -> features.

    A second question about the last page does not run the tower again.
    """

    def __init__(self, spec: ModelSpec, engine: Engine) -> None:
        self._spec = spec
        self._engine = engine
        self._last: EncodedPage | None = None

    def encode(
        self,
        source: PageInput,
        clock: Clock,
        progress: Progress | None = None,
        cancellation: Cancellation | None = None,
    ) -> EncodedPage:
        """Features of a page, from memory if it is the last one.

        Args:
            source: what the caller handed in.
            clock: times the stages `decode_image`, `preprocess` and `vision`; remembered pages skip
                stages.
            progress: told ("vision", 0, views) before the tower runs. What it raises is passed on.
            cancellation: may end the tower's run.

        Raises:
            Cancelled: by the cancellation.
            ImageError: the image cannot be decoded, or is too elongated for the model.
            EngineError: the vision tower failed.
        """
        digest = source.data_sha256
        last = self._last
        if last is not None and digest is not None and last.data_sha256 == digest:
            return last
        with clock("decode_image"):
            page = decode_page(source)
        if last is not None and last.sha256 == page.sha256:  # perhaps from another kind of file
            record = last.record | {
                "format": page.format,
                "exif_orientation": page.orientation,
                "notes": list(page.notes),
            }
            self._last = dataclasses.replace(last, data_sha256=digest, record=record)
        else:
            self._last = self._encode(page, digest, clock, progress, cancellation)
        return self._last

    def forget(self) -> None:
        """Encode the next page anew, whichever it is."""
        self._last = None

    def _encode(
        self,
        page: Page,
        digest: str | None,
        clock: Clock,
        progress: Progress | None,
        cancellation: Cancellation | None,
    ) -> EncodedPage:
        with clock("preprocess"):
            pixels = preprocess(page.image, self._spec)
        views = len(pixels)
        with clock("vision"):
            if progress:
                progress("vision", 0, views)
            # Forget the last page before `encode`: an engine may keep only one page's features, and
            # this call overwrites them.
            self._last = None
            features = self._engine.encode(pixels, cancellation)
            tokens = image_rows(views, page.size, self._spec, self._engine.table_rows)
        record = {
            "sha256": page.sha256,
            "width": page.size[0],
            "height": page.size[1],
            "format": page.format,
            "exif_orientation": page.orientation,
            "notes": list(page.notes),
            "views": views,
            "tokens": len(tokens),
        }
        return EncodedPage(page.sha256, digest, record, features, tokens)
