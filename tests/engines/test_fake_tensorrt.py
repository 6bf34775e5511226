"""`fake_tensorrt` has the names, values and parameters of cuda-python and TensorRT-RTX."""

from __future__ import annotations

import enum
import inspect
import re

import pytest

pytest.importorskip("onnxruntime", reason="the stand-ins run graphs by ONNX Runtime")
pytest.importorskip("cuda.bindings", reason="needs cuda-python: pip install cuda-bindings")
pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install tensorrt-rtx")

import tensorrt_rtx as trt
from cuda.bindings import runtime

from support import fake_tensorrt as fake

pytestmark = pytest.mark.tensorrt

CUDA = [name for name in vars(fake.Cuda) if name.startswith("cuda")]
ENUMS = {
    "cudaError_t": fake.Status,
    "cudaMemcpyKind": fake.CopyKind,
    "cudaStreamCaptureMode": fake.CaptureMode,
    "cudaDeviceAttr": fake.DeviceAttribute,
}


def own(kind: type) -> list[str]:
    return [
        name
        for name, value in vars(kind).items()
        if inspect.isfunction(value) and not name.startswith("_")
    ]


@pytest.mark.parametrize(("name", "kind"), ENUMS.items())
def test_values_of_cuda(name: str, kind: type[enum.IntEnum]) -> None:
    real = getattr(runtime, name)
    assert {member.name: int(getattr(real, member.name)) for member in kind} == {
        m.name: int(m) for m in kind
    }


@pytest.mark.parametrize("name", [n for n in CUDA if inspect.isfunction(vars(fake.Cuda)[n])])
def test_calls_of_cuda_take_as_many_arguments(name: str) -> None:
    mine, real = (
        inspect.signature(f).parameters for f in (vars(fake.Cuda)[name], getattr(runtime, name))
    )
    assert len(mine) - 1 == len(real)


def test_cuda_s_error_is_said_as_it_is_read() -> None:
    """Without a driver: a status first, then the values; a name, a text in bytes."""
    status, text = runtime.cudaGetErrorString(runtime.cudaError_t.cudaErrorMemoryAllocation)
    assert (status, text) == (runtime.cudaError_t.cudaSuccess, b"out of memory")
    assert runtime.cudaError_t.cudaErrorMemoryAllocation.name == "cudaErrorMemoryAllocation"


@pytest.mark.parametrize(
    ("mine", "real"),
    [
        (fake.Runtime, trt.Runtime),
        (fake.Engine, trt.ICudaEngine),
        (fake.Context, trt.IExecutionContext),
        (fake.RtxContext, trt.IExecutionContext),
    ],
)
def test_methods_of_tensorrt(mine: type, real: type) -> None:
    methods = [name for name in own(mine) if name != "refused"]
    assert methods
    for name in methods:
        taken = {
            len(re.findall(r"\w+: ", line))
            for line in getattr(real, name).__doc__.splitlines()
            if "(self: " in line
        }
        assert len(inspect.signature(vars(mine)[name]).parameters) in taken


def test_attributes_of_tensorrt() -> None:
    for kind, names in (
        (trt, ["IKVCacheUpdateLayer", "ExecutionContextAllocationStrategy", "ILogger", "Runtime",
               "DynamicShapesKernelSpecializationStrategy"]),
        (trt.ICudaEngine, ["device_memory_size_v2", "num_io_tensors"]),
        (trt.ExecutionContextAllocationStrategy, ["USER_MANAGED", "STATIC"]),
        (trt.DynamicShapesKernelSpecializationStrategy, ["EAGER", "LAZY"]),
        (trt.IRuntimeConfig, ["dynamic_shapes_kernel_specialization_strategy",
                              "set_execution_context_allocation_strategy"]),
    ):  # fmt: skip
        assert [name for name in names if not hasattr(kind, name)] == []
