"""`pulse-edge chat`: turns about one page."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.cli.answers import print_answer
from pulse_edge.cli.conversation import PageConversation
from pulse_edge.cli.line_editing import line_editing
from pulse_edge.cli.options import generation_options, model_options
from pulse_edge.cli.questions import read_question, typed
from pulse_edge.cli.shortage import shortage
from pulse_edge.cli.signals import signals
from pulse_edge.cli.sources import SourceReading, source_options
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show, show_error
from pulse_edge.errors import ContextError, OutputError, ParameterError, PulseEdgeError
from pulse_edge.params import GenerationParams

if TYPE_CHECKING:
    from pulse_edge.model import Model

# Command -> what /help says of it.
COMMANDS = {
    "/help": "show this list",
    "/image FILE": "begin anew, about another page or recording",
    "/page N": "begin anew, about page N of the same file",
    "/reset": "begin anew, about the same page",
    "/save FILE": "write the conversation to a new file, as JSON if its name ends in .json",
    "/quit": "end the chat, as Ctrl-D does",
}
NAMES = tuple(command.split()[0] for command in COMMANDS)
_NEEDS = {
    "/image": "the name of a file",
    "/page": "the number of a page",
    "/save": "the name of a file",
}
FIRST_TURNS_ONLY = (
    "this model was trained on first questions only: it answers follow-ups at random; "
    "/reset begins anew"
)


@click.command("chat")
@click.argument("image", type=click.Path())
@click.option(
    "--history",
    metavar="FILE",
    type=click.Path(),
    help="Remember questions in this file; they are clinical text [default: memory only].",
)
@source_options
@model_options
@generation_options
def chat_command(
    image: str,
    history: str | None,
    source_of: SourceReading,
    open_model: Callable[[], Model],
    status: Status,
    params: GenerationParams,
) -> None:
    """Talk about the ECG page IMAGE. Ctrl-C stops an answer, Ctrl-D ends the chat.

    Questions may be piped in, one a line. /help lists commands such as /image, /reset and /save.
    --page is of IMAGE; the terms of CSV also hold for tables (.csv) that /image names.
    """
    model = open_model()
    conversation = PageConversation(model, image, source_of)
    editing = line_editing(NAMES, history) if typed() else nullcontext()
    with editing:
        status.clear()
        _greet(model)
        chatting = _Chatting(conversation, status, params)
        while chatting.go_on():
            pass


def _greet(model: Model) -> None:
    manifest = model.bundle.manifest
    show(NOTICE, err=True)
    if typed():
        name = f"{manifest.checkpoint.name} {manifest.precision.name}"
        bundle = f"bundle {model.bundle.digest[:12]}"
        show(f"{name}, {bundle}. /help lists commands, Ctrl-D ends the chat.", err=True)
    if manifest.turns == "first":
        show(f"note: {FIRST_TURNS_ONLY}", err=True)


class _Chatting:
    """One line after another, until the input or the user ends it. No error does."""

    def __init__(
        self, conversation: PageConversation, status: Status, params: GenerationParams
    ) -> None:
        self._conversation = conversation
        self._status = status
        self._params = dataclasses.asdict(params)

    def go_on(self) -> bool:
        """Read one line and obey it. Returns whether to read another."""
        try:
            signals.forget()  # inside: until then a second Ctrl-C changes nothing
            self._status.clear()
            line = read_question()
            return line is not None and self._obey(line)
        except KeyboardInterrupt:
            if not typed():
                raise
            self._status.clear()
            show()
            return True
        except OutputError:  # nobody reads the answers
            raise
        except (PulseEdgeError, MemoryError, OSError) as error:
            self._status.clear()
            show_error(f"error: {_in_words(error)}")
            return True

    def _obey(self, line: str) -> bool:
        if not line.startswith("/"):
            self._answer(line)
            return True
        command, _, argument = line.partition(" ")
        if command == "/quit":
            return False
        if command not in NAMES:
            raise ParameterError(f"no command {command:.40}; there are {', '.join(NAMES)}")
        self._run(command, os.path.expanduser(argument.strip()))
        return True

    def _run(self, command: str, argument: str) -> None:
        needs = _NEEDS.get(command)
        if needs and not argument:
            raise ParameterError(f"{command} needs {needs}")
        if argument and not needs:
            raise ParameterError(f"{command} takes nothing after it; ask without the /")
        if command == "/help":
            for usage, meaning in COMMANDS.items():
                show(f"{usage:<12} {meaning}")
        elif command == "/image":
            self._conversation.show_file(argument)
            show(f"now about {argument}; the conversation begins anew")
        elif command == "/page":
            self._conversation.show_page(_page_number(argument))
            show(f"now about page {argument} of {self._conversation.image}; begun anew")
        elif command == "/reset":
            self._conversation.reset()
            show(f"the conversation about {self._conversation.image} begins anew")
        else:
            self._conversation.save(argument)
            show(f"the conversation was saved in {argument}")

    def _answer(self, question: str) -> None:
        stream = self._conversation.stream(question, self._params)
        try:
            print_answer(stream, self._status, as_it_comes=True, brief=typed())
        except KeyboardInterrupt:
            self._status.clear()
            self._conversation.keep(question, stream)
            show(" [stopped]")
        else:
            self._conversation.add(question, stream)


def _page_number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ParameterError(f"page is {text!r:.40}, but must be 1 or more")
    return int(text)


def _in_words(error: Exception) -> str:
    lack = shortage(error)
    if isinstance(error, ContextError):
        return f"{error}; in a chat, /reset begins anew"
    return lack or str(error) or type(error).__name__
