"""Engine `native` on a stand-in for CUDA, whose kernels run in emulation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import engine_module

from support.emulation import Kind, Memory, Workshop, compiler
from support.fake_cuda import FakeCuda
from support.fixture_types import Bundles

TINY = {"hidden": 128, "heads": 4, "kv_heads": 2, "ffn": 256, "context": 96}


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Compiles kernels for the CPU."""
    if compiler() is None:
        pytest.skip("needs a C++ compiler")
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def decoder(bundles: Bundles) -> Path:
    """A tiny bundle for CUDA: int4, heads of 32, grouped."""
    return bundles("int4", 32, "cuda", **TINY)


@pytest.fixture
def opened(decoder: Path) -> Bundle:
    return open_bundle(decoder)


def adopt(memory: Memory, base: Any) -> None:
    """Let kernels access what ONNX Runtime's engine holds on the CPU."""
    shared = {"table": base.device_table.value, **base.cache.values}
    for name, value in shared.items():
        kind = Kind.READ_ONLY if name == "table" else Kind.READ_EARLY
        memory.adopt(name, value.data_ptr(), value.tensor_size_in_bytes(), kind)


@pytest.fixture
def cuda(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """The fake in place of cuda-python; ONNX Runtime's engine runs on the CPU instead."""
    fake = FakeCuda(workshop)
    bindings = ModuleType("cuda.bindings")
    bindings.driver = fake.driver  # type: ignore[attr-defined]
    bindings.nvrtc = fake.nvrtc  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    real = engine_module("onnxruntime")

    def on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(bundle: Bundle, options: EngineOptions, *more: Any) -> Any:
            base = function(bundle, replace(options, device="cpu"), *more)
            adopt(fake.memory, base)
            return base

        return call

    module = SimpleNamespace(
        open_sharing=on_cpu(real.open_sharing), open_engine=on_cpu(real.open_engine)
    )
    monkeypatch.setattr("pulse_edge.engines.native.engine.engine_module", lambda _: module)
    return fake
