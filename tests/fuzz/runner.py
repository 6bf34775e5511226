"""Runs a campaign's cases in worker processes, with a watchdog, and goes on where it stopped."""

from __future__ import annotations

import json
import os
import queue
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulse_edge import state

from fuzz.campaign import ESCAPE, HANG, KINDS, Entry

START = 120.0  # seconds in which a worker must be ready
WALL = 20.0  # seconds of a case that waits for something, or runs on a busy machine
POLL = 0.25
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Tally:
    """What became of a campaign.

    Attributes:
        cases: that ran.
        counts: of operations, by how they ended.
        findings: each with `number`, `kind` and `text`.
    """

    name: str
    seed: int
    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)

    def add(self, reply: dict[str, Any]) -> None:
        """Count a case."""
        self.cases += 1
        self.counts.update(reply.get("counts", {}))
        if "kind" in reply:
            self.findings.append(reply)

    def of_kind(self, kind: str) -> int:
        """Findings of one of `KINDS`."""
        return sum(finding["kind"] == kind for finding in self.findings)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        kinds = {kind: self.of_kind(kind) for kind in KINDS}
        counts = dict(sorted(self.counts.items()))
        return {"name": self.name, "seed": self.seed, "cases": self.cases, "counts": counts,
                **kinds, "findings": self.findings}  # fmt: skip


class _Worker:
    """One process. It is replaced when a case ends or hangs it."""

    def __init__(self, name: str, entry: Entry, seed: int, folder: Path) -> None:
        self._name = name
        self._entry = entry
        self._seed = seed
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, number: int) -> dict[str, Any]:
        """A case's reply. A case that does not end in time runs once more in a fresh process."""
        for _ in range(2):
            reply = self._ask(number)
            if reply.get("kind") != HANG:
                break
        if reply.get("kind") is not None:
            self.stop()  # its peak of memory, or what it broke, is not the next case's
        return reply

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream:
                    stream.close()
        self._process = None

    def _ask(self, number: int) -> dict[str, Any]:
        process = self._process or self._start()
        if process.stdin is None:
            raise RuntimeError("a worker has no pipe")
        before = _processor_seconds(process.pid)
        process.stdin.write(f"{number}\n".encode())
        process.stdin.flush()
        begun = time.monotonic()
        while not self._readable(process, POLL):
            used = _processor_seconds(process.pid) - before
            waited = time.monotonic() - begun
            if used > self._entry.seconds or waited > WALL:
                self.stop()
                text = f"{used:.1f} s of the processor, {waited:.1f} s in all"
                return {"number": number, "kind": HANG, "text": text}
        return self._reply(process, number)

    def _reply(self, process: subprocess.Popen[bytes], number: int) -> dict[str, Any]:
        line = process.stdout.readline() if process.stdout else b""
        if not line:
            code = process.wait()
            self.stop()
            return {"number": number, "kind": ESCAPE, "text": f"the process ended with {code}"}
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _start(self) -> subprocess.Popen[bytes]:
        folder = tempfile.mkdtemp(dir=self._folder)
        place = f"{self._entry.open.__module__}:{self._entry.open.__qualname__}"
        numbers = [str(self._seed), str(self._entry.memory)]
        command = [sys.executable, "-m", "fuzz.worker", place, self._name, *numbers, folder]
        self._process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), state.VARIABLE: state.OFF},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if not self._readable(self._process, START) or not self._reply(self._process, -1):
            raise RuntimeError(f"the campaign {self._name} does not start")
        return self._process

    @staticmethod
    def _readable(process: subprocess.Popen[bytes], seconds: float) -> bool:
        streams = [process.stdout] if process.stdout else []
        return bool(select.select(streams, [], [], seconds)[0])


def _processor_seconds(pid: int) -> float:
    """Of a process and of its children that have ended; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS


class Run:
    """Cases 0 to `count` of a campaign, save those that a file of replies has already."""

    def __init__(self, name: str, entry: Entry, count: int, seed: int, replies: Path) -> None:
        """
        Args:
            name: of the campaign.
            entry: its row.
            count: cases.
            seed: of all chance.
            replies: a file with a line for each case that has run; it grows.
        """
        self._name = name
        self._entry = entry
        self._seed = seed
        self._path = replies
        self.tally = Tally(name, seed)
        done = set()
        if replies.exists():
            for line in replies.read_text("utf-8").splitlines():
                reply = json.loads(line)
                if reply["number"] < count:
                    done.add(reply["number"])
                    self.tally.add(reply)
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(count):
            if number not in done:
                self._waiting.put(number)
        self._lock = threading.Lock()

    def run(self, workers: int) -> Tally:
        """Run what is left.

        Args:
            workers: processes.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory() as scratch,
            self._path.open("a", encoding="utf-8") as out,
        ):
            threads = [
                threading.Thread(target=self._work, args=(Path(scratch), out))
                for _ in range(min(workers, max(1, self._waiting.qsize())))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return self.tally

    def _work(self, scratch: Path, out: Any) -> None:
        worker = _Worker(self._name, self._entry, self._seed, scratch)
        try:
            while True:
                reply = worker.run(self._waiting.get_nowait())
                with self._lock:
                    self.tally.add(reply)
                    out.write(json.dumps(reply) + "\n")
                    out.flush()
                    self._show()
        except queue.Empty:
            return
        finally:
            worker.stop()

    def _show(self) -> None:
        """One line of progress on a terminal."""
        if sys.stderr.isatty():
            left = self._waiting.qsize()
            found = len(self.tally.findings)
            text = f"\r\033[K{self._name}: {self.tally.cases} cases, {left} left, {found} findings"
            print(text, end="" if left else "\n", file=sys.stderr, flush=True)
