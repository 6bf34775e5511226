"""A panel for a client: by name or as a file, and cancelled between and within its questions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pulse_edge.answer import Answer
from pulse_edge.decode.scoring import OptionScore
from pulse_edge.look import Look
from pulse_edge.page.source import ImageSource
from pulse_edge.panels.panel import Panel
from pulse_edge.panels.panel_file import default_panel, load_panel, parse_panel, shipped_panels
from pulse_edge.panels.result import Result
from pulse_edge.panels.run import run_panel
from pulse_edge.serve.asking import ask_about
from pulse_edge.serve.exchange import Exchange, check_present
from pulse_edge.serve.refusals import Refusal
from pulse_edge.serve.service import Service

LEAST_SECONDS = 1e-6  # a deadline that has passed, as a number that the model takes


def choose_panel(service: Service, name: str | None, file: bytes | None) -> Panel:
    """The panel that a client wants.

    Args:
        service: whose model has a panel of its own, perhaps.
        name: of a panel of the package; a path is none, because files here are not the client's.
        file: the bytes of a panel's file.

    Raises:
        Refusal: there is no such panel.
        ParameterError: the file is no panel.
    """
    if file is not None:
        return parse_panel(file, "panel")
    if name is None:
        return default_panel(service.model.bundle.manifest.checkpoint.name)
    if name not in shipped_panels():
        raise Refusal(
            f"no such panel; there are {', '.join(shipped_panels())}; or send a panel's file",
            404, "panel_not_found", param="panel",
        )  # fmt: skip
    return load_panel(name)


def ask_panel(
    service: Service,
    exchange: Exchange,
    image: ImageSource | Look,
    panel: Panel,
    options: Mapping[str, Any],
) -> Result:
    """As `Model.panel`, which cannot be cancelled.

    Args:
        service: that answers.
        exchange: of the request.
        image: a page, a recording, or a page that was sent ahead.
        panel: the questions.
        options: `deadline_s`, `best_effort` and `priority`, as far as they are known.

    Raises:
        PulseEdgeError: as `Model.panel` does.
        ClientDisconnect: the request was cancelled.
    """
    page = _Page(service, exchange, image, dict(options))
    deadline_s = options.get("deadline_s")
    return run_panel(panel, page.ask, page.score, deadline_s=deadline_s)


class _Page:
    """The page that the questions are about. The first question looks at it."""

    def __init__(
        self,
        service: Service,
        exchange: Exchange,
        image: ImageSource | Look,
        options: dict[str, Any],
    ) -> None:
        options.pop("deadline_s", None)  # each question has what is left
        self._service = service
        self._exchange = exchange
        self._image = image
        self._options = options

    def ask(self, question: str, *, max_new_tokens: int, deadline_s: float | None) -> Answer:
        begun = time.monotonic()
        look = self._look(deadline_s)
        left = None
        if deadline_s is not None:
            left = max(LEAST_SECONDS, deadline_s - (time.monotonic() - begun))
        keywords = self._keywords(left) | {"max_new_tokens": max_new_tokens}
        return ask_about(self._service, self._exchange, look, question, keywords)

    def score(
        self, question: str, options: Sequence[str], *, deadline_s: float | None
    ) -> Sequence[OptionScore]:
        check_present(self._exchange.ticket)
        keywords = self._keywords(deadline_s)
        return self._service.model.score(self._look(None), question, options, **keywords)

    def _look(self, deadline_s: float | None) -> Look:
        if not isinstance(self._image, Look):
            check_present(self._exchange.ticket)
            keywords = {"priority": "interactive"} | self._keywords(deadline_s)
            self._image = self._service.model.look(self._image, **keywords)
            self._exchange.ticket.on_cancel(self._image.cancel)
        return self._image

    def _keywords(self, deadline_s: float | None) -> dict[str, Any]:
        return self._options | ({} if deadline_s is None else {"deadline_s": deadline_s})
