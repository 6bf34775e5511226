"""One sequence in an engine's KV cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pulse_edge.arrays import Floats
from pulse_edge.cancellation import Cancellation
from pulse_edge.decode.kept import KeptCaches, shared_length
from pulse_edge.engines.engine import Engine, Features
from pulse_edge.errors import ContextError, EngineError
from pulse_edge.progress import Progress
from pulse_edge.text.template import Prompt


@dataclass(frozen=True)
class Pieces:
    """A prefill in pieces, between which it may stop. What was done until then is kept.

    Args:
        rows: of a piece.
        between: is called between two pieces. What it raises ends the prefill.
    """

    rows: int
    between: Callable[[], None]


class Sequence:
    """A slot of an engine's KV cache that requests take turns in, and the keys that it holds.

    `keys` has one entry a position: a token's id, or the page's key for each of its image tokens.
    It never claims more than the cache holds.

    Args:
        engine: whose slot it is.
        kept_bytes: most memory for copies of pages that had to leave the slot.
        kept: the copies, if several sequences share them.
        slot: the slot's number, by which other sequences copy from it.
    """

    def __init__(
        self,
        engine: Engine,
        kept_bytes: int = 0,
        kept: KeptCaches | None = None,
        slot: int = 0,
    ) -> None:
        self.engine = engine
        self.kept = KeptCaches(engine, kept_bytes) if kept is None else kept
        self.slot = slot
        self.keys: list[int] = []

    def known(self, keys: list[int]) -> int:
        """Positions of a prompt that need not be computed. Any thread may ask; it is a guess."""
        shared = max(shared_length(self.keys, keys), self.kept.best(keys)[1])
        return min(shared, len(keys) - 1)

    @property
    def page_end(self) -> int:
        """Positions up to the end of the page that it holds; 0 without a page."""
        return _page_end(self.keys)

    def rewind_to(self, prompt: Prompt, others: Collection[Sequence] = ()) -> int:
        """Cut the cache back to what it shares with a prompt.

        A page that must leave the cache for that is copied, if there is room. What shares more with
        the prompt comes back from a copy, or is copied from another slot.

        Args:
            prompt: that will be prefilled.
            others: sequences in other slots of the engine.

        Returns:
            Positions that are shared: fewer than the prompt has, because the last one must run to
            give logits.

        Raises:
            ContextError: the cache cannot hold the prompt and one token more.
        """
        keys = prompt.keys
        capacity = self.engine.capacity
        if len(keys) >= capacity:
            image = prompt.image_tokens
            raise ContextError(
                f"the prompt is {len(keys)} tokens ({image} of the image, {len(keys) - image} of "
                f"text) and the context {capacity}, which must hold at least one token more; "
                "shorten the question or the chat"
            )
        last = len(keys) - 1
        shared = min(shared_length(self.keys, keys), last)
        kept, more = self.kept.best(keys)
        page = self.page_end
        if shared < page:
            self.kept.keep(self.keys[:page], self.engine)
        if kept is not None and min(more, last) > shared:
            shared = min(more, last)
            self.keys = []  # until the copy is whole
            self.kept.restore(kept, shared, self.engine)
            self.keys = keys[:shared]
        other, more = _nearest(others, keys) if self.engine.saved_size(1) else (None, 0)
        if other is not None and min(more, last) > shared:
            shared = min(more, last)
            self.keys = []
            self.engine.copy(shared, other.slot, 0)
            self.keys = keys[:shared]
        self.rewind(shared)
        return shared

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` positions."""
        # Shorten our record before the engine's. If Ctrl-C arrives between the two lines, the
        # record lists fewer tokens than the cache holds, which only costs recomputation.
        self.keys = self.keys[:length]
        self.engine.rewind(length)

    def prefill(
        self,
        prompt: Prompt,
        features: Features | None = None,
        progress: Progress | None = None,
        cancellation: Cancellation | None = None,
        pieces: Pieces | None = None,
    ) -> Floats:
        """Run what of a prompt is not in the cache, after `rewind_to`.

        Args:
            prompt: as given to `rewind_to`.
            features: of the page in the prompt, if `needs_page` says so.
            progress: told of each chunk. What it raises ends the prefill and is passed on.
            cancellation: may end the prefill.
            pieces: how it may stop early and keep what was done; None is all or nothing.

        Returns:
            Logits float32 [vocab] after the last position; valid until the engine's next call.

        Raises:
            Cancelled: by the cancellation; the sequence is then as it was before its last piece.
            EngineError: the engine failed; the sequence is then empty.
        """
        rows = prompt.rows[len(self.keys) :]
        size = pieces.rows if pieces else len(rows)
        for start in range(0, len(rows), size):
            if pieces and start:
                pieces.between()
            part = rows[start : start + size]
            # Prompts show the whole page or none of it, so rows without features are only text.
            page = features if (part >= self.engine.table_rows).any() else None
            told = _of_all(progress, start, len(rows)) if progress else None
            try:
                embedded = self.engine.rows(part, page)
                logits = self.engine.prefill(embedded, told, cancellation=cancellation)
            except Exception:
                self.reset()
                raise
            self.keys = prompt.keys[: len(self.keys) + len(part)]
        return logits

    def needs_page(self, prompt: Prompt) -> bool:
        """Whether `prefill` will read the page's features."""
        return bool((prompt.rows[len(self.keys) :] >= self.engine.table_rows).any())

    @contextmanager
    def appending(self, tokens: list[int]) -> Iterator[None]:
        """Decode inside; on exit the keys are the prompt and what the cache holds of `tokens`.

        The sequence is empty after an exception: what it left in the cache may be NaN.
        """
        try:
            yield
        except BaseException:
            self.reset()
            raise
        self.keys = (self.keys + tokens)[: self.engine.length]

    def reset(self) -> None:
        """Empty the slot after a failure, also of what lies beyond its length."""
        self.keys = []
        with suppress(EngineError):  # the error on its way says more
            self.engine.reset()


def _nearest(others: Collection[Sequence], keys: list[int]) -> tuple[Sequence | None, int]:
    """The sequence that shares most with a prompt, and how many positions it shares."""
    shares = [(shared_length(other.keys, keys), other) for other in others]
    if not shares:
        return None, 0
    shared, other = max(shares, key=lambda share: share[0])
    return other, shared


def _page_end(keys: list[int]) -> int:
    """Positions up to the end of the page in them; 0 without a page."""
    return next((i for i in range(len(keys), 0, -1) if keys[i - 1] < 0), 0)


def _of_all(progress: Progress, done: int, total: int) -> Progress:
    """Tells a piece's progress as that of the whole prefill, whose first `done` rows are done."""

    def tell(stage: str, step: int, _: int) -> None:
        if step or not done:
            progress(stage, step, total)

    return tell
