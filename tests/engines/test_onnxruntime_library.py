"""Loading ONNX Runtime: what is said where it is absent, broken, too old, or has no memory."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from pulse_edge.engines.onnxruntime_library import OLDEST, first_line, load_onnxruntime
from pulse_edge.errors import EngineError

from support.paths import ROOT


@pytest.fixture
def importing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """`importing(outcome)`: `import onnxruntime` raises it, or gives it."""
    real = builtins.__import__

    def as_if(outcome: Any) -> None:
        def find(name: str, *rest: Any) -> Any:
            if name != "onnxruntime":
                return real(name, *rest)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(builtins, "__import__", find)
        load_onnxruntime.cache_clear()

    yield as_if
    load_onnxruntime.cache_clear()


def refusal() -> str:
    with pytest.raises(EngineError) as caught:
        load_onnxruntime()
    message = str(caught.value)
    assert "\n" not in message
    return message


def package(version: str) -> ModuleType:
    module = ModuleType("onnxruntime")
    module.__dict__.update(
        __version__=version,
        InferenceSession=object,
        disable_telemetry_events=lambda: None,
    )
    return module


def test_absent(importing: Callable[[Any], None]) -> None:
    importing(ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime"))
    assert re.search(r"not installed .*pulse-edge\[cpu\].*pulse-edge\[gpu\]", refusal())


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libonnxruntime.so.1: failed to map segment from shared object"),
        ImportError("libonnxruntime.so.1: failed to map segment from shared object: Error 12"),
        ImportError("x.so: cannot allocate memory in static TLS block"),
        ImportError("libx.so.1: cannot create TLS data structures: Cannot allocate memory"),
        OSError(12, "Cannot allocate memory"),
        MemoryError(),
        MemoryError("bad allocation"),
    ],
    ids=str,
)
def test_no_memory(importing: Callable[[Any], None], error: BaseException) -> None:
    """It says memory, and never that something is not installed."""
    importing(error)
    message = refusal()
    assert "not enough memory" in message
    assert "installed" not in message


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libcudart.so.13: cannot open shared object file: No such file or directory"),
        ImportError("libonnxruntime.so: wrong ELF class: ELFCLASS32"),
        ImportError("libm.so.6: version `GLIBC_2.38' not found (required by libonnxruntime.so)"),
        ImportError("x.so: undefined symbol: _ZN11onnxruntime"),
        ImportError("x.so: invalid ELF header\nsecond line"),
        ImportError("DLL load failed while importing onnxruntime_pybind11_state"),
        ModuleNotFoundError("No module named 'onnxruntime.capi'", name="onnxruntime.capi"),
        ModuleNotFoundError("No module named 'numpy.core'", name="numpy.core"),
        OSError(5, "Input/output error"),
    ],
    ids=str,
)
def test_present_but_broken(importing: Callable[[Any], None], error: BaseException) -> None:
    """It shows the loader's text."""
    importing(error)
    message = refusal()
    assert message.startswith(f"ONNX Runtime is installed but does not load ({first_line(error)})")
    assert "pip install --force-reinstall" in message


def test_an_empty_folder(importing: Callable[[Any], None]) -> None:
    """What an uninstallation leaves behind is a package without names."""
    importing(ModuleType("onnxruntime"))
    assert "its files are not" in refusal()


@pytest.mark.parametrize("version", ["1.26.0", "1.26.9", "1.26.0.dev20260301", "1.9.0", "0.5"])
def test_too_old(importing: Callable[[Any], None], version: str) -> None:
    importing(package(version))
    message = refusal()
    assert f"ONNX Runtime {version} is too old" in message
    assert "needs 1.27 or newer" in message
    assert "pip install --upgrade 'onnxruntime>=1.27'" in message


@pytest.mark.parametrize("version", ["1.27.0", "1.27.0rc1", "1.100.2", "2.0", "1.32.0+cu130"])
def test_new_enough(importing: Callable[[Any], None], version: str) -> None:
    module = package(version)
    importing(module)
    assert load_onnxruntime() is module


def test_the_package_asks_for_the_same_version() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    bounds = re.findall(r"onnxruntime(?:-gpu\[[^]]*\])?>=([\d.]+)", text)
    assert bounds == [".".join(map(str, OLDEST))] * 2
