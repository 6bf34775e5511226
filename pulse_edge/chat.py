"""Turns about one page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pulse_edge.answer import Answer, Request
from pulse_edge.delivery import Delivery
from pulse_edge.errors import ParameterError
from pulse_edge.page.preparation import PendingPage
from pulse_edge.params import GenerationParams, Priority, Terms
from pulse_edge.stream import Stream
from pulse_edge.text.template import PromptBuilder


class Chat:
    """A conversation about one page. `Model.chat` makes it.

    A turn is part of the conversation once it was read to its end. One that raises, or is closed or
    dropped before, is not. Of a turn that a stop string has ended, the conversation keeps what
    comes before the stop string: later turns see `Answer.text`, not what was cut off.
    """

    def __init__(
        self,
        template: PromptBuilder,
        page: PendingPage | None,
        start: Callable[[Request], Stream],
        turns: Iterable[tuple[str, str]] = (),
    ) -> None:
        self._template = template
        self._page = page
        self._start = start
        self._ids: list[int] = []
        self._prompt = ""
        self._last: tuple[Request, Delivery] | None = None  # not the stream, which it would hold
        for question, answer in turns:
            ids, prompt = self._next(question)
            said = template.given_answer(answer)
            self._ids = [*ids, *said]
            self._prompt = prompt + template.answer_text(said)

    def ask(
        self,
        question: str,
        *,
        timeout: float | None = None,
        deadline_s: float | None = None,
        best_effort: bool = False,
        priority: Priority = "interactive",
        **params: Any,
    ) -> Answer:
        """The next turn's answer. Takes and raises what `Model.ask` does."""
        return self._stream(
            question, Terms(timeout, deadline_s, best_effort, priority), params
        ).answer

    def stream(
        self,
        question: str,
        *,
        timeout: float | None = None,
        deadline_s: float | None = None,
        best_effort: bool = False,
        priority: Priority = "interactive",
        **params: Any,
    ) -> Stream:
        """The next turn, lazily.

        Args:
            question: not empty.
            timeout: see `Model.ask`, as all others.
            deadline_s: for everything.
            best_effort: whether a predicted miss is run.
            priority: of the turn.
            params: fields of `GenerationParams`.

        Raises:
            ParameterError: a parameter is wrong, or the turn before is still being read.
        """
        return self._stream(question, Terms(timeout, deadline_s, best_effort, priority), params)

    def _stream(self, question: str, terms: Terms, params: dict[str, Any]) -> Stream:
        self._settle()
        ids, prompt = self._next(question)
        options = GenerationParams.of(params)
        request = Request(tuple(ids), prompt, self._page, options, terms)
        stream = self._start(request)
        self._last = request, stream.delivery
        return stream

    def _next(self, question: str) -> tuple[list[int], str]:
        """The conversation with a question more, as ids and as text."""
        template = self._template
        if self._ids:
            ids = self._ids + template.next_turn(question)
            return ids, f"{self._prompt}{template.end}{template.turn_text(question)}"
        shown = self._page is not None
        return template.first_turn(question, shown), template.text(question, shown)

    def _settle(self) -> None:
        """Take the last turn into the conversation."""
        if self._last is None:
            return
        request, delivery = self._last
        if delivery.begun and not delivery.read and not delivery.cancelled:
            raise ParameterError(
                "the turn before is still being streamed; finish or close it first"
            )
        answer = delivery.answer
        if answer is not None and not delivery.cancelled:
            self._add(request, self._template.answer(answer.token_ids, request.params.stop))
        self._last = None

    def _add(self, request: Request, said: list[int]) -> None:
        """Take a turn into the conversation."""
        self._ids = [*request.ids, *said]
        self._prompt = request.prompt + self._template.answer_text(said)

    def ask_ids(self, ids: Sequence[int], prompt: str, **params: Any) -> Answer:
        """The answer to a prompt of token ids about this page. It is no turn of the conversation.

        Args:
            ids: of the whole prompt, with `text.template.IMAGE` in the page's place.
            prompt: the same as text, for provenance.
            params: fields of `GenerationParams`.

        Raises:
            PulseEdgeError: see `Model.ask`.
        """
        self._settle()
        options = GenerationParams.of(params)
        return self._start(Request(tuple(ids), prompt, self._page, options)).answer

    def keep(self, said: str) -> None:
        """Take the last turn into the conversation although its stream was closed before the end.

        Args:
            said: what the conversation keeps of its answer, such as the text that a reader has
                seen. If it is empty the turn is dropped, as without this call.

        Raises:
            ParameterError: the turn is still being streamed.
        """
        last = self._last
        closed = last is not None and last[1].cancelled
        self._settle()
        if last is not None and closed and said.strip():
            self._add(last[0], self._template.given_answer(said))
