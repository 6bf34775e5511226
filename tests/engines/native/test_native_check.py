"""The self-check's verdict is remembered for as long as nothing that decides it changes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.engines.native import check
from pulse_edge.engines.native.engine import NativeEngine, open_checked, open_engine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import EngineError
from pulse_edge.state import VARIABLE, forget

from support.emulation import Kind
from support.fake_cuda import FakeCuda
from support.fixture_types import Bundles

# Another checkpoint of the sizes of `opened`.
OTHER = {"hidden": 128, "heads": 4, "kv_heads": 2, "ffn": 256, "context": 96, "seed": 1}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    monkeypatch.setattr(check, "STEPS", (1, 2))
    return tmp_path / "state"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The errors that were measured, one for each check that was made."""
    errors: list[float] = []
    real = check.largest_error

    def measure(*engines: Any) -> float:
        errors.append(real(*engines))
        return errors[-1]

    monkeypatch.setattr(check, "largest_error", measure)
    return errors


def on_gpu(bundle: Bundle, engine: str = "native", **options: Any) -> NativeEngine:
    """Opened as by a new process."""
    forget()
    return open_engine(bundle, EngineOptions(device="cuda", engine=engine, **options))


def test_a_pass_is_not_checked_again(cuda: FakeCuda, opened: Bundle, measured: list[float]) -> None:
    first = on_gpu(opened).details["self_check"]
    second = on_gpu(opened)
    assert len(measured) == 1
    assert first["remembered"] is False
    assert second.details["self_check"] == first | {"remembered": True}
    rows = np.arange(12)
    second.prefill(rows[:8])
    assert second.step(rows[8:9]).shape == (1, 512)
    assert not cuda.fault


def test_a_failure_is_remembered_with_its_figure(
    cuda: FakeCuda, opened: Bundle, measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(check, "largest_error", lambda *_: 0.25)
        with pytest.raises(EngineError, match=r"an error of 0\.25, over 0\.02"):
            on_gpu(opened)
    with pytest.raises(EngineError, match=r"an error of 0\.25, over 0\.02"):
        on_gpu(opened)
    monkeypatch.setattr("pulse_edge.engines.native.engine.warn", lambda *_, **__: None)
    fallen_back = on_gpu(opened, engine="auto").describe()
    assert "an error of 0.25" in fallen_back["native"]["unused"]
    assert measured == []


def test_the_bound_of_this_version_judges(
    cuda: FakeCuda, opened: Bundle, measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the one under which the figure was measured."""
    on_gpu(opened)
    monkeypatch.setattr("pulse_edge.engines.native.engine.BOUND", measured[0] / 2)
    with pytest.raises(EngineError, match="other logits"):
        on_gpu(opened)
    assert len(measured) == 1


def _other_version(package: str) -> Callable[[pytest.MonkeyPatch, FakeCuda], None]:
    def change(patch: pytest.MonkeyPatch, _: FakeCuda) -> None:
        real = metadata.version
        patch.setattr(metadata, "version", lambda name: "0.1" if name == package else real(name))

    return change


CHANGES: dict[str, Callable[[pytest.MonkeyPatch, FakeCuda], None]] = {
    "CUDA driver": lambda _, cuda: setattr(cuda, "driver_version", 13010),
    "kernel module": lambda patch, _: patch.setattr(check, "read_file", lambda _: "580.1"),
    "capability, and so kernels": lambda _, cuda: setattr(cuda, "capability", 86),
    "GPU": lambda patch, cuda: patch.setattr(
        cuda.driver, "cuDeviceGetName", lambda *_: (0, b"Other GPU\0")
    ),
    "ONNX Runtime": _other_version("onnxruntime"),
    "ONNX Runtime for GPUs": _other_version("onnxruntime-gpu"),
    "cuda-bindings": _other_version("cuda-bindings"),
    "pulse-edge": _other_version("pulse-edge"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_difference_is_checked_anew(
    cuda: FakeCuda,
    opened: Bundle,
    measured: list[float],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    on_gpu(opened)
    CHANGES[change](monkeypatch, cuda)
    assert on_gpu(opened).details["self_check"]["remembered"] is False
    assert len(measured) == 2


def test_another_bundle_cache_or_context_is_checked_anew(
    cuda: FakeCuda, opened: Bundle, bundles: Bundles, measured: list[float]
) -> None:
    on_gpu(opened)
    on_gpu(opened, context=50)
    cuda.kind = Kind.READ_EARLY  # of allocations: steps may read the byte cache early
    open_checked(opened, EngineOptions(device="cuda", engine="native"), byte_cache=True)
    on_gpu(open_bundle(bundles("int4", 32, "cuda", **OTHER)))
    assert len(measured) == 4
    on_gpu(opened)
    on_gpu(opened, context=50)
    assert len(measured) == 4


def test_without_a_folder_the_process_remembers(
    cuda: FakeCuda, opened: Bundle, measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    on_gpu(opened)
    engine = open_engine(opened, EngineOptions(device="cuda", engine="native"))
    assert engine.details["self_check"]["remembered"] is True
    assert on_gpu(opened).details["self_check"]["remembered"] is False
    assert len(measured) == 2


def test_a_record_of_other_contents_is_checked_anew(
    cuda: FakeCuda, opened: Bundle, measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "recall", lambda *_: {"passed": True})
    on_gpu(opened)
    assert len(measured) == 1


def test_nothing_about_the_gpu_or_the_bundle_is_written(
    cuda: FakeCuda, opened: Bundle, folder: Path
) -> None:
    on_gpu(opened)
    (record,) = (folder / "verdicts").iterdir()
    content = record.name.encode() + record.read_bytes()
    for text in ("Fake", opened.path.name, opened.manifest.seal[:12], "int4"):
        assert text.encode() not in content
