"""Why a provider of ONNX Runtime is not there, and what to do."""

from __future__ import annotations

import platform
from importlib import metadata

import onnxruntime
import pytest

from pulse_edge.engines.onnxruntime_providers import PROVIDERS, prepare_provider
from pulse_edge.errors import EngineError

CUDA = PROVIDERS["cuda"]


@pytest.fixture(autouse=True)
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])


def installed(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    def version(name: str) -> str:
        if name not in packages:
            raise metadata.PackageNotFoundError(name)
        return "1.31.1"

    monkeypatch.setattr(metadata, "version", version)


def refusal() -> str:
    with pytest.raises(EngineError) as caught:
        prepare_provider("cuda", CUDA)
    return str(caught.value)


@pytest.mark.parametrize("machine", ["x86_64", "AMD64"])
def test_the_cpu_build(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    installed(monkeypatch, "onnxruntime")
    assert "pip uninstall -y onnxruntime && pip install 'pulse-edge[gpu]'" in refusal()


@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
def test_the_gpu_extra_on_arm_serves_no_jetson(
    monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    """So the message does not send the user of one in a circle: it names what the wheel serves."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    for packages in ((), ("onnxruntime",)):
        installed(monkeypatch, *packages)
        message = refusal()
        assert "serves compute capabilities 8.9, 9.0, 12.0 and 12.1, and no Jetson" in message
        assert "--target tensorrt" in message
        assert "pip uninstall -y onnxruntime && pip install 'pulse-edge[gpu]'" in message


def test_both_builds_over_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    assert "both installed" in refusal()


def test_a_gpu_build_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "onnxruntime-gpu")
    assert refusal().endswith("has no CUDAExecutionProvider; it has CPUExecutionProvider")
