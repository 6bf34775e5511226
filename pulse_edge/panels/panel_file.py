"""Panel files: TOML, read strictly, because what is misspelt would change a panel."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pulse_edge.assets import PANELS
from pulse_edge.errors import ParameterError
from pulse_edge.guarded import open_regular, read_upto, reason
from pulse_edge.panels.panel import FORMS, Panel, PanelQuestion
from pulse_edge.panels.reading import normalised

SCHEMA = "pulse-edge/panel/1"
DEFAULT = "resting-12-lead"
LARGEST_PANEL = 1 << 16  # bytes
MOST_QUESTIONS = 64
MOST_OPTIONS = 32
LONGEST_QUESTION = 2000  # characters
LONGEST_OPTION = 200
LONGEST_REPLY = 1024  # tokens
_ID = re.compile("[a-z0-9][a-z0-9-]{0,63}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Check = Callable[[str, Any], Any]  # place and value -> the value, or a ParameterError


def shipped_panels() -> tuple[str, ...]:
    """Names of the panels that come with the package."""
    return tuple(sorted(path.stem for path in PANELS.glob("*.toml")))


def load_panel(source: str | Path) -> Panel:
    """A panel by its name, or from a file.

    Args:
        source: the name of a panel of the package, or the path of a file.

    Raises:
        ParameterError: there is no such panel, or its file is none.
    """
    if isinstance(source, str) and source in shipped_panels():
        source = PANELS / f"{source}.toml"
    try:
        with open_regular(source) as file:
            raw = read_upto(file, LARGEST_PANEL + 1)
    except FileNotFoundError:
        names = ", ".join(shipped_panels())
        raise ParameterError(
            f"panel {str(source)!r:.200} is neither a file nor one of {names}"
        ) from None
    except (OSError, ValueError) as error:
        raise ParameterError(f"panel {str(source)!r:.200}: {reason(error)}") from None
    if len(raw) > LARGEST_PANEL:
        raise ParameterError(f"panel {str(source)!r:.200}: over {LARGEST_PANEL:,} bytes")
    return parse_panel(raw, str(source))


def default_panel(checkpoint: str) -> Panel:
    """The panel for a model if no other is named.

    Args:
        checkpoint: the name of the bundle's checkpoint. A panel of the package that is for it goes
            before the general one.
    """
    panels = [load_panel(name) for name in shipped_panels()]
    return next((panel for panel in panels if panel.checkpoint == checkpoint), load_panel(DEFAULT))


def parse_panel(raw: bytes, where: str) -> Panel:
    """A panel from the bytes of its file.

    Args:
        raw: TOML in UTF-8.
        where: the file's name, for messages.

    Raises:
        ParameterError: the file is no panel. The message names the place.
    """
    try:
        table = tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"{where}: not valid TOML ({error}); correct it") from None
    schema = table.pop("schema", None)
    if schema != SCHEMA:
        raise ParameterError(f"{where}: schema is {schema!r:.60}; expected {SCHEMA!r}")
    fields = _checked_fields(where, table, _PANEL, {"name", "title", "questions"})
    return Panel(**fields)


def _checked_fields(
    where: str, table: Any, checks: dict[str, Check], required: set[str]
) -> dict[str, Any]:
    """The checked fields of a table, which may have no others and lacks none that is required."""
    if not isinstance(table, dict):
        raise ParameterError(f"{where}: {table!r:.60} is not a table")
    unknown = sorted(table.keys() - checks.keys())
    if unknown:
        raise ParameterError(
            f"{where}: unknown key {unknown[0]!r:.60}; there are {', '.join(checks)}"
        )
    missing = sorted(required - table.keys())
    if missing:
        raise ParameterError(f"{where}: no {missing[0]!r}; add it")
    return {name: checks[name](f"{where}: {name}", value) for name, value in table.items()}


def _text(longest: int) -> Check:
    def check(where: str, value: Any) -> str:
        if not isinstance(value, str) or not 1 <= len(value) <= longest:
            raise ParameterError(f"{where} is {value!r:.60}; expected 1 to {longest} characters")
        if value != value.strip() or _UNPRINTABLE.search(value):
            raise ParameterError(
                f"{where} is {value!r:.60}; it has spaces around it, or control characters"
            )
        return value

    return check


def _identifier(where: str, value: Any) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ParameterError(
            f"{where} is {value!r:.60}; expected up to 64 of a-z, 0-9 and '-', no '-' first"
        )
    return value


def _list(least: int, most: int) -> Check:
    one = _text(LONGEST_OPTION)

    def check(where: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise ParameterError(f"{where} is {value!r:.60}; expected a list of {least} to {most}")
        return tuple(one(f"{where}[{place}]", text) for place, text in enumerate(value))

    return check


def _form_name(where: str, value: Any) -> str:
    if value not in FORMS:
        raise ParameterError(f"{where} is {value!r:.60}; expected one of {', '.join(FORMS)}")
    return str(value)


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ParameterError(f"{where} is {value!r:.60}; expected true or false")
    return value


def _count(where: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LONGEST_REPLY:
        raise ParameterError(f"{where} is {value!r:.60}; expected 1 to {LONGEST_REPLY}")
    return value


def _questions(where: str, value: Any) -> tuple[PanelQuestion, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_QUESTIONS:
        raise ParameterError(f"{where}: expected 1 to {MOST_QUESTIONS} tables [[questions]]")
    questions: list[PanelQuestion] = []
    for place, table in enumerate(value):
        here = f"{where}[{place}]"
        question = PanelQuestion(**_checked_fields(here, table, _QUESTION, {"id", "ask"}))
        _check_question(here, question)
        if question.id in {other.id for other in questions}:
            raise ParameterError(f"{here}: id {question.id!r} occurs twice; give each its own")
        questions.append(question)
    return tuple(questions)


def _check_question(where: str, question: PanelQuestion) -> None:
    """Refuse fields that contradict each other."""
    options, replies = question.options, question.replies
    if not options and (question.scored or replies or question.form != "options"):
        raise ParameterError(f"{where}: a question without options has no form, replies or scores")
    if options and question.form == "options":
        listed = [option for option in options if "," in option]
        if listed:
            raise ParameterError(
                f"{where}: option {listed[0]!r} has a comma, which separates options in the prompt"
            )
    if replies and len(replies) != len(options):
        raise ParameterError(f"{where}: {len(replies)} replies for {len(options)} options")
    meanings: dict[str, int] = {}
    for place, text in (*enumerate(options), *enumerate(replies)):
        if meanings.setdefault(normalised(text), place) != place:
            raise ParameterError(f"{where}: {text!r:.60} stands for two options")


_QUESTION: dict[str, Check] = {
    "id": _identifier,
    "ask": _text(LONGEST_QUESTION),
    "options": _list(2, MOST_OPTIONS),
    "form": _form_name,
    "replies": _list(2, MOST_OPTIONS),
    "scored": _flag,
    "max_new_tokens": _count,
}
_PANEL: dict[str, Check] = {
    "name": _identifier,
    "title": _text(LONGEST_OPTION),
    "checkpoint": _text(LONGEST_OPTION),
    "refusals": _list(1, MOST_OPTIONS),
    "questions": _questions,
}
