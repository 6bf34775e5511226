"""A lazy answer, as its readers see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from pulse_edge.answer import Answer, Request
from pulse_edge.decode.logprobs import TokenLogprob
from pulse_edge.delivery import Delivery
from pulse_edge.errors import PulseEdgeError

_T = TypeVar("_T")


class Stream:
    """A lazy answer: nothing runs before it is read.

    Iterate for text, or take `.answer`. The model works ahead of the reader, who may be slow, pause
    or leave: other requests do not wait for a reader. A stream that is closed or dropped is
    cancelled within one token; before the first one, on a CPU in the midst of the vision tower or
    of a prefill chunk, on a GPU after the call that runs.

    Any thread may begin, read or close it, and several at a time: each piece of text goes to one of
    its readers. The first to read decodes the page in its own thread.
    """

    def __init__(
        self, request: Request, begin: Callable[[Request, Delivery], None], delivery: Delivery
    ) -> None:
        self.delivery = delivery
        self.request = request
        self._begin: Callable[[Delivery], None] | None = partial(begin, request)
        self._received: list[tuple[int, str]] = []

    @property
    def text(self) -> str:
        """What was received so far."""
        return "".join(piece for _, piece in sorted(self._received))

    def logprobs(self, start: int = 0) -> list[TokenLogprob]:
        """Log-probabilities of the tokens so far, if `GenerationParams.logprobs` asks for them.

        The model works ahead of the reader, so they may be ahead of the text that was received.

        Args:
            start: how many to leave out, such as those of earlier calls.
        """
        return self.delivery.out.logprobs[start:]

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The next piece of text, as soon as it is certain. Raises what the request raises."""
        if self.delivery.cancelled:
            raise StopIteration
        piece = self._receive()
        if piece is None:
            self._raise_error()
            raise StopIteration
        return piece

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Cancel. From any thread, and without waiting; no effect once the end was read."""
        self.delivery.cancel()

    @property
    def answer(self) -> Answer:
        """The whole answer; waits for it. A cancelled one has `finish_reason` "cancelled".

        Raises:
            PulseEdgeError: the stream was closed before the request's turn came, or has failed.
            Exception: whatever the request raises, with its type (see `Model.ask`), once.
        """
        if self.delivery.begun or not self.delivery.cancelled:
            self._wait(self.delivery.wait)
            while self._receive() is not None:
                pass
            self._raise_error()
        if self.delivery.answer is None:
            raise PulseEdgeError("this answer was closed before it began, or failed")
        return self.delivery.answer

    def _receive(self) -> str | None:
        piece = self._wait(self.delivery.receive)
        if piece is None:
            return None
        self._received.append(piece)
        return piece[1]

    def _wait(self, wait: Callable[[], _T]) -> _T:
        """Begin the request and wait; close the stream if that is interrupted, as by Ctrl-C."""
        try:
            begin = self._begin
            if begin is not None:
                self.delivery.begin(begin, aside=self.request.terms.deadline is not None)
                self._begin = None  # it holds the model
            return wait()
        except BaseException:
            self.close()
            raise

    def _raise_error(self) -> None:
        error = self.delivery.take_error()
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame, which would hold it in turn
