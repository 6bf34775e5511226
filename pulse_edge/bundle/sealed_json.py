"""Records as canonical JSON with a seal.

Dataclasses are written and read strictly, to the byte.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from typing import Any, Literal, TypeVar

from pulse_edge.errors import BundleError

T = TypeVar("T")


def sealed(record: T) -> T:
    """A record with its `seal` filled in."""
    blank = dataclasses.replace(record, seal="")  # type: ignore[type-var]
    return dataclasses.replace(blank, seal=hashlib.sha256(dumps(blank)).hexdigest())  # type: ignore[type-var]


def from_json(kind: Any, value: Any, where: str) -> Any:
    """A JSON value as `kind`, strictly: no missing, unknown or mistyped field.

    A field whose type is `T | None` may be left out.

    Args:
        kind: a dataclass, or a type that its fields may have.
        where: the place in the file, for the error.

    Raises:
        BundleError: the value does not fit. It names the place.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise BundleError(f"{where}: expected an object, found {value!r:.60}")
        hints = typing.get_type_hints(kind)
        optional = {name for name, hint in hints.items() if type(None) in typing.get_args(hint)}
        for problem, names in (
            ("unknown", value.keys() - hints.keys()),
            ("missing", hints.keys() - value.keys() - optional),
        ):
            if names:
                raise BundleError(f"{where}: {problem} field {', '.join(map(repr, sorted(names)))}")
        return typing.cast(Any, kind)(
            **{n: from_json(h, value[n], f"{where}.{n}") for n, h in hints.items() if n in value}
        )
    if origin in (types.UnionType, typing.Union):  # `T | None`: None is left out of the file
        return from_json(args[0], value, where)
    if origin is Literal:
        if value in args and type(value) is type(args[args.index(value)]):
            return value
        raise BundleError(f"{where}: {value!r:.60} is not one of {', '.join(map(str, args))}")
    if origin is tuple and isinstance(value, list):
        if args[-1] is Ellipsis:
            args = (args[0],) * len(value)
        if len(args) == len(value):
            return tuple(
                from_json(a, v, f"{where}[{i}]")
                for i, (a, v) in enumerate(zip(args, value, strict=True))
            )
    elif origin is dict and isinstance(value, dict):
        return {k: from_json(args[1], v, f"{where}.{k}") for k, v in value.items()}
    elif type(value) is kind:  # exact: a bool is no int here
        return value
    name = (
        getattr(kind, "__name__", kind) if not isinstance(kind, types.GenericAlias) else str(kind)
    )
    raise BundleError(f"{where}: expected {name}, found {value!r:.60}")


def dumps(record: Any) -> bytes:
    """Canonical bytes of a manifest, or of another sealed record. Fields that are None are left
    out."""
    fields = dataclasses.asdict(record, dict_factory=_without_none)
    return (json.dumps(fields, indent=1, ensure_ascii=True) + "\n").encode("ascii")


def _without_none(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in fields if value is not None}


def load_sealed(
    kind: type[T], raw: bytes, where: str, schema_version: int, outdated: str, remedy: str
) -> T:
    """Parse and check a sealed record.

    Args:
        raw: the file's bytes.
        where: its path, for errors.
        schema_version: the only one that is read.
        outdated: what to do about a record of another version.
        remedy: what to do about a damaged record.

    Raises:
        BundleError: the record is of another version, damaged, or not canonical.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: not valid JSON ({error}); it is damaged: {remedy}") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != schema_version:
        raise BundleError(
            f"{where}: schema version {version!r:.60}, "
            f"this pulse-edge reads {schema_version}; {outdated}"
        )
    record: T = from_json(kind, data, where)
    if dumps(record) != raw or sealed(record) != record:
        raise BundleError(f"{where}: was edited by hand or damaged; {remedy}")
    return record
