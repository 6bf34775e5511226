"""The state folder: the one place where processes leave hints for later ones.

`PULSE_EDGE_STATE` names it, or says `off`; else it is `$XDG_STATE_HOME/pulse-edge`, by default
`~/.local/state/pulse-edge`. It holds numbers under hashed keys: never text, names or paths. It is
made when something is first remembered. Where it cannot be used, this process remembers alone.

A record is a hint. It may be absent at any time, and what reads it must work without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "PULSE_EDGE_STATE"
OFF = "off"
FOLDER = "pulse-edge"


@dataclass(frozen=True)
class Kind:
    """One kind of record.

    Attributes:
        records: how many are kept; the oldest go first.
        size: most bytes of one in its file.
    """

    records: int
    size: int


# A kind is a folder of this name. What its values mean is up to the module that remembers them.
KINDS = {
    "engines": Kind(records=64, size=1024),  # measured seconds, by engine
    "rates": Kind(records=64, size=4096),  # measured speeds
    "shapes": Kind(records=64, size=4096),  # tuned launch shapes
    "verdicts": Kind(records=256, size=1024),  # results of self-checks
}
FACT = str | int | float | bool | None
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def state_folder() -> Path | None:
    """The state folder, whether it exists or not; None if nothing is to be written.

    HOME is not looked up anywhere else if it is not set: the user database may be on a network.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen:
        # A relative path would be another folder for each working directory.
        return Path(chosen) if chosen != OFF and os.path.isabs(chosen) else None
    base = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / FOLDER
    home = os.environ.get("HOME", "")
    return Path(home) / ".local" / "state" / FOLDER if os.path.isdir(home) else None


def remember(kind: str, facts: Mapping[str, FACT], value: Mapping[str, Any]) -> None:
    """Keep a value until the facts change. Nothing is raised if it cannot be written.

    Args:
        kind: one of `KINDS`.
        facts: all that the value depends on. They are hashed, and not kept.
        value: numbers, booleans, None, and lists and dictionaries of these. A dictionary's keys are
            short identifiers.

    Raises:
        ValueError: the kind is unknown, or the value is too large or is text, which is never kept.
    """
    if not _is_value(value):
        raise ValueError(f"a {kind!r} record holds numbers only, found {value!r:.60}")
    key = _key(kind, facts)
    raw = _dumps(key, value)
    if len(raw) > KINDS[kind].size:
        raise ValueError(f"a {kind!r} record has {len(raw)} bytes, over {KINDS[kind].size}")
    with _lock:
        kept = _memory.setdefault(kind, {})
        kept.pop(key, None)
        kept[key] = raw
        while len(kept) > KINDS[kind].records:
            del kept[next(iter(kept))]
    with suppress(OSError), _opened(kind, create=True) as folder:
        if folder is not None:
            _write(folder, key, raw)
            _trim(folder, KINDS[kind].records)


def recall(kind: str, facts: Mapping[str, FACT]) -> dict[str, Any] | None:
    """What was remembered under the same facts, by any process; None if there is nothing.

    Args:
        kind: one of `KINDS`.
        facts: as they were given to `remember`.

    Raises:
        ValueError: the kind is unknown.
    """
    key = _key(kind, facts)
    with suppress(OSError), _opened(kind, create=False) as folder:
        if folder is not None:
            value = _loads(key, _read(folder, key, KINDS[kind].size))
            if value is not None:
                return value
    with _lock:
        raw = _memory.get(kind, {}).get(key)
    return _loads(key, raw) if raw is not None else None


def forget() -> None:
    """Drop what this process remembers. Files stay."""
    with _lock:
        _memory.clear()


_memory: dict[str, dict[str, bytes]] = {}  # kind -> key -> record, the oldest first
_lock = threading.Lock()


def _lock_anew() -> None:
    """In a forked child, whose parent may have held the lock in another thread."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lock_anew)


def _is_value(value: Any) -> bool:
    if isinstance(value, Mapping):
        names = all(isinstance(name, str) and _NAME.fullmatch(name) for name in value)
        return names and all(map(_is_value, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_value, value))
    return value is None or type(value) in (bool, int, float)


def _key(kind: str, facts: Mapping[str, FACT]) -> str:
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    text = json.dumps([kind, dict(facts)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _dumps(key: str, value: Mapping[str, Any]) -> bytes:
    body = json.dumps(value, sort_keys=True)
    return f"{_sum(key, body)}\n{body}\n".encode("ascii")


def _loads(key: str, raw: bytes) -> dict[str, Any] | None:
    """None for a record that is damaged, or was written under another key."""
    try:
        total, body, end = raw.decode("ascii").split("\n")
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    sound = end == "" and total == _sum(key, body) and isinstance(value, dict) and _is_value(value)
    return value if sound else None


def _sum(key: str, body: str) -> str:
    """A checksum: it finds damage, not intent. Who may write here is checked instead."""
    return hashlib.sha256(f"{key}\n{body}".encode("ascii", "replace")).hexdigest()


@contextmanager
def _opened(kind: str, create: bool) -> Iterator[int | None]:
    """A descriptor of a kind's folder; None if it is absent or not only ours.

    What is remembered may steer which kernels run. So no folder is read that another user owns or
    may write to, and no link is followed from the state folder on.
    """
    root = state_folder()
    if root is None or not hasattr(os, "geteuid") or os.open not in os.supports_dir_fd:
        yield None
        return
    if create and not root.parent.is_dir():
        root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptors: list[int] = []
    try:
        for name in (root, kind):
            above = descriptors[-1] if descriptors else None
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=above)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptors.append(os.open(name, flags, dir_fd=above))
            if not _ours(os.fstat(descriptors[-1])):
                yield None
                return
        yield descriptors[-1]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _read(folder: int, key: str, size: int) -> bytes:
    """Raises `OSError` if there is no such record that is ours; empty if it is too large."""
    # O_NONBLOCK: a named pipe in its place must not be waited for.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(key, flags, dir_fd=folder)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not _ours(status):
            return b""
        raw = file.read(size + 1)
    return raw if len(raw) <= size else b""


def _write(folder: int, key: str, raw: bytes) -> None:
    """Replace a record at once.

    It is not flushed to the disk: after a power cut its checksum tells, and it is forgotten.
    """
    staged = f".{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(staged, flags, 0o600, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(raw)
        os.rename(staged, key, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(staged, dir_fd=folder)
        raise


def _trim(folder: int, most: int) -> None:
    """Remove the oldest entries over a number, left-overs of interrupted writes among them."""
    ages = []
    for name in os.listdir(folder):
        with suppress(OSError):  # another process trims, too
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            ages.append((status.st_mtime_ns, name))
    for _, name in sorted(ages)[: max(0, len(ages) - most)]:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
