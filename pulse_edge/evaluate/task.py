"""What an evaluation task is. A new one is a file here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

ReplyT = TypeVar("ReplyT")
ScoresT = TypeVar("ScoresT")


class Ask(Protocol):
    """A model as a function."""

    def __call__(self, image: Any, question: str, turns: Sequence[tuple[str, str]] = ()) -> str:
        """The answer's text.

        Args:
            image: as `Model.ask` takes it.
            question: about it.
            turns: questions and answers that went before.
        """
        ...


class Task(Protocol[ReplyT, ScoresT]):
    """Cases, what is asked about each, and how answers become scores.

    A task knows nothing of the runtime. Cases run in processes, so a task and its replies are
    pickled; a case is named by its number, and made in the process that asks it.
    """

    @property
    def max_new_tokens(self) -> int:
        """Where an answer is cut off; no right one is longer."""
        ...

    def cases(self) -> Sequence[int]:
        """The numbers of all cases, in the order in which they are asked."""
        ...

    def ask(self, case: int, models: Sequence[Ask]) -> ReplyT:
        """Ask every model all questions of a case, one model after the other, page by page, so that
        a runtime can keep the page it has read."""
        ...

    def score(self, replies: Iterable[ReplyT]) -> list[ScoresT]:
        """The scores of each model, in the order in which `ask` had them."""
        ...

    def report(self, names: Sequence[str], scores: list[ScoresT]) -> dict[str, Any]:
        """JSON-ready. `names`: of the models."""
        ...

    def table(self, report: dict[str, Any]) -> str:
        """A report for people, a column for each model."""
        ...
