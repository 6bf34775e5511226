"""Keys that clients must send: read from a file, compared without telling by time."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from pulse_edge.errors import ParameterError
from pulse_edge.guarded import read_guarded

SHORTEST = 16  # characters of a key
LARGEST_FILE = 1 << 16  # bytes


class Keys:
    """The keys of a server. Only their digests stay in memory.

    Args:
        keys: the keys; none lets everybody in.
    """

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admit(self, authorization: str) -> bool:
        """Whether a request may come in.

        Args:
            authorization: the header of that name; empty without one.
        """
        if not self._digests:
            return True
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]  # all of them
        return scheme.lower() == "bearer" and any(matches)


def read_keys(path: Path | None) -> Keys:
    """The keys of a file: one a line; empty lines and those that begin with # do not count.

    Args:
        path: of the file; None for no keys.

    Raises:
        ParameterError: it cannot be read, everyone may write to it, or a line is no key.
    """
    if path is None:
        return Keys()
    try:
        raw = read_guarded(path, LARGEST_FILE, ParameterError)
    except FileNotFoundError:
        raise ParameterError(f"{path}: no such file; write one key a line into it") from None
    try:
        lines = [line.strip() for line in raw.decode("ascii").splitlines()]
    except UnicodeDecodeError:
        raise ParameterError(f"{path}: a key has characters that are not ASCII") from None
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ParameterError(f"{path}: holds no key; write one a line into it")
    for number, line in enumerate(lines, 1):
        if line in keys and (len(line) < SHORTEST or not line.isprintable() or " " in line):
            raise ParameterError(
                f"{path}: line {number} is no key; a key has at least {SHORTEST} characters and "
                "no space; make one by 'openssl rand -hex 32'"
            )
    return Keys(keys)
