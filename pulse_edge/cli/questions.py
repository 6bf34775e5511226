"""Questions that are typed or piped in, one a line."""

from __future__ import annotations

import sys

from pulse_edge.errors import ParameterError

LONGEST = 1 << 20  # characters of a line; no model's context takes as many
PROMPT = "> "


def typed() -> bool:
    """Whether a person types the questions, and sees the answers on the same terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def read_question() -> str | None:
    """The next line without spaces around it; None at the end of the input.

    A prompt is shown if a terminal is there to type it. A typed line without text is asked again.

    Raises:
        ParameterError: the line cannot be a question. The next call reads the line after it.
    """
    asked = typed()
    try:
        line = input(PROMPT) if asked else _piped()
        while asked and not line.strip():
            line = input(PROMPT)
    except EOFError:
        return None
    if len(line) > LONGEST:
        raise ParameterError(f"the question has over {LONGEST:,} characters; ask a shorter one")
    try:
        line.encode()
    except UnicodeEncodeError as error:  # a byte that was not decoded stands for itself
        byte = ord(line[error.start]) & 0xFF
        raise ParameterError(
            f"the question is not UTF-8: its character {error.start + 1} is byte {byte:#04x}; "
            "type it again"
        ) from None
    question = line.strip()
    if not question:
        raise ParameterError("the question is empty; type one, or Ctrl-D to end the chat")
    return question


def _piped() -> str:
    line = sys.stdin.readline(LONGEST + 2)
    if not line:
        raise EOFError
    rest = line
    while len(line) > LONGEST and rest and not rest.endswith("\n"):  # to the end of this line
        rest = sys.stdin.readline(LONGEST)
    return line
