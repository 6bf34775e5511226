"""An audit log that is written: a file that several threads and processes may share.

It is written only where somebody asks for it. Each line is flushed to the disk before its answer is
given out. If a line cannot be written, the answer is withheld: a log with gaps proves nothing.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_edge.audit.record import (
    ANSWER,
    BEGUN,
    FORMAT,
    LONGEST_LINE,
    NOTHING,
    RESUMED,
    answer_record,
    audit_line,
    hash_of_line,
    hash_of_rest,
    parse_line,
    parse_object,
)
from pulse_edge.configuration import configurations
from pulse_edge.errors import AuditError

if TYPE_CHECKING:
    from pulse_edge.answer import Answer

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LARGEST_LOG = 1 << 26  # bytes; a larger one is renamed, and a new one goes on from its last line
BEGINNING = b'{"previous":"'
TAIL = 4 * LONGEST_LINE  # bytes at the end of a file that are searched for its last whole line


class AuditLog:
    """A log file.

    Args:
        path: of the log. It is made if it does not exist; its folder must.
        largest: bytes of a file, over which the log goes on in a new one.
        clock: the time of a line.

    Raises:
        AuditError: the file cannot be written, or is something else than an audit log.
    """

    def __init__(
        self,
        path: str | Path,
        largest: int = LARGEST_LOG,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if fcntl is None:
            raise AuditError(f"{path}: an audit log needs a system with flock, such as Linux")
        self.path = Path(path)
        self._largest = largest
        self._clock = clock
        with self._locked() as number:
            if _last_whole_line(self.path, number)[0] is None:
                self._begin(number)

    def append(self, answer: Answer) -> str:
        """Record an answer. It is on the disk when this returns.

        Args:
            answer: finished or cancelled.

        Returns:
            The hash of its line: the head of the log.

        Raises:
            AuditError: the line cannot be written. The answer must be withheld.
        """
        record = answer_record(answer)
        with self._locked() as number:
            if os.fstat(number).st_size > self._largest:
                self._rotate(number)
            previous, before = self._continued(number)
            line = audit_line(self._event(ANSWER, previous) | record)
            self._write(number, before + line)
        return hash_of_line(line)

    def _event(self, event: str, previous: str) -> dict[str, Any]:
        time = self._clock().astimezone(UTC).isoformat(timespec="milliseconds")
        record = {"previous": previous, "event": event, "time": time}
        return record | {"format": FORMAT} if event == BEGUN else record

    def _begin(self, number: int) -> str:
        """Write the first line, over what a crash has left of one. Returns its hash."""
        os.ftruncate(number, 0)
        line = audit_line(self._event(BEGUN, NOTHING))
        self._write(number, line)
        return hash_of_line(line)

    def _continued(self, number: int) -> tuple[str, bytes]:
        """The hash that the next line has to name, and the bytes to write before that line."""
        last, rest = _last_whole_line(self.path, number)
        if last is None:
            return self._begin(number), b""
        if not rest:
            return hash_of_line(last), b""
        if parse_line(rest + b"\n"):  # nothing but its end was lost
            return hash_of_line(rest), b"\n"
        resumed = self._event(RESUMED, hash_of_line(last)) | {"cut_short": hash_of_rest(rest)}
        line = audit_line(resumed)
        return hash_of_line(line), (b"" if rest.endswith(b"\n") else b"\n") + line

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """A descriptor of the file that the path names, which nobody else writes meanwhile."""
        try:
            while True:
                number = _open_log(self.path)
                try:
                    fcntl.flock(number, fcntl.LOCK_EX)
                    # Another process may have renamed the file while this one waited for it.
                    if _is_named(self.path, number):
                        _check_beginning(self.path, number)
                        yield number
                        return
                finally:
                    os.close(number)
        except OSError as error:
            raise AuditError(
                f"{self.path}: the audit log cannot be written ({error.strerror}), so no answer "
                "is given; make room, or permit writing"
            ) from None

    def _write(self, number: int, content: bytes) -> None:
        """Append bytes and flush them to the disk. What is written in part is taken back."""
        size = os.fstat(number).st_size
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(number, rest) :]
            os.fsync(number)
        except BaseException:  # also Ctrl-C
            with suppress(OSError):
                os.ftruncate(number, size)
            raise
        if size == 0:
            _flush(self.path.parent)

    def _rotate(self, number: int) -> None:
        """Give the file another name, and make `number` a new one that continues it.

        Where that is not possible, the file goes on growing. The new file is locked before it takes
        the old one's place at once, so no process finds the name free, or the new file unlocked.
        """
        last, rest = _last_whole_line(self.path, number)
        if last is None or rest:
            return
        staged = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fresh = os.open(staged, flags, 0o600)
        except OSError:
            return
        try:
            fcntl.flock(fresh, fcntl.LOCK_EX)
            self._write(fresh, audit_line(self._event(BEGUN, hash_of_line(last))))
            _keep_as_numbered(self.path)
            os.rename(staged, self.path)
            os.dup2(fresh, number, inheritable=False)
        except OSError:
            with suppress(OSError):
                os.unlink(staged)
            return
        finally:
            os.close(fresh)
        _flush(self.path.parent)


def audit_logs(path: str | Path | None = None) -> tuple[AuditLog, ...]:
    """The logs that the caller and the device's configuration name, each once.

    Args:
        path: the caller's; None for none.

    Raises:
        AuditError: one cannot be written.
        TrustError: the configuration cannot be read.
    """
    named = [Path(path).absolute()] if path is not None else []
    named += [rules.audit for rules in configurations() if rules.audit is not None]
    return tuple(AuditLog(place) for place in dict.fromkeys(named))


def _open_log(path: Path) -> int:
    """Raises `AuditError` unless it is a regular file, and no link to one."""
    if path.is_symlink():
        raise AuditError(f"{path}: a symbolic link; name the audit log itself")
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    number = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise AuditError(f"{path}: not a regular file, so no audit log")
    return number


def _is_named(path: Path, number: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(number))
    except FileNotFoundError:
        return False


def _check_beginning(path: Path, number: int) -> None:
    """Raise `AuditError` if a file holds something else than a log; it may be empty."""
    if not BEGINNING.startswith(os.pread(number, len(BEGINNING), 0)):
        raise AuditError(f"{path}: not an audit log, so nothing is written; name another file")


def _last_whole_line(path: Path, number: int) -> tuple[bytes | None, bytes]:
    """The last whole line, and what a crash has left after it; None if there is no whole line.

    Raises:
        AuditError: the end is nothing that a crash leaves.
    """
    size = os.fstat(number).st_size
    tail = os.pread(number, TAIL, max(0, size - TAIL))
    rest = b""
    for line in reversed(tail.splitlines(keepends=True)):
        if parse_line(line):
            return line, rest
        if line.endswith(b"\n") and parse_object(line) is not None:
            break  # a crash cuts lines, and what is cut is no object
        rest = line + rest
    else:
        if size <= TAIL:
            return None, rest
    raise AuditError(
        f"{path}: its end was altered, so nothing is added; keep it as it is, and name another file"
    )


def _keep_as_numbered(path: Path) -> None:
    """Give a file a second name, `NAME.1` or the next number that is free."""
    pattern = re.compile(re.escape(path.name) + r"\.(\d{1,9})")
    numbers = [int(m[1]) for name in os.listdir(path.parent) if (m := pattern.fullmatch(name))]
    newest = max(numbers, default=0)
    if newest and os.path.samestat(os.lstat(f"{path}.{newest}"), os.lstat(path)):
        return  # a crash came between this and the rename
    os.link(path, f"{path}.{newest + 1}")


def _flush(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
