"""The judge's instructions: a file of the user, ours or the authors' `prompts.py`."""

from __future__ import annotations

import ast
import json
from pathlib import Path

from pulse_edge.errors import ParameterError
from pulse_edge.guarded import open_regular, read_upto, reason

MOST_PROMPTS = 1 << 20  # bytes of a prompts file
KEYS = ("report", "arena")
FORM = '{"report": "…", "arena": "…"}'
# What the authors' file calls them; one name has a slip.
_AUTHORS = {
    "report_eval_prompt": "report",
    "arena_eval_prompt": "arena",
    "arean_eval_prompt": "arena",
}


def read_prompts(path: Path) -> dict[str, str]:
    """Instructions of the judge, by what is judged.

    Args:
        path: JSON file `{"report": "…", "arena": "…"}`, one of them or both; or a `.py` file that
            assigns texts to the authors' names. The latter is parsed, never run.

    Raises:
        ParameterError: it is neither.
    """
    try:
        with open_regular(path) as file:
            text = read_upto(file, MOST_PROMPTS).decode("utf-8-sig")
        prompts = _assigned(text) if path.suffix == ".py" else json.loads(text)
    except OSError as error:
        raise ParameterError(f"{path}: cannot be read ({reason(error)})") from None
    except (ValueError, SyntaxError, RecursionError):
        raise ParameterError(f"{path}: cannot be parsed; it has to be JSON {FORM}") from None
    if not isinstance(prompts, dict) or not prompts or not set(KEYS).issuperset(prompts):
        raise ParameterError(f"{path}: holds other keys than {FORM}, or none")
    if not all(isinstance(each, str) and each.strip() for each in prompts.values()):
        raise ParameterError(f"{path}: holds a prompt that is no text; it has to be {FORM}")
    return prompts


def _assigned(text: str) -> dict[str, str]:
    prompts = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            key = _AUTHORS.get(node.targets[0].id)
            said = node.value.value if isinstance(node.value, ast.Constant) else None
            if key and isinstance(said, str):
                prompts[key] = said
    return prompts
