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

from pulse_edge.system import last_level_cache, memory, physical_cores

# The variables that set the number of threads of numpy's BLAS, read when it is loaded.
BLAS_THREADS = [f"{x}_NUM_THREADS" for x in ("OPENBLAS", "MKL", "BLIS", "OMP")] + ["VECLIB_MAXIMUM_THREADS"]


@dataclass(frozen=True)
class Peaks:
    """The best of several passes on the CPU, in a process of its own with `threads` threads.

    read: bytes/s of numpy's OR over a buffer that no cache holds. gemm: multiplications and additions a second of a
    square matrix product, by type; fp32 by numpy, int8 (bytes times bytes into 32 bits) by ONNX Runtime where it is
    there.
    """

    threads: int
    read: float
    read_buffer: int  # bytes
    gemm: dict[str, float]  # "fp32" and, where it could be measured, "int8"
    gemm_size: int  # rows = columns
    gemm_library: dict[str, str]  # by type


def measure_peaks(threads: int = 0, quick: bool = False) -> Peaks | None:
    """Measure in a new process: its BLAS takes its threads from the environment, its buffers are not in our peak."""
    count = threads or physical_cores()
    environment = os.environ | dict.fromkeys(BLAS_THREADS, str(count))
    command = [sys.executable, "-m", __name__, str(count), str(int(quick))]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=300)
        return Peaks(**json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None


def _peaks(threads: int, quick: bool) -> Peaks:
    """With one thread by the processor's clock, which other work on the machine does not stop."""
    clock = time.process_time if threads == 1 else time.perf_counter
    passes, side = (2, 512) if quick else (7, 2048)
    words = read_buffer_size(quick, last_level_cache(), memory()) // 8 // threads * threads
    buffer = np.ones(words, np.uint64)  # written, or all of it would be the kernel's one page of zeros
    parts = np.split(buffer, threads)
    read = min(_together(np.bitwise_or.reduce, parts, clock) for _ in range(passes))
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((side, side), np.float32) for _ in range(2))
    out = np.empty_like(a)
    seconds = {"fp32": min(_seconds(lambda: np.matmul(a, b, out=out), clock) for _ in range(passes))}
    libraries = {"fp32": _blas()}
    multiply, library = int8_product(threads, side)
    if multiply:
        multiply()
        seconds["int8"], libraries["int8"] = min(_seconds(multiply, clock) for _ in range(passes)), library
    gemm = {kind: 2 * side**3 / taken for kind, taken in seconds.items()}
    return Peaks(threads, buffer.nbytes / read, buffer.nbytes, gemm, side, libraries)


def read_buffer_size(quick: bool, cache: int | None, memory: int | None) -> int:
    """Bytes to read so that most come from memory: no less than twice the last-level cache.

    Args:
        quick: a smaller buffer, for smoke tests; its figure is rough.
        cache: bytes of the last-level cache; None where the system does not tell.
        memory: bytes of the machine's memory, of which the buffer takes a quarter at most; None
            likewise.
    """
    cache = cache or 0
    size = max(64 << 20, 2 * cache) if quick else max(256 << 20, 8 * cache)
    return size if memory is None else min(size, memory // 4)


def int8_product(threads: int, side: int) -> tuple[Callable[[], Any] | None, str]:
    """A square product of uint8 and int8 by ONNX Runtime, and the library's name; None where it is not installed.

    The weights have 7 bits, as the exporter's have: a product on AVX2 does not saturate then.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        return None, ""
    rng = np.random.default_rng(0)
    left = rng.integers(0, 256, (side, side), np.uint8)
    right = rng.integers(-64, 64, (side, side), np.int8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(_product_graph(right), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": left})[0], f"ONNX Runtime {ort.__version__}, MatMulInteger"


def _product_graph(right: NDArray[np.int8]) -> bytes:
    """a uint8 [rows, k] -> a right, int32: an ONNX model by hand (onnx.proto), as the runtime has no onnx package."""
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
    weights = field(1, rows) + field(1, columns) + field(2, int8) + field(8, b"right") + field(9, right.tobytes())
    inputs, outputs = tensor_info(b"a", uint8, rows), tensor_info(b"y", int32, columns)
    graph = field(1, node) + field(2, b"product") + field(5, weights) + field(11, inputs) + field(12, outputs)
    return field(1, 8) + field(7, graph) + field(8, field(2, 13))  # IR version 8, opset 13


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _together(work: Callable[[Any], Any], parts: list[Any], clock: Callable[[], float]) -> float:
    """Seconds until all of `parts` are done, one thread each; numpy's loops release the interpreter lock."""
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
    print(json.dumps(dataclasses.asdict(_peaks(int(sys.argv[1]), sys.argv[2] == "1"))))
