"""The parent's side of compare.py: the table of peers, their environments, their processes."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pulse_edge.privacy import silent_variables

ROOT = Path(__file__).parents[2]
# First by itself, and pinned in what follows: a range, or a torchvision for another one, takes
# gigabytes of CUDA.
TORCH = "torch==2.13.0"


class PeerError(Exception):
    """A peer cannot be installed, converted, loaded or run; the message is the reason to print."""


@dataclass(frozen=True)
class Kind:
    """A peer: its worker module, its variants, and what to install, one pip call for each row.

    None: our own Python.
    """

    module: str
    variants: tuple[str, ...]
    installs: tuple[tuple[str, ...], ...] | None
    arguments: tuple[str, ...] = ()


PEERS = {
    "ours": Kind(
        "ours", ("int4:128:head4:kv8:prefill8", "int4:128:head4:kv8", "int4:128", "w8a8:kv8"), None
    ),
    "llama.cpp": Kind(
        "llama_cpp", ("q4_0", "q8_0"), (("llama-cpp-python", "gguf", "ml_dtypes", "numpy"),)
    ),
    "openvino": Kind(
        "openvino",
        ("int4", "int8"),
        # optimum-intel wants torchvision, whose CUDA wheels do not load beside this torch; it is
        # not needed here.
        (
            ("setuptools", TORCH),
            (TORCH, "openvino", "openvino-tokenizers", "nncf", "transformers<5.6", "requests"),
            ("--no-deps", "optimum-intel", "optimum"),
        ),
    ),
    "genai": Kind(
        "genai",
        ("int4",),
        (
            ("setuptools", TORCH),
            (TORCH, "onnxruntime-genai", "onnx", "onnx-ir", "transformers", "sentencepiece"),
        ),
    ),
    "optimum": Kind(
        "optimum",
        ("fp32",),
        (("setuptools", TORCH), (TORCH, "optimum-onnx", "onnxruntime", "onnx")),
    ),
    # Ours, but for the tower, which Optimum exports: the row `vision` is the one to look at.
    "optimum-tower": Kind(
        "ours",
        ("fp32:optimum", "int8:optimum"),
        (("setuptools", TORCH), (TORCH, "-e", f"{ROOT}[cpu,export,optimum]")),
    ),
    "transformers": Kind(
        "transformers", ("bf16",), (("setuptools", TORCH), (TORCH, "transformers"))
    ),
    "torch-int4": Kind("torch_int4", ("int4",), (("setuptools", TORCH), (TORCH, "numpy"))),
    "fake": Kind("fake", ("1000",), None),
    "fake-noise": Kind("fake", ("1000",), None, ("noise",)),
}


def python_of(name: str, work: Path, installed: bool = False) -> Path:
    """The interpreter of a peer's environment, made where there is none yet; ours, if it has what
    the peer needs (`installed`). Raises `PeerError`.
    """
    kind = PEERS[name]
    if kind.installs is None or installed:
        return Path(sys.executable)
    folder = work / name / "venv"
    done, wanted = folder / "installed.json", [list(row) for row in kind.installs]
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if done.exists() and json.loads(done.read_text()) == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = work / name / "install.log"
    rows = [[sys.executable, "-m", "venv", str(folder)]]
    rows += [
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", *row]
        for row in kind.installs
    ]
    for row in rows:
        with log.open("ab") as file:
            code = subprocess.run(
                row, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            ).returncode
        if code:
            raise PeerError(
                f"cannot be installed: {' '.join(row[3:])} failed ({_last_line(log)}; all in {log})"
            )
    done.write_text(json.dumps(wanted))
    return python


class Worker:
    """A process of a peer.

    One command at a time; whatever goes wrong is a `PeerError`, and ends the process.
    """

    def __init__(self, name: str, python: Path, log: Path) -> None:
        self._log = log
        command = [
            str(python),
            "-m",
            f"benchmarks.peers.{PEERS[name].module}",
            *PEERS[name].arguments,
        ]
        search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = os.environ | silent_variables()
        environment |= {"PYTHONPATH": search, "PYTHONUNBUFFERED": "1"}
        log.parent.mkdir(parents=True, exist_ok=True)
        self._errors = log.open("wb")
        self._lines: queue.Queue[str] = queue.Queue()
        # In a session of its own: Ctrl-C is the parent's to handle.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self.pid = self._process.pid
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")  # the end

    def __call__(self, do: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """The answer to a command. timeout: seconds."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=timeout)
        except OSError:
            line = ""  # it is gone
        except queue.Empty:
            self.close()
            raise PeerError(f"{do}: no answer in {timeout:g} s") from None
        if not line:
            code = self._process.wait()
            raise PeerError(
                f"{do}: the worker ended with {code} ({_last_line(self._log)}; all in {self._log})"
            )
        try:
            answer = json.loads(line)
            assert isinstance(answer, dict)
        except (ValueError, AssertionError):
            self.close()
            raise PeerError(
                f"{do}: the worker said {line.strip()[:80]!r}, which is no JSON object"
            ) from None
        if "error" in answer:
            raise PeerError(f"{do}: {answer['error']}")
        return answer

    def number(self, do: str, key: str, timeout: float, **arguments: Any) -> float:
        """One number of the answer."""
        value = self.number_or_none(do, key, timeout, **arguments)
        if value is None:
            self.close()
            raise PeerError(f"{do}: the answer has {key} null, which is no number")
        return value

    def number_or_none(self, do: str, key: str, timeout: float, **arguments: Any) -> float | None:
        """The same, where null is an answer: the peer does not have what was asked for."""
        answer = self(do, timeout, **arguments)
        value = answer.get(key)
        if key in answer and value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.close()
            raise PeerError(f"{do}: the answer has {key} {value!r}, which is no number")
        return value

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def _last_line(log: Path) -> str:
    """What a log ends with, cut to a line of a report."""
    text = log.read_text(errors="replace").strip()
    return text.splitlines()[-1].strip()[:200] if text else "it said nothing"
