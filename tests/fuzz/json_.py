"""JSON with one value changed: to an extreme one, to one of another place, or taken away."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

WHOLE = (0, 1, -1, 2, 3, 7, 64, 255, 65_536, 2**31 - 1, 2**31, 2**63, -(2**63), 10**30)
REAL = (0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, 1e-5, 0.5, float("inf"), float("-inf"), float("nan"))
TEXT = ("", " ", "None", "fp16", "int4", "flat", "gelu", "../x", "/etc/passwd", "a\x00b", "\x1b[2J",
        "\ud800", "é", "x" * 5000, "</s>", "<image>")  # fmt: skip
Place = tuple[str | int, ...]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every place in a value, but the whole."""
    items: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(value, dict):
        items = iter(value.items())
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield (*at, key)
        yield from places(item, (*at, key))


def find(value: Any, place: Place) -> Any:
    """What is in a place."""
    for key in place:
        value = value[key]
    return value


def change(data: Any, rng: random.Random) -> tuple[Any, Place]:
    """A copy with one place changed, and the place."""
    changed = copy.deepcopy(data)
    place = rng.choice(list(places(changed)))
    holder, key = find(changed, place[:-1]), place[-1]
    kind = rng.random()
    if kind < 0.08:
        del holder[key]
    elif kind < 0.14 and isinstance(holder, dict):
        holder[f"{key}_"] = holder[key]
    elif kind < 0.20:
        holder[key] = copy.deepcopy(find(data, rng.choice(list(places(data)))))
    elif kind < 0.26:
        holder[key] = rng.choice((None, True, False, [], {}, "", 0, 0.5, [[]], {"a": 1}))
    else:
        holder[key] = other(holder[key], rng)
    return changed, place


def other(value: Any, rng: random.Random) -> Any:
    """An extreme value of the same type."""
    match value:
        case bool():
            return not value
        case int():
            return rng.choice((*WHOLE, value + 1, value - 1, 2 * value, -value))
        case float():
            return rng.choice((*REAL, value * 1.5, value / 2, -value))
        case str():
            return rng.choice((*TEXT, value + "x", value[:-1], value.upper()))
        case list():
            longer = value * rng.choice((2, 3, 1000))
            return rng.choice((value[:-1], value[1:], value[::-1], longer, [value]))
        case dict():
            return dict(list(value.items())[: len(value) // 2])
    return rng.choice((0, 1.5, "text", [], {}))
