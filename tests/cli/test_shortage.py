"""A lack of memory is called that, whichever library met it."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from pulse_edge.cli import shortage as memory
from pulse_edge.cli.shortage import LEAST, prepare_for_limit, shortage
from pulse_edge.errors import BundleError, EngineError, ImageError

from support.command import SECONDS, command, environment_with, shell
from support.paths import ROOT

PAGE = ROOT / "pulse_edge" / "assets" / "sample.png"
limits = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits address space")


def caused(outer: Exception, inner: BaseException) -> Exception:
    outer.__cause__ = inner
    return outer


# What libraries were seen to raise under `ulimit -v`.
LACKING: list[BaseException] = [
    MemoryError(),
    MemoryError("Unable to allocate 128. KiB for an array with shape (2048, 16)"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError(errno.ENOMEM, "Cannot allocate memory", "numpy/__init__.py"),
    RuntimeError("can't start new thread"),
    ImportError("libopenblas.so: failed to map segment from shared object"),
    ImportError("libopenblas.so: cannot allocate memory in static TLS block"),
    ImportError("_imaging.so: cannot create TLS data structures"),
    ImportError("Exception caught: std::bad_alloc"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("Exception during initialization: std::bad_alloc"),
    caused(ImportError("PLEASE READ THIS FOR ADVICE"), ImportError("failed to map segment")),
    caused(ImportError("numpy failed"), MemoryError()),
    caused(ValueError("bad array"), OSError(errno.ENOMEM, "Cannot allocate memory")),
    caused(EngineError("ONNX Runtime does not load"), ImportError("failed to map segment")),
    EngineError("decoder.onnx: ONNX Runtime cannot load it (can't start new thread)"),
    EngineError("vision.onnx: cannot load it (Exception during loading: std::bad_alloc)"),
    EngineError("vision.onnx: cannot load it (pthread_create failed)"),
    EngineError("vision.onnx: (Resource temporarily unavailable)"),
]
OTHER: list[BaseException] = [
    EngineError("ONNX Runtime is not installed"),
    EngineError("not enough memory to load ONNX Runtime; close other programs"),  # says it itself
    ImageError("the image is too large for this machine's free memory; scale it down"),
    BundleError("manifest.json: cannot be read (Cannot allocate memory)"),  # and so does this
    BundleError("no bundle at x"),
    ImportError("No module named 'onnxruntime'"),
    OSError(errno.ENOSPC, "No space left on device"),
    RuntimeError("a mistake of ours"),
    KeyError("x"),
]


@pytest.mark.parametrize("error", LACKING, ids=lambda e: f"{type(e).__name__} {e}")
def test_a_lack_is_recognized(error: Exception) -> None:
    line = shortage(error)
    assert line is not None
    assert line.startswith("not enough memory")
    assert line.endswith("close other programs, or allow the process more (ulimit -v)")


@pytest.mark.parametrize("error", OTHER, ids=lambda e: f"{type(e).__name__} {e}")
def test_other_failures_are_not_called_that(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "limit_of_memory", lambda: None)
    assert shortage(error) is None


def test_errors_that_cause_each_other_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert shortage(first) is None


@limits
def test_near_the_limit_an_engines_own_words_may_stand_for_a_lack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = EngineError("ONNX Runtime cannot load it (INVALID_ARGUMENT)")
    monkeypatch.setattr(memory, "limit_of_memory", lambda: 1)
    assert "perhaps for lack of memory" in str(shortage(error))
    assert shortage(BundleError("no bundle at x")) is None
    monkeypatch.setattr(memory, "limit_of_memory", lambda: 1 << 60)
    assert shortage(error) is None


@pytest.mark.parametrize("limit", [0, 1, LEAST // 2, LEAST - 1])
def test_less_than_the_least_is_refused_before_anything_is_imported(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "limit_of_memory", lambda: limit)
    monkeypatch.setattr(os, "environ", {})
    with pytest.raises(MemoryError, match="too few, 200 the least"):
        prepare_for_limit()


def test_a_limit_makes_numpy_modest(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(memory, "limit_of_memory", lambda: None)
    prepare_for_limit()
    assert environment == {}
    monkeypatch.setattr(memory, "limit_of_memory", lambda: LEAST)
    prepare_for_limit()
    assert environment == {"OPENBLAS_NUM_THREADS": "1"}
    environment["OPENBLAS_NUM_THREADS"] = "4"
    prepare_for_limit()
    assert environment == {"OPENBLAS_NUM_THREADS": "4"}


@limits
@pytest.mark.parametrize("megabytes", [100, 150, 190])
def test_a_process_with_far_too_little_says_memory(megabytes: int) -> None:
    done = shell(f'ulimit -v {megabytes << 10}; "$@"', "info")
    assert (done.returncode, done.stdout) == (12, "")
    assert done.stderr.startswith("error: not enough memory")
    assert done.stderr.count("\n") == 1


@limits
@pytest.mark.parametrize("megabytes", [300, 340, 380, 420, 460])
def test_a_process_with_too_little_says_memory(megabytes: int) -> None:
    """Where it fails differs from run to run: one line says memory, or the answer is there.

    127 is the C library's, see docs/exit-codes.md.
    """
    words = ("ask", PAGE, "--threads", 1, "--max-new-tokens", 2)
    done = shell(f'ulimit -v {megabytes << 10}; "$@"', *words)
    assert done.returncode in (0, 3, 6, 12, 127), done.stderr
    assert done.returncode == 0 or "memory" in done.stderr
    assert "Traceback" not in done.stderr
    assert "not installed" not in done.stderr


@pytest.mark.parametrize(
    "failure",
    [
        "MemoryError()",
        "ImportError('failed to map segment from shared object')",
        "OSError(12, 'Cannot allocate memory')",
        'RuntimeError("can\'t start new thread")',
    ],
)
@pytest.mark.parametrize("module", ["click", "numpy", "PIL.Image", "sentencepiece"])
def test_an_import_that_lacks_memory_says_it(module: str, failure: str, tmp_path: Path) -> None:
    script = f"""
        import sys

        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == {module!r}:
                    raise {failure}

        sys.meta_path.insert(0, Finder())
    """
    env = environment_with(tmp_path, script)
    done = command("ask", PAGE, "--max-new-tokens", 1, env=env, timeout=SECONDS)
    assert done.returncode in (3, 6, 12), done.stderr
    assert done.stderr.startswith("error: ")
    assert "memory" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_thread_that_finds_no_memory_to_begin_ends_the_process(tmp_path: Path) -> None:
    """Python's `Thread.start` would wait for it for ever."""
    script = """
        import threading
        from pulse_edge.cli.status import Status

        class Starved(threading.Thread):
            def _bootstrap(self):
                raise MemoryError

        Status.__enter__ = lambda _: Starved(daemon=True).start()
    """
    done = command("info", env=environment_with(tmp_path, script))
    assert (done.returncode, done.stdout) == (12, "")
    assert done.stderr == "error: not enough memory to start a thread\n"


def test_libraries_loaded_by_half_are_not_taken_down(tmp_path: Path) -> None:
    """What runs at exit may crash after a lack of memory, and does not run."""
    script = """
        import atexit, os
        from pulse_edge.cli.status import Status

        def lack(_):
            raise MemoryError

        atexit.register(os.abort)
        Status.__enter__ = lack
    """
    done = command("info", env=environment_with(tmp_path, script))
    assert (done.returncode, done.stdout) == (12, "")
    assert done.stderr.startswith("error: not enough memory; ")
