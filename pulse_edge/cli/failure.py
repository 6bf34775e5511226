"""How the command says that it failed: in one line on stderr, as JSON where its output is JSON."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence

from pulse_edge.cli.terminal import one_line, show, show_error

OUTPUTS = ("-o", "--output")  # options whose value may be a JSON format
JOINED = (("-o", ""), ("--output", "="))  # how they are written in one word with the value
FORMATS = ("json", "jsonl")
# Environment variable of a child whose output is JSON because its parent, another command of ours,
# reads it: whether the parent shows errors as "text" or "json".
PARENT = "_PULSE_EDGE_ERRORS"


def wants_json(words: Sequence[str]) -> bool:
    """Whether the output was asked for as JSON, also if the arguments make no sense otherwise.

    Args:
        words: the command's arguments.
    """
    if PARENT in os.environ:
        return os.environ[PARENT] == "json"
    words = [*words]
    if "--" in words:
        words = words[: words.index("--")]
    if "--json" in words:
        return True
    forms = [f"{name}{join}{form}" for name, join in JOINED for form in FORMATS]
    pairs = itertools.pairwise(words)
    return any(word in forms for word in words) or any(
        name in OUTPUTS and form in FORMATS for name, form in pairs
    )


def show_failure(message: str, code: int, kind: str, as_json: bool) -> None:
    """Print why the command failed, in one line on stderr.

    Args:
        message: from anywhere.
        code: the exit code.
        kind: name of the error's class.
        as_json: print it as JSON: `{"error": {"code": …, "type": …, "message": …}}`.
    """
    if as_json:
        error = {"code": code, "type": kind, "message": one_line(message)}
        show(json.dumps({"error": error}), err=True)
    else:
        show_error(f"error: {message}")
