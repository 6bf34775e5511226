"""An answers file that survives being killed at any moment, and several writers at once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pulse_edge.errors import ParameterError, PulseEdgeError
from pulse_edge.guarded import reason

try:
    import fcntl
except ImportError:  # Windows: one writer only
    fcntl = None  # type: ignore[assignment]

_ID_DIGITS = 22  # as many as upstream's random ids have


def answer_id(bundle: str, question_id: str) -> str:
    """An answer's id. The same bundle gives the same question's answer the same one in every run.

    Args:
        bundle: its seal; of a server, its model's name.
        question_id: of the item.
    """
    return hashlib.sha256(f"{bundle}\0{question_id}".encode()).hexdigest()[:_ID_DIGITS]


class AnswersFile:
    """JSON lines, one an item, each on the disk before the next one is asked.

    An unfinished last line, which a killed writer leaves, is removed. Several processes may write:
    each looks under a lock what the others have added.

    Args:
        path: of the file; it is made with its folder.

    Attributes:
        lines: the answers that are there, by question id.

    Raises:
        ParameterError: a line is no answer of ours.
        PulseEdgeError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, dict[str, Any]] = {}
        self._offset = 0
        self._number = 0  # of the last line
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise PulseEdgeError(f"{path}: cannot be opened ({reason(error)})") from None
        try:
            with self._locked():
                self._read_on()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> AnswersFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def append(self, line: Mapping[str, Any]) -> bool:
        """Add an answer and wait until the disk has it.

        Args:
            line: with `question_id`.

        Returns:
            False if another process has answered the question meanwhile.

        Raises:
            PulseEdgeError: the file cannot be written.
        """
        data = (json.dumps(line) + "\n").encode()
        try:
            with self._locked():
                self._read_on()
                if line["question_id"] in self.lines:
                    return False
                self._write(data)
                os.fsync(self._descriptor)
                self._read_on()
        except OSError as error:
            raise PulseEdgeError(
                f"{self.path}: cannot be written ({reason(error)}); run again to go on"
            ) from None
        return True

    def _write(self, data: bytes) -> None:
        os.lseek(self._descriptor, self._offset, os.SEEK_SET)
        while data:
            data = data[os.write(self._descriptor, data) :]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if fcntl is None:
            yield
            return
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _read_on(self) -> None:
        """Read what was added since, and remove an unfinished end."""
        size = os.fstat(self._descriptor).st_size
        os.lseek(self._descriptor, self._offset, os.SEEK_SET)
        parts = []
        while part := os.read(self._descriptor, 1 << 20):
            parts.append(part)
        lines = b"".join(parts).split(b"\n")
        unfinished = lines.pop()
        for at, line in enumerate(lines):
            last = at == len(lines) - 1 and not unfinished
            if not self._take(line, last):
                break
            self._offset += len(line) + 1
        if self._offset < size:
            os.ftruncate(self._descriptor, self._offset)

    def _take(self, line: bytes, last: bool) -> bool:
        """Take a line in; False if it is the last one and damaged, as a lost power leaves it."""
        self._number += 1
        if not line.strip():
            return True
        try:
            record = json.loads(line)
            question = record["question_id"]
            if not isinstance(question, str):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            if last:
                return False
            raise ParameterError(
                f"{self.path}, line {self._number}: is no answer of this command; remove the line, "
                "or name another --out"
            ) from None
        self.lines[question] = record
        return True
