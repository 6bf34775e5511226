"""One sequence in an engine's KV cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pulse_edge.arrays import Floats
from pulse_edge.cancellation import Cancellation
from pulse_edge.engines.engine import Engine, Features
from pulse_edge.errors import ContextError, EngineError
from pulse_edge.progress import Progress
from pulse_edge.text.template import Prompt


class Sequence:
    """The slot of an engine's KV cache that requests take turns in, and the keys that it holds.

    `keys` has one entry a position: a token's id, or the page's key for each of its image tokens.
    It never claims more than the cache holds.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.keys: list[int] = []

    def rewind_to(self, prompt: Prompt) -> int:
        """Cut the cache back to what it shares with a prompt.

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
        limit = min(len(self.keys), len(keys) - 1)
        shared = next((i for i in range(limit) if self.keys[i] != keys[i]), limit)
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
    ) -> Floats:
        """Run what of a prompt is not in the cache, after `rewind_to`.

        Args:
            prompt: as given to `rewind_to`.
            features: of the page in the prompt.
            progress: told of each chunk. What it raises ends the prefill and is passed on.
            cancellation: may end the prefill.

        Returns:
            Logits float32 [vocab] after the last position; valid until the engine's next call.

        Raises:
            Cancelled: by the cancellation; the sequence is then as it was before.
            EngineError: the engine failed; the sequence is then empty.
        """
        rows = prompt.rows[len(self.keys) :]
        # Prompts show the whole page or none of it, so a suffix without features has only text.
        page = features if (rows >= self.engine.table_rows).any() else None
        try:
            embedded = self.engine.rows(rows, page)
            logits = self.engine.prefill(embedded, progress, cancellation=cancellation)
        except Exception:
            self.reset()
            raise
        self.keys = prompt.keys
        return logits

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
