"""The memory and arithmetic peaks that a CPU reaches."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.engines.onnxruntime_library import load_onnxruntime
from pulse_edge.errors import EngineError
from pulse_edge.system import last_level_cache, memory, physical_cores

# The variables that set the number of threads of numpy's BLAS, which reads them when it is loaded.
BLAS_THREADS = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True)
class Peaks:
    """The best of several passes on the CPU, in a process of its own.

    Attributes:
        threads: of that process.
        read: bytes/s of numpy's OR over a buffer that no cache holds.
        read_buffer: bytes of that buffer.
        gemm: FLOP/s of a square matrix product by type: "fp32" by numpy, and "int8" (bytes times
            bytes into 32 bits) by ONNX Runtime if that is installed.
        gemm_size: rows, and columns, of the product.
        gemm_library: what multiplied, by type.
    """

    threads: int
    read: float
    read_buffer: int
    gemm: dict[str, float]
    gemm_size: int
    gemm_library: dict[str, str]


def measure_peaks(threads: int = 0, quick: bool = False) -> Peaks | None:
    """Measure the peaks in a new process, which takes seconds.

    A process of its own, because BLAS takes its threads from the environment when it is loaded, and
    because the buffers would count in our peak memory.

    Args:
        threads: 0: one for each core.
        quick: smaller buffers and fewer passes, for a rough figure.

    Returns:
        None if the process could not run.
    """
    count = threads or physical_cores()
    environment = os.environ | dict.fromkeys(BLAS_THREADS, str(count))
    command = [sys.executable, "-m", __name__, str(count), str(int(quick))]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, check=True, timeout=300
        )
        return Peaks(**json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None


def peaks_of_this_process(threads: int, quick: bool) -> Peaks:
    """Measure here. One thread is timed by the processor's clock, which other work on the machine
    does not advance."""
    clock = time.process_time if threads == 1 else time.perf_counter
    passes, side = (2, 512) if quick else (7, 2048)
    words = read_buffer_size(quick, last_level_cache(), memory()) // 8 // threads * threads
    # Written, because memory that was never written is one page of zeros, which a cache holds.
    buffer = np.ones(words, np.uint64)
    parts = np.split(buffer, threads)
    read = min(_together(np.bitwise_or.reduce, parts, clock) for _ in range(passes))
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((side, side), np.float32) for _ in range(2))
    out = np.empty_like(a)
    fp32 = min(_seconds(lambda: np.matmul(a, b, out=out), clock) for _ in range(passes))
    seconds = {"fp32": fp32}
    libraries = {"fp32": _blas()}
    multiply, library = int8_product(threads, side)
    if multiply:
        multiply()
        seconds["int8"] = min(_seconds(multiply, clock) for _ in range(passes))
        libraries["int8"] = library
    gemm = {kind: 2 * side**3 / taken for kind, taken in seconds.items()}
    return Peaks(threads, buffer.nbytes / read, buffer.nbytes, gemm, side, libraries)


def read_buffer_size(quick: bool, cache: int | None, memory: int | None) -> int:
    """Bytes to read so that most come from memory: no less than twice the last-level cache.

    Args:
        quick: a smaller buffer, for smoke tests; its figure is rough.
        cache: bytes of the last-level cache; None if the system does not tell.
        memory: bytes of the machine's memory, of which the buffer takes a quarter at most; None
            likewise.
    """
    cache = cache or 0
    size = max(64 << 20, 2 * cache) if quick else max(256 << 20, 8 * cache)
    return size if memory is None else min(size, memory // 4)


def int8_product(threads: int, side: int) -> tuple[Callable[[], Any] | None, str]:
    """A square product of uint8 and int8 by ONNX Runtime.

    The weights have 7 bits, as the exporter's have, so that a product on AVX2 does not saturate.

    Args:
        threads: of the product.
        side: rows, and columns, of both matrices.

    Returns:
        A function that multiplies, and the library's name; (None, "") if it is not installed.
    """
    try:
        ort = load_onnxruntime()
    except EngineError:
        return None, ""
    rng = np.random.default_rng(0)
    left = rng.integers(0, 256, (side, side), np.uint8)
    right = rng.integers(-64, 64, (side, side), np.int8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(product_graph(right), options, providers=providers)
    library = f"ONNX Runtime {ort.__version__}, MatMulInteger"
    return lambda: session.run(None, {"a": left})[0], library


def product_graph(right: NDArray[np.int8]) -> bytes:
    """An ONNX model: a uint8 [rows, k] -> a @ right, int32 [rows, columns]. `right`: [k, columns].

    Written by hand (field numbers: onnx.proto), because the runtime does not depend on onnx.
    """
    rows, columns = right.shape

    def field(number: int, value: int | bytes) -> bytes:
        if isinstance(value, int):
            return _varint(number << 3) + _varint(value)
        return _varint(number << 3 | 2) + _varint(len(value)) + value

    def tensor_info(name: bytes, kind: int, columns: int) -> bytes:
        shape = field(1, field(2, b"rows")) + field(1, field(1, columns))
        return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))

    uint8, int8, int32 = 2, 3, 6
    node = field(1, b"a") + field(1, b"right") + field(2, b"y") + field(4, b"MatMulInteger")
    weights = field(1, rows) + field(1, columns) + field(2, int8) + field(8, b"right")
    weights += field(9, right.tobytes())
    graph = field(1, node) + field(2, b"product") + field(5, weights)
    graph += field(11, tensor_info(b"a", uint8, rows)) + field(
        12, tensor_info(b"y", int32, columns)
    )
    return field(1, 8) + field(7, graph) + field(8, field(2, 13))  # IR version 8, opset 13


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _together(work: Callable[[Any], Any], parts: list[Any], clock: Callable[[], float]) -> float:
    """Seconds until all of `parts` are done, one thread each. numpy's loops release the GIL."""
    threads = [threading.Thread(target=work, args=(part,)) for part in parts]

    def run() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return _seconds(run, clock)


def _seconds(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def _blas() -> str:
    try:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"numpy, {blas['name']} {blas['version']}"
    except (TypeError, KeyError):
        return "numpy"


if __name__ == "__main__":
    print(
        json.dumps(dataclasses.asdict(peaks_of_this_process(int(sys.argv[1]), sys.argv[2] == "1")))
    )
