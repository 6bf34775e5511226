"""Records as JSON: what is written, and which values are taken for which types."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from pulse_edge.bundle.sealed_json import dumps, from_json, load_sealed, sealed
from pulse_edge.errors import BundleError


@dataclass(frozen=True)
class Inner:
    number: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    schema_version: int
    kind: Literal["a", "b", 1]
    pair: tuple[int, str]
    inner: Inner
    by_name: dict[str, str]
    seal: str = ""


WHOLE = sealed(Outer(1, "a", (2, "é"), Inner(3, ("x", "y")), {"k": "v"}))


def load(raw: bytes) -> Outer:
    return load_sealed(Outer, raw, "file", 1, "update", "repair")


def test_the_bytes_of_a_record() -> None:
    blank = replace(WHOLE, seal="")
    text = dumps(blank).decode("ascii")
    assert text.startswith('{\n "schema_version": 1,\n "kind": "a",\n "pair": [\n  2,\n  "\\u00e9"')
    assert text.endswith(' "seal": ""\n}\n')
    assert WHOLE.seal == hashlib.sha256(text.encode()).hexdigest()
    assert sealed(replace(blank, seal="another")) == WHOLE
    assert load(dumps(WHOLE)) == WHOLE


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 3),
        (str, ""),
        (bool, True),
        (float, 1.0),
        (Literal["a", 1], 1),
        (dict[str, str], {}),
    ],
)
def test_values_that_fit(kind: Any, value: Any) -> None:
    assert from_json(kind, value, "x") == value
    assert type(from_json(kind, value, "x")) is type(value)


def test_lists_become_tuples() -> None:
    assert from_json(tuple[int, ...], [1, 2, 3], "x") == (1, 2, 3)
    assert from_json(tuple[int, ...], [], "x") == ()
    assert from_json(tuple[int, str], [1, "a"], "x") == (1, "a")
    assert from_json(tuple[tuple[int, int], ...], [[1, 2]], "x") == ((1, 2),)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, True, "x: expected int, found True"),
        (int, 1.0, "x: expected int, found 1.0"),
        (float, 1, "x: expected float, found 1"),
        (str, None, "x: expected str, found None"),
        (str, ["a"], "x: expected str, found ['a']"),
        (Literal["a", 1], "c", "x: 'c' is not one of a, 1"),
        (Literal["a", 1], True, "x: True is not one of a, 1"),
        (Literal["a", 1], 1.0, "x: 1.0 is not one of a, 1"),
        (tuple[int, ...], {"a": 1}, "x: expected tuple[int, ...], found {'a': 1}"),
        (tuple[int, ...], "ab", "x: expected tuple[int, ...], found 'ab'"),
        (tuple[int, ...], [1, "a"], "x[1]: expected int, found 'a'"),
        (tuple[int, str], [1], "x: expected tuple[int, str], found [1]"),
        (tuple[int, str], [1, "a", 2], "x: expected tuple[int, str], found [1, 'a', 2]"),
        (dict[str, str], ["a"], "x: expected dict[str, str], found ['a']"),
        (dict[str, str], {"a": 1}, "x.a: expected str, found 1"),
        (Inner, [], "x: expected an object, found []"),
        (Inner, None, "x: expected an object, found None"),
        (Inner, {}, "x: missing field 'names', 'number'"),
        (Inner, {"number": 1, "names": [], "a": 1, "b": 2}, "x: unknown field 'a', 'b'"),
        (Inner, {"number": 1, "names": [1]}, "x.names[0]: expected str, found 1"),
    ],
)
def test_values_that_do_not_fit(kind: Any, value: Any, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        from_json(kind, value, "x")
    assert str(caught.value) == message


def spaced(raw: bytes) -> bytes:
    return raw.replace(b'"kind": ', b'"kind":  ')


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (spaced(dumps(WHOLE)), "file: was edited by hand or damaged; repair"),
        (dumps(replace(WHOLE, kind="b")), "file: was edited by hand or damaged; repair"),
        (dumps(replace(WHOLE, seal="0" * 64)), "file: was edited by hand or damaged; repair"),
        (dumps(WHOLE) + b"\n", "file: was edited by hand or damaged; repair"),
        (b"{", "file: not valid JSON (Expecting property name enclosed in double quotes"),
        (b"[" * 200_000, "file: not valid JSON ("),
        (b"[]", "file: schema version None, this pulse-edge reads 1; update"),
        (
            dumps(sealed(replace(WHOLE, schema_version=2))),
            "file: schema version 2, this pulse-edge reads 1; update",
        ),
        (json.dumps({"schema_version": 1}).encode(), "file: missing field 'by_name', 'inner', "),
    ],
    ids=range(9),
)
def test_records_that_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        load(raw)
    assert str(caught.value).startswith(message)
