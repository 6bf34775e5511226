"""Runs items one after the other, each as a process of its own.

What hangs, crashes or runs out of memory costs its own time and nothing else.

The schedule: an item that makes what others need (`Item.background`) runs behind the others. Until
it has ended, items without needs run: the GPU is not idle. Then the first in the table is next.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks.gpu import emit, layout
from benchmarks.gpu.items import PRODUCT, SKIPPED, Item
from benchmarks.gpu.layout import Layout, Recorder, Status
from pulse_edge.privacy import silent_variables

MARK = "PULSE_EDGE_GPU_RUN"  # environment variable that all descendants of an item inherit
SHARE = 1 / 3  # of its limit that an item must have left to be started
POLL = 0.05  # seconds
DEATH = 5.0  # seconds that a killed process is given to go; one that hangs in a driver may stay
TAIL = 15  # lines of stderr, else of stdout, that an item line keeps of an item that failed
OFFLINE = silent_variables() | {"PIP_NO_INDEX": "1"}
OUT_OF_MEMORY = re.compile(
    r"out of memory|MemoryError|bad_alloc|OutOfMemory|MemoryAllocation|ALLOC_FAILED"
    r"|Failed to allocate memory|Unable to allocate|Cannot allocate memory",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class End:
    """How an item ended. `cause` of what was skipped: itself, time, or needs."""

    status: Status
    seconds: float
    reason: str | None = None
    cause: str | None = None
    tail: tuple[str, ...] = ()


class Clock:
    """The minutes of a run."""

    def __init__(self, minutes: float) -> None:
        self._total = 60 * minutes
        self._start = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds."""
        return self._total - (time.monotonic() - self._start)

    @property
    def share(self) -> float:
        """Of the minutes, what is gone."""
        return 1 - self.left / self._total


