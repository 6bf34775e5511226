"""What the owner of a device lays down for every model that is loaded on it.

Two TOML files are read, if they are there: `/etc/pulse-edge.toml`, and the file that the variable
`PULSE_EDGE_CONFIG` names. Each adds rules, and neither takes one of the other away. A file that
cannot be read, or that says something unknown, stops every load: a rule that is misspelt must not
turn into no rule.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.errors import TrustError
from pulse_edge.guarded import read_guarded

VARIABLE = "PULSE_EDGE_CONFIG"
SYSTEM_FILE = Path("/etc/pulse-edge.toml")
LARGEST_FILE = 1 << 16  # bytes
SEAL = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Configuration:
    """The rules of one file.

    Attributes:
        path: of the file, for messages.
        expect: seals; a bundle must have one of them. None: any.
        trusted_keys: a folder of public keys; one of them must have signed the bundle.
        audit: an audit log; every answer is recorded there.
    """

    path: Path
    expect: tuple[str, ...] | None = None
    trusted_keys: Path | None = None
    audit: Path | None = None


def configurations() -> tuple[Configuration, ...]:
    """The rules of this device; none if it has no file of them.

    Raises:
        TrustError: a file is malformed, cannot be read, or others than its owner may write to it.
    """
    rules = []
    if os.name == "posix" and (raw := _read_rules(SYSTEM_FILE)) is not None:
        rules.append(_parse_rules(SYSTEM_FILE, raw))
    named = os.environ.get(VARIABLE, "")
    if named:
        path = Path(named)
        raw = _read_rules(path)
        if raw is None:
            raise TrustError(f"{path}: missing, and {VARIABLE} names it; write it, or unset that")
        rules.append(_parse_rules(path, raw))
    return tuple(rules)


def _read_rules(path: Path) -> bytes | None:
    """The file's bytes; None if there is no such file."""
    try:
        return read_guarded(path, LARGEST_FILE, TrustError)
    except FileNotFoundError:
        return None


def _parse_rules(path: Path, raw: bytes) -> Configuration:
    import tomllib

    try:
        table = tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise TrustError(f"{path}: not valid TOML ({error}); correct it") from None
    unknown = sorted(table.keys() - _RULES.keys())
    if unknown:
        legal = ", ".join(_RULES)
        raise TrustError(f"{path}: unknown key {unknown[0]!r:.60}; there are {legal}")
    return Configuration(
        path, **{name: _RULES[name](f"{path}: {name}", value) for name, value in table.items()}
    )


def _seals(where: str, value: Any) -> tuple[str, ...]:
    seals = value if isinstance(value, list) else [value]
    if not seals:
        raise TrustError(f"{where} lists no seal, so no bundle could be loaded")
    for seal in seals:
        if not isinstance(seal, str) or not SEAL.fullmatch(seal):
            raise TrustError(
                f"{where} has {seal!r:.80}; "
                "expected a bundle's whole seal, 64 hex digits, as 'pulse-edge info' prints it"
            )
    return tuple(seals)


def _absolute(where: str, value: Any) -> Path:
    """A relative path would be another one for each working directory."""
    if not isinstance(value, str) or "\0" in value or not os.path.isabs(value):
        raise TrustError(f"{where} is {value!r:.80}; expected an absolute path")
    return Path(value)


_RULES: dict[str, Callable[[str, Any], Any]] = {
    "expect": _seals,
    "trusted_keys": _absolute,
    "audit": _absolute,
}
