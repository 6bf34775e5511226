"""`pulse-edge` on a pseudo-terminal, as a person uses it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from support.paths import PROGRAM

SECONDS = 60  # that anything may take on a busy machine
PATIENCE = 5  # seconds until Ctrl-C is pressed again
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # that a terminal obeys, and nobody sees
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


class PseudoTerminal:
    """A command whose three streams are a terminal.

    Args:
        number: descriptor of our end.
        process: of the command.

    Attributes:
        raw: all that the command has written, escape sequences among it.
    """

    def __init__(self, number: int, process: subprocess.Popen[bytes]) -> None:
        self._number = number
        self._process = process
        self._seen = 0
        self.raw = ""

    @property
    def shown(self) -> str:
        """What was written, without escape sequences."""
        return ESCAPES.sub("", self.raw)

    def type(self, text: str | bytes) -> None:
        """Type keys."""
        os.write(self._number, text.encode() if isinstance(text, str) else text)

    def interrupt(self, text: str) -> str:
        """Press Ctrl-C until that shows a text. Returns what was shown up to it.

        A signal that comes when Python has written a prompt, but does not wait for keys yet, is
        handled with the next key or signal (`readline_until_enter_or_signal` of CPython).
        """
        for _ in range(SECONDS // PATIENCE):
            self.type(CTRL_C)
            try:
                return self.until(text, PATIENCE)
            except TimeoutError:
                continue
        raise AssertionError(f"no {text!r} after Ctrl-C")

    def until(self, text: str, seconds: float = SECONDS) -> str:
        """Wait for a text after those that were waited for.

        Args:
            text: to be shown.
            seconds: to wait at most.

        Returns:
            What was shown up to it.

        Raises:
            TimeoutError: it was not shown.
        """
        deadline = time.monotonic() + seconds
        while text not in self.shown[self._seen :]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {text!r} in {self.shown[self._seen :]!r}")
            ended = self._process.poll() is not None
            if not self._read(0.2) or (ended and text not in self.shown[self._seen :]):
                raise AssertionError(f"ended without {text!r}: {self.shown[self._seen :]!r}")
        start, self._seen = self._seen, self.shown.index(text, self._seen) + len(text)
        return self.shown[start : self._seen]

    def wait(self) -> int:
        """Wait for the command's end. Returns its exit code."""
        deadline = time.monotonic() + SECONDS
        while self._process.poll() is None:
            self._read(0.05)
            assert time.monotonic() < deadline, self.shown
        while select.select([self._number], [], [], 0)[0] and self._read(0):
            pass
        return self._process.returncode

    def _read(self, seconds: float) -> bool:
        """Take what was written. Returns False at the end."""
        ready, _, _ = select.select([self._number], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self._number, 1 << 16)
        except OSError:  # how Linux tells that nobody has the other end
            return False
        self.raw += data.decode("utf-8", "replace")
        return bool(data)


@contextmanager
def pseudo_terminal(
    *arguments: object, env: Mapping[str, str] | None = None
) -> Iterator[PseudoTerminal]:
    """Run `pulse-edge` on a terminal of its own, in which Ctrl-C interrupts it.

    The command ends with the block.
    """
    ours, theirs = pty.openpty()
    # A session's first process gets the terminal that it opens as its own.
    line = 'exec "$@" <"$0" >"$0" 2>"$0"'
    words = ["bash", "-c", line, os.ttyname(theirs), PROGRAM, *arguments]
    variables = {**(os.environ if env is None else env), "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen([str(word) for word in words], env=variables, start_new_session=True)
    try:
        yield PseudoTerminal(ours, process)
    finally:
        process.kill()
        process.wait(SECONDS)
        os.close(ours)
        os.close(theirs)