class Child:
    """The process of an item. Results on stdout go to the recorder, all output to the log.

    Args:
        run: name of the run.
        limit: seconds until it is stopped.
    """

    def __init__(
        self,
        item: Item,
        plan: Layout,
        recorder: Recorder,
        run: str,
        limit: float,
    ) -> None:
        arguments = item.command(plan)
        self.item = item
        self._plan = plan
        self._recorder = recorder
        self._mark = f"{run}/{item.name}"
        self._start = time.monotonic()
        self._deadline = self._start + limit
        self._limit = limit
        self._errors: deque[str] = deque(maxlen=TAIL)
        self._chatter: deque[str] = deque(maxlen=TAIL)  # stdout that is no result
        self._results = 0
        self._said_skipped: str | None = None
        self._lock = threading.Lock()
        plan.logs.mkdir(parents=True, exist_ok=True)
        self._log = (plan.logs / f"{item.name}.log").open("ab")
        paths = (str(layout.ROOT), os.environ.get("PYTHONPATH"))
        environment = os.environ | OFFLINE | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONUNBUFFERED": "1",
            MARK: self._mark,
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=layout.ROOT,
            env=environment,
            start_new_session=True,
        )
        _offer_to_oom_killer(self._process.pid)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        streams = ((self._process.stdout, self._take), (self._process.stderr, self._keep))
        self._readers = [threading.Thread(target=self._read, args=s, daemon=True) for s in streams]
        for reader in self._readers:
            reader.start()

    def poll(self) -> End | None:
        """How it ended; None while it runs. Past its limit it is killed, with all it started."""
        code = self._process.poll()
        if code is None and time.monotonic() < self._deadline:
            return None
        return self._ended(code)

    def stop(self, reason: str) -> End:
        """End it now."""
        self._finish()
        return End("failed", self._seconds, reason)

    def _ended(self, code: int | None) -> End:
        self._finish()
        seconds = self._seconds
        tail = tuple(self._errors or self._chatter)
        for name, values in self._collected():
            self._recorder.result(self.item.name, name, values)
        if code is None:
            reason = f"stopped at its limit of {self._limit:.0f} s"
            return End("timed out", seconds, reason, tail=tail)
        if code:
            return End("failed", seconds, _reason(code, tail), tail=tail)
        if self._said_skipped is not None and self._results == 0:
            return End("skipped", seconds, self._said_skipped, cause="itself")
        return End("done", seconds)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._start

    def _finish(self) -> None:
        """Kill what is left of it, and read its output to the end."""
        left = kill_tree(self._process, self._mark)
        for reader in self._readers:
            reader.join(DEATH)
        with self._lock, suppress(OSError):
            if left and not self._log.closed:
                self._log.write(f"processes {left} did not end after SIGKILL\n".encode())
            self._log.close()

    def _collected(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Results that are in files. Reading them never fails the run."""
        if self.item.collect is None:
            return
        try:
            yield from self.item.collect(self._plan)
        except Exception as error:  # of a file that was cut short, for one
            yield "not read", {"reason": f"{type(error).__name__}: {error}"}

    def _read(self, stream: BinaryIO, use: Callable[[str], None]) -> None:
        for raw in stream:
            with self._lock:
                if self._log.closed:  # a process that could not be killed goes on writing
                    return
                with suppress(OSError):  # a full disk: results matter more
                    self._log.write(raw)
                    self._log.flush()
            use(raw.decode(errors="replace").rstrip())

    def _take(self, text: str) -> None:
        fields = emit.parse(text)
        if fields is None:
            if text.strip():
                self._chatter.append(text.strip()[:500])
            return
        name = str(fields.pop("result"))
        if name == SKIPPED:
            self._said_skipped = str(fields.get("reason"))
        else:
            self._results += 1
        if name == PRODUCT:
            self._plan.products[str(fields.get("name"))] = Path(str(fields.get("path")))
        self._recorder.result(self.item.name, name, fields)

    def _keep(self, text: str) -> None:
        if text.strip():
            self._errors.append(text.strip()[:500])


def _reason(code: int, tail: Sequence[str]) -> str:
    """Why an item failed, in a line: its last words, or the line that says that memory ran out."""
    memory = next((line for line in reversed(tail) if OUT_OF_MEMORY.search(line)), None)
    if memory is not None:
        return f"out of memory: {memory[:300]}"
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "killed (SIGKILL), as the system does where memory runs out: out of memory"
    last = tail[-1][:300] if tail else "it said nothing"
    if code < 0:
        return f"ended by {_signal_name(-code)}: {last}"
    return f"exit code {code}: {last}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def kill_tree(process: subprocess.Popen[bytes], mark: str) -> list[int]:
    """Kill a process and everything it started; the ids of what did not end.

    Descendants are found by their parents, and by the mark in their environment: those in a session
    of their own, or whose parent is gone, have it too. Without /proc only its own group is killed.
    """
    deadline = time.monotonic() + DEATH
    targets = {process.pid} if process.poll() is None else set()
    while True:
        targets = _running(targets | _descendants(process.pid) | _marked(mark))
        for pid in targets:
            _signal(pid, signal.SIGKILL)
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.poll()  # takes the zombie away
        if not targets or time.monotonic() > deadline:
            return sorted(targets)
        time.sleep(POLL)


def _offer_to_oom_killer(pid: int) -> None:
    """Where memory runs out, the system shall end the item, or what it started, not this run."""
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("500")


def _signal(pid: int, number: int) -> None:
    with suppress(OSError):
        os.kill(pid, number)


def _running(pids: set[int]) -> set[int]:
    """Those that are neither gone nor zombies."""
    return {pid for pid in pids if (_stat(pid) or ("Z", 0))[0] not in "ZX"}


def _descendants(root: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid in _processes():
        stat = _stat(pid)
        if stat is not None:
            children.setdefault(stat[1], []).append(pid)
    found: set[int] = set()
    new = children.get(root, [])
    while new:
        found.update(new)
        new = [pid for parent in new for pid in children.get(parent, []) if pid not in found]
    return found


def _marked(mark: str) -> set[int]:
    """Processes with the mark in the environment that they were started with; never this one."""
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for pid in _processes():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0"):
            found.add(pid)
    return found - {os.getpid()}


def _processes() -> Iterator[int]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    yield from (int(name) for name in names if name.isdigit())


def _stat(pid: int) -> tuple[str, int] | None:
    """State and parent of a process; None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, parent = text.rpartition(")")[2].split()[:2]  # the name before may hold anything
    return state, int(parent)


@dataclass
class Run:
    """All items of one call. `ends`: how each ended, by name."""

    items: Sequence[Item]
    plan: Layout
    recorder: Recorder
    clock: Clock
    name: str
    say: Callable[[str], None]
    ends: dict[str, End] = field(default_factory=dict)

    def __call__(self) -> dict[str, End]:
        """Run them. KeyboardInterrupt ends what runs, records it, and goes on to the caller."""
        waiting = list(self.items)
        behind: Child | None = None
        front: Child | None = None
        try:
            while waiting or behind or front:
                behind = self._settled(behind)
                front = self._settled(front)
                if front is None:
                    item = self._next(waiting, behind)
                    if item is not None:
                        waiting.remove(item)
                        child = self._start(item)
                        if item.background:
                            behind = child
                        else:
                            front = child
                        continue
                time.sleep(POLL)
        except KeyboardInterrupt:
            for child in (front, behind):
                if child is not None and child.item.name not in self.ends:
                    self._record(child.item, child.stop("interrupted"))
            # The interrupt may have come while one was being started.
            for pid in {pid for item in self.items for pid in _marked(f"{self.name}/{item.name}")}:
                _signal(pid, signal.SIGKILL)
            raise
        return self.ends

    def _next(self, waiting: list[Item], behind: Child | None) -> Item | None:
        """The first item that is ready. What can never be ready is skipped here."""
        for item in list(waiting):
            if item.background and behind is not None:
                continue
            missing = [need for need in item.needs if need not in self.plan.products]
            makers = [i for i in waiting if i.background] or behind
            # Also where they are met already: a measurement must not share the processor.
            if item.needs and makers:
                continue
            if missing:
                waiting.remove(item)
                why = f"needs {' and '.join(missing)}, which {self._why_missing()}"
                self._record(item, End("skipped", 0.0, why, cause="needs"))
                continue
            return item
        return None

    def _why_missing(self) -> str:
        for item in self.items:
            end = self.ends.get(item.name)
            if item.background and end is not None and end.status != "done":
                return f"{item.name} did not make ({end.status}: {end.reason})"
        return "nothing made"

    def _start(self, item: Item) -> Child | None:
        left = self.clock.left
        if left < SHARE * item.limit_s:
            why = f"{max(left, 0):.0f} s were left, and it may need {item.limit_s:.0f}"
            self._record(item, End("skipped", 0.0, why, cause="time"))
            return None
        limit = min(item.limit_s, left)
        behind = " behind the others" if item.background else ""
        self._say(f"{item.name}: started{behind}, at most {limit:.0f} s")
        try:
            return Child(item, self.plan, self.recorder, self.name, limit)
        except Exception as error:  # of the item's row, or of the system
            reason = f"cannot be started: {type(error).__name__}: {error}"
            self._record(item, End("failed", 0.0, reason))
            return None

    def _settled(self, child: Child | None) -> Child | None:
        """The child if it still runs; else its end is recorded."""
        if child is None:
            return None
        end = child.poll()
        if end is None:
            return child
        self._record(child.item, end)
        return None

    def _record(self, item: Item, end: End) -> None:
        self.ends[item.name] = end
        self.recorder.item(
            item.name,
            end.status,
            end.seconds,
            reason=end.reason,
            cause=end.cause,
            tail=end.tail or None,
        )
        reason = f": {end.reason}" if end.reason else ""
        self._say(f"{item.name}: {end.status} after {end.seconds:.1f} s{reason}")

    def _say(self, text: str) -> None:
        self.say(f"{time.strftime('%H:%M:%S')} [{100 * self.clock.share:3.0f} %] {text}")
