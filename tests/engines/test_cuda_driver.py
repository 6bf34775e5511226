"""The CUDA driver's answers, from a stand-in, and GPUs that ONNX Runtime has no code for."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest

from pulse_edge.engines import cuda_driver as driver

CAPABILITY = {75: 9, 76: 0}  # by CUdevice_attribute
NO_DEVICE, OUT_OF_MEMORY = 100, 2  # CUresult


class FakeLibrary:
    """libcuda's functions: they write through pointers and return a status.

    `failing`: name -> status of a function that fails; `missing`: functions the library lacks.
    """

    def __init__(self, failing: dict[str, int] | None = None, missing: str = "") -> None:
        self.failing = failing or {}
        self.missing = missing
        self.calls: list[str] = []
        self.retained = 0
        self.current: list[int | None] = []

    def __getattr__(self, name: str) -> Any:
        if name == self.missing or not hasattr(FakeLibrary, f"_{name}"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name in self.failing:
                return self.failing[name]
            getattr(self, f"_{name}")(*arguments)
            return 0

        return call

    def _cuInit(self, flags: int) -> None:
        assert flags == 0

    def _cuDeviceGet(self, device: Any, ordinal: int) -> None:
        assert ordinal == 0
        ctypes.cast(device, ctypes.POINTER(ctypes.c_int))[0] = 7

    def _cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> None:
        assert device == 7
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = CAPABILITY[attribute]

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: int) -> None:
        assert device == 7
        self.retained += 1
        ctypes.cast(context, ctypes.POINTER(ctypes.c_void_p))[0] = 0x7F00_0000_1000  # over 32 bits

    def _cuCtxPushCurrent_v2(self, context: ctypes.c_void_p) -> None:
        assert context.value == 0x7F00_0000_1000
        self.current.append(context.value)

    def _cuCtxPopCurrent_v2(self, context: Any) -> None:
        ctypes.cast(context, ctypes.POINTER(ctypes.c_void_p))[0] = self.current.pop()

    def _cuMemGetInfo_v2(self, free: Any, total: Any) -> None:
        assert self.current, "no context is current"
        ctypes.cast(free, ctypes.POINTER(ctypes.c_size_t))[0] = 70 * 10**9
        ctypes.cast(total, ctypes.POINTER(ctypes.c_size_t))[0] = 85 * 10**9

    def _cuMemsetD8_v2(
        self, address: ctypes.c_uint64, value: ctypes.c_ubyte, size: ctypes.c_size_t
    ) -> None:
        assert self.current, "no context is current"
        self.cleared = address.value, value.value, size.value

    def _cuCtxSynchronize(self) -> None:
        assert self.current, "no context is current"

    def _cuDevicePrimaryCtxRelease_v2(self, device: int) -> None:
        assert device == 7
        self.retained -= 1


def put(monkeypatch: pytest.MonkeyPatch, library: FakeLibrary) -> FakeLibrary:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    return library


def test_what_the_driver_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    library = put(monkeypatch, FakeLibrary())
    assert driver.compute_capability() == 90
    assert "cuDevicePrimaryCtxRetain" not in library.calls  # no context for an attribute
    assert driver.gpu_memory() == (70 * 10**9, 85 * 10**9)
    assert (library.retained, library.current) == (0, [])


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("cuInit", NO_DEVICE),
        ("cuDeviceGet", NO_DEVICE),
        ("cuDevicePrimaryCtxRetain", OUT_OF_MEMORY),
        ("cuCtxPushCurrent_v2", 201),
        ("cuMemGetInfo_v2", 1),
        ("cuCtxPopCurrent_v2", 201),
        ("cuDevicePrimaryCtxRelease_v2", 201),
    ],
)
@pytest.mark.parametrize("missing", [False, True])
def test_a_call_that_fails(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    status: int,
    missing: bool,
) -> None:
    """None; and what was taken before is given back. A function may also be missing from an old
    driver."""
    broken = FakeLibrary(missing=name) if missing else FakeLibrary({name: status})
    library = put(monkeypatch, broken)
    assert driver.gpu_memory() is None
    if name != "cuCtxPopCurrent_v2":
        assert library.current == []
    if name != "cuDevicePrimaryCtxRelease_v2":
        assert library.retained == 0


@pytest.mark.parametrize("name", ["cuInit", "cuDeviceGet", "cuDeviceGetAttribute"])
def test_no_capability(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    put(monkeypatch, FakeLibrary({name: NO_DEVICE}))
    assert driver.compute_capability() is None


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert driver.compute_capability() is None
    assert driver.gpu_memory() is None


@pytest.mark.parametrize(
    ("platform", "name"),
    [("linux", "libcuda.so.1"), ("win32", "nvcuda.dll")],
)
def test_the_library(monkeypatch: pytest.MonkeyPatch, platform: str, name: str) -> None:
    asked = []

    def library(name: str) -> FakeLibrary:
        asked.append(name)
        return FakeLibrary()

    monkeypatch.setattr(ctypes, "CDLL", library)
    monkeypatch.setattr(sys, "platform", platform)
    assert driver.compute_capability() == 90
    assert asked == [name]


@pytest.mark.parametrize("capability", [*driver.X86, 87, None])
def test_gpus_that_run(capability: int | None) -> None:
    """Code for 8.0 runs on every 8.x."""
    assert driver.unsupported(capability, "x86_64") is None
    assert driver.unsupported(capability, "AMD64") is None


@pytest.mark.parametrize(
    ("capability", "shown"), [(100, "10.0"), (103, "10.3"), (121, "12.1"), (61, "6.1"), (70, "7.0")]
)
def test_gpus_that_do_not(capability: int, shown: str) -> None:
    assert driver.unsupported(capability, "x86_64") == driver.unsupported(capability, "AMD64")
    assert driver.unsupported(capability, "riscv64") is None  # there is no wheel to know
    assert driver.unsupported(capability, "x86_64") == (
        f"this GPU has compute capability {shown}, for which ONNX Runtime's wheel holds no code "
        "(it has 7.5, 8.0, 8.6, 8.9, 9.0 and 12.0, and no PTX); "
        "use a bundle exported with --target cpu, "
        "or with --target tensorrt where TensorRT knows this GPU"
    )


@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
@pytest.mark.parametrize("capability", [*driver.ARM, None])
def test_gpus_that_run_on_arm(machine: str, capability: int | None) -> None:
    assert driver.unsupported(capability, machine) is None


@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
@pytest.mark.parametrize("capability", [72, 75, 80, 86, 87, 100, 110])
def test_gpus_that_do_not_on_arm(machine: str, capability: int) -> None:
    """Orin is 8.7, Thor 11.0: neither is served, though 8.9 is."""
    assert "(it has 8.9, 9.0, 12.0 and 12.1, and no PTX)" in str(
        driver.unsupported(capability, machine)
    )


def test_memory_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of more than 32 bits, a size of more than 4 GB; and the context is given back."""
    library = put(monkeypatch, FakeLibrary())
    assert driver.clear(0x7F12_3456_7800, 5 << 30)
    assert library.cleared == (0x7F12_3456_7800, 0, 5 << 30)
    assert "cuCtxSynchronize" in library.calls
    assert (library.retained, library.current) == (0, [])
    for name in ("cuMemsetD8_v2", "cuCtxSynchronize", "cuInit"):
        library = put(monkeypatch, FakeLibrary({name: OUT_OF_MEMORY}))
        assert not driver.clear(1, 1)
        assert (library.retained, library.current) == (0, [])
