"""A conversation of `pulse-edge chat`: its page, its turns, and how they are saved."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.errors import PulseEdgeError
from pulse_edge.page.source import read_page

if TYPE_CHECKING:
    from pulse_edge.chat import Chat
    from pulse_edge.cli.sources import SourceReading
    from pulse_edge.model import Model
    from pulse_edge.stream import Stream


@dataclass(frozen=True)
class Turn:
    """A question and what was said to it.

    Attributes:
        question: as it was asked.
        text: of the answer, or of its part that was shown before Ctrl-C.
        interrupted: whether it is a part.
        provenance: of the answer; None for a part.
    """

    question: str
    text: str
    interrupted: bool = False
    provenance: dict[str, Any] | None = None


class PageConversation:
    """Turns about one page.

    Args:
        model: answers.
        image: file of the first page.
        source_of: how it is read.

    Attributes:
        image: file of the page.
        turns: so far.

    Raises:
        ImageError: the page cannot be read.
    """

    def __init__(self, model: Model, image: str, source_of: SourceReading) -> None:
        self._model = model
        self.image = image
        self.turns: list[Turn] = []
        self._source_of = source_of
        self._options = source_of
        self._chat = self._begin(image, source_of)

    def _begin(self, image: str, source_of: SourceReading) -> Chat:
        source = source_of(image)
        read_page(source)  # a page that cannot be decoded is refused here, not by a question
        return self._model.chat(source)

    def show_file(self, image: str) -> None:
        """Begin anew, about another file. Terms of CSV hold for it if it is a table.

        Raises:
            ImageError: it cannot be read. The conversation stays as it was.
        """
        self._show(image, self._options.of_another(image))

    def show_page(self, number: int) -> None:
        """Begin anew, about a page of the same file.

        Args:
            number: from 1.

        Raises:
            PulseEdgeError: there is no such page. The conversation stays as it was.
        """
        self._show(self.image, replace(self._source_of, page=number))

    def reset(self) -> None:
        """Begin anew, about the same page. Raises `ImageError`."""
        self._show(self.image, self._source_of)

    def _show(self, image: str, source_of: SourceReading) -> None:
        self._chat = self._begin(image, source_of)
        self.image = image
        self._source_of = source_of
        self.turns = []

    def stream(self, question: str, params: dict[str, Any]) -> Stream:
        """The answer to the next question, which `add` or `keep` then makes a turn.

        Args:
            question: not empty.
            params: fields of `GenerationParams`.
        """
        return self._chat.stream(question, **params)

    def add(self, question: str, stream: Stream) -> None:
        """A turn was read to its end."""
        answer = stream.answer
        self.turns.append(Turn(question, answer.text, provenance=answer.provenance))

    def keep(self, question: str, stream: Stream) -> None:
        """A turn was interrupted: keep what was shown of its answer, if anything was."""
        stream.close()
        said = stream.text.strip()
        self._chat.keep(said)
        if said:
            self.turns.append(Turn(question, said, interrupted=True))

    def save(self, path: str) -> None:
        """Write the turns to a new file, as JSON if its name ends so, else as text.

        Raises:
            PulseEdgeError: there is nothing to save, or the file exists or cannot be written.
        """
        if not self.turns:
            raise PulseEdgeError("there is nothing to save yet; ask a question first")
        content = self._as_json() if Path(path).suffix.lower() == ".json" else self._as_text()
        try:
            with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
                file.write(content)
        except FileExistsError:
            raise PulseEdgeError(f"{path} exists; name another file") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise PulseEdgeError(f"{path}: cannot be written ({why}); name another file") from None

    def _as_json(self) -> str:
        turns = [
            {
                "question": turn.question,
                "text": turn.text,
                "interrupted": turn.interrupted,
                "provenance": turn.provenance,
            }
            for turn in self.turns
        ]
        record = {
            "notice": NOTICE,
            "bundle": self._model.bundle.digest,
            "image": self.image,
            "turns": turns,
        }
        return json.dumps(record, indent=2) + "\n"

    def _as_text(self) -> str:
        manifest = self._model.bundle.manifest
        lines = [
            NOTICE,
            f"model: {manifest.checkpoint.name} {manifest.precision.name}, "
            f"bundle {self._model.bundle.digest}",
            f"page: {self.image}",
        ]
        for turn in self.turns:
            end = " [stopped]" if turn.interrupted else ""
            lines += ["", f"> {turn.question}", f"{turn.text}{end}"]
        return "\n".join(lines) + "\n"
