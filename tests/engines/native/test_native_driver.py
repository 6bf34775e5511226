"""The driver's calls, against a stand-in that keeps the rules of CUDA's manual."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.engines.native.arguments import Choose
from pulse_edge.engines.native.cubins import find_cubins, needed_kernels
from pulse_edge.engines.native.driver import Driver, Gpu
from pulse_edge.engines.native.kernels import CHOOSE, Kernel
from pulse_edge.engines.native.steps import Launch
from pulse_edge.errors import EngineError

from support.fake_cuda import CUresult, FakeCuda

INVALID = "CUDA_ERROR_INVALID_VALUE"


@pytest.fixture
def gpu(cuda: FakeCuda) -> Iterator[Gpu]:
    with ExitStack() as stack:
        yield Gpu(stack)
    assert cuda.leaks() == ""


@pytest.fixture
def best(gpu: Gpu) -> int:
    """Three candidates of two rows: index 5 is row 0's best, 6 row 1's."""
    content = np.zeros((3, 8), np.dtype([("value", np.float32), ("index", np.int32)]))
    content["index"] = 9
    content[1, 0] = (2.0, 5)
    content[2, 1] = (3.0, 6)
    address = gpu.allocate(content.nbytes)
    gpu.write(address, content)
    return address


def choose(gpu: Gpu, best: int, tokens: int, bundle: Bundle) -> Launch:
    gpu.load(find_cubins(bundle, [CHOOSE], gpu.capability))
    return Launch(CHOOSE, (2, 1, 1), Choose(best=best, tokens=tokens, count=3))


def test_a_gpu(gpu: Gpu) -> None:
    assert gpu.name == "Fake GPU"
    assert gpu.capability == 90
    assert gpu.multiprocessors == 2
    assert gpu.shared_bytes == 227 << 10


def test_memory(gpu: Gpu) -> None:
    """Fresh memory is zeros; what is written is read."""
    address = gpu.allocate(24)
    numbers = np.ones(3, np.int64)
    gpu.read(numbers, address)
    assert numbers.tolist() == [0, 0, 0]
    gpu.write(address, np.arange(3))
    gpu.read(numbers, address)
    assert numbers.tolist() == [0, 1, 2]
    assert gpu.used == 24
    assert not gpu.pinned(8).any()


def test_copies_that_leave_their_memory(gpu: Gpu) -> None:
    address = gpu.allocate(16)
    with pytest.raises(EngineError, match=f"cuMemcpyHtoDAsync failed: {INVALID}"):
        gpu.write(address, np.arange(3))
    with pytest.raises(EngineError, match=f"cuMemcpyDtoHAsync failed: {INVALID}"):
        gpu.read(np.zeros(1, np.int64), address + 9)


def test_calls_need_the_context(gpu: Gpu) -> None:
    with pytest.raises(EngineError, match="INVALID_CONTEXT"):
        gpu.finish()
    with gpu.current():
        gpu.finish()


def test_a_launch_a_capture_and_its_replays(
    cuda: FakeCuda, gpu: Gpu, best: int, opened: Bundle
) -> None:
    tokens = gpu.allocate(16)
    launch = choose(gpu, best, tokens, opened)
    host = gpu.pinned(16)

    def issue() -> None:
        gpu.launch(launch, early=False)
        gpu.launch(launch, early=True)
        gpu.download(host, tokens)

    with gpu.current():
        issue()
        assert not host.any()  # nobody has waited yet
        gpu.finish()
        assert host.view(np.int64).tolist() == [5, 6]
        host[:] = 0
        graph = gpu.capture(issue)
        gpu.finish()
        assert not host.any()  # a capture runs nothing
        gpu.replay(graph)
        gpu.finish()
    assert host.view(np.int64).tolist() == [5, 6]
    assert cuda.early == 2
    assert not cuda.fault


def test_a_capture_that_waits(gpu: Gpu, best: int, opened: Bundle) -> None:
    """Waiting, or allocating, ends a capture; the stream stays usable."""
    tokens = gpu.allocate(16)
    launch = choose(gpu, best, tokens, opened)

    def waits() -> None:
        gpu.launch(launch, early=False)
        gpu.finish()

    def allocates() -> None:
        gpu.allocate(16)

    with gpu.current():
        for issue in (waits, allocates):
            with pytest.raises(EngineError, match="STREAM_CAPTURE_UNSUPPORTED"):
                gpu.capture(issue)
        gpu.launch(launch, early=False)
        gpu.finish()


def test_pageable_memory_in_a_capture(gpu: Gpu) -> None:
    address = gpu.allocate(8)
    with gpu.current(), pytest.raises(EngineError, match="STREAM_CAPTURE_UNSUPPORTED"):
        gpu.capture(lambda: gpu.upload(address, np.zeros(1)))


def test_a_capture_before_the_first_launch_is_noticed(
    cuda: FakeCuda, gpu: Gpu, best: int, opened: Bundle
) -> None:
    launch = choose(gpu, best, gpu.allocate(16), opened)
    with gpu.current():
        gpu.capture(lambda: gpu.launch(launch, early=False))
    assert "before its code was loaded" in cuda.fault


def test_an_early_start_after_a_copy_is_noticed(
    cuda: FakeCuda, gpu: Gpu, best: int, opened: Bundle
) -> None:
    launch = choose(gpu, best, gpu.allocate(16), opened)
    with gpu.current():
        gpu.launch(launch, early=True)
        gpu.finish()
    assert "after a copy" in cuda.fault


def test_a_kernel_that_was_not_loaded(gpu: Gpu) -> None:
    launch = Launch(Kernel("step.cu", "choose", (), 32, 0), (1, 1, 1), Choose())
    with gpu.current(), pytest.raises(KeyError):
        gpu.launch(launch, early=False)


def test_code_for_another_gpu(cuda: FakeCuda, gpu: Gpu, opened: Bundle) -> None:
    kernels = needed_kernels(opened, gpu.shared_bytes, False)
    with pytest.raises(EngineError, match=f"cuModuleLoadData failed: {INVALID}"):
        gpu.load(find_cubins(opened, kernels, 80))


def test_a_timed_graph(cuda: FakeCuda, gpu: Gpu, best: int, opened: Bundle) -> None:
    launch = choose(gpu, best, gpu.allocate(16), opened)
    with gpu.current():
        gpu.launch(launch, early=False)
        graph = gpu.capture(lambda: gpu.launch(launch, early=False))
        assert gpu.milliseconds(graph) == 1.0


def test_a_second_release(cuda: FakeCuda, gpu: Gpu) -> None:
    """What is given back twice is an error of the driver, which the end of an engine survives."""
    address = gpu.allocate(8)
    driver = Driver()
    with gpu.current():
        driver("cuMemFree", address)
        with pytest.raises(EngineError, match=f"cuMemFree failed: {INVALID}"):
            driver("cuMemFree", address)


def test_statuses_have_names(cuda: FakeCuda) -> None:
    def failing(_: Any) -> tuple[CUresult, None]:
        return CUresult.CUDA_ERROR_OUT_OF_MEMORY, None

    cuda.driver.cuMemAlloc = failing
    with pytest.raises(EngineError, match=r"^cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY \("):
        Driver()("cuMemAlloc", 1)
