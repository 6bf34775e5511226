"""ONNX Runtime's execution providers, and whether each can run here."""

from __future__ import annotations

import contextlib
import io
import os
import platform
from dataclasses import dataclass, field

from pulse_edge.engines import cuda_driver
from pulse_edge.engines.onnxruntime_library import load_onnxruntime
from pulse_edge.engines.options import PREFILL_CHUNK
from pulse_edge.errors import EngineError


@dataclass(frozen=True)
class Provider:
    """An execution provider and how to use it.

    Attributes:
        name: ONNX Runtime's name for it.
        device: ONNX Runtime's name for the memory of its tensors.
        row_cost: see `Engine`.
        packed_row_cost: the same for weights in blocks of 4 or 8 bits.
        prefill_chunk: default if `EngineOptions` has none; None for as much as memory allows.
        options: of the provider.
        config: of the session (onnxruntime_session_options_config_keys.h).
        shared: its tensors lie in the host's memory: writing an array is writing the input.
        graphs: options that capture decode steps, to be replayed as one launch.
    """

    name: str
    device: str
    row_cost: float
    packed_row_cost: float
    prefill_chunk: int | None = PREFILL_CHUNK
    options: dict[str, str] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)
    shared: bool = True
    graphs: dict[str, str] = field(default_factory=dict)


# CUDA options: docs/execution-providers/CUDA-ExecutionProvider. An arena that grows by what is
# asked for keeps the peak at what is used. The graphs hold no convolution, so cuDNN gets nothing to
# search and no workspace.
# Row costs: measured at 7B width; on two CPU cores (AVX2) 0.33-0.42 in int4 and int8. On an H100
# (ONNX Runtime 1.31.1) steps of 1, 2, 4, 8 and 16 rows after 2,933 tokens took 6.6, 7.3, 7.3, 7.3
# and 7.5 ms in fp16, and 3.6, 5.7, 5.1, 7.2 and 12.1 ms in int4; 2,933 tokens in int4 took 80 ms at
# once, 87 by 2,048 and 119 by 512.
# Left off: `ep.cuda.fpa_intb_gemm`. Its kernels for blocks of 32 were slower there (127 ms became
# 175, a step's 3.1 ms 3.8) and take 8 s more to load, to find the fastest.
PROVIDERS = {
    "cpu": Provider(
        name="CPUExecutionProvider",
        device="cpu",
        row_cost=0.4,
        packed_row_cost=0.4,
        config={"session.prepack.enable_parallel": "1"},  # 1.31 and newer; others ignore it
    ),
    "cuda": Provider(
        name="CUDAExecutionProvider",
        device="cuda",
        row_cost=0.03,
        packed_row_cost=0.2,
        prefill_chunk=None,
        options={
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "DEFAULT",
            "cudnn_conv_use_max_workspace": "0",
        },
        shared=False,
        graphs={"enable_cuda_graph": "1"},
    ),
}  # by `EngineOptions.device`
HOST = PROVIDERS["cpu"]  # for tensors that are read on the host whatever the device


def prepare_provider(device: str, provider: Provider) -> None:
    """Get ready to open sessions with a device's provider.

    Raises:
        EngineError: it cannot run here; the message says what to install.
    """
    ort = load_onnxruntime()
    if provider.name not in ort.get_available_providers():
        raise EngineError(_why_missing(device, provider))
    if device == "cuda":
        capability = cuda_driver.compute_capability()
        if refusal := cuda_driver.unsupported(capability, platform.machine()):
            raise EngineError(refusal)
        choose_attention(capability)
    ort.set_default_logger_severity(4)  # failures raise; ONNX Runtime's log would only repeat them
    if not provider.shared:
        # Load CUDA and cuDNN from their wheels: no system path leads there. It prints what it
        # does not find, which may not be needed.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def choose_attention(capability: int | None) -> None:
    """Let steps use cuDNN's attention instead of ONNX Runtime's XQA kernels.

    There is a choice from compute capability 9.0 on (group_query_attention.cc). On an H100 a step
    of int4 takes 2.89 ms instead of 3.05, and 3.37 instead of 3.56 after 2,933 tokens
    (benchmarks/results/gpu). ONNX Runtime has only an environment variable for it, which it reads
    when a session is made. A user's own setting stays.

    Args:
        capability: the GPU's, 90 for 9.0; None if not known.
    """
    if capability is not None and capability >= 90:
        os.environ.setdefault("ORT_ENABLE_XQA", "0")


def _why_missing(device: str, provider: Provider) -> str:
    """Why ONNX Runtime does not have a provider, and what to do."""
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        return (
            "onnxruntime and onnxruntime-gpu are both installed, "
            "and the CPU package has overwritten the GPU one; repair it: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'pulse-edge[gpu]'"
        )
    if device == "cuda" and not _installed("onnxruntime-gpu"):
        machine = platform.machine()
        limits = ""
        if cuda_driver.WHEELS.get(machine) == cuda_driver.ARM:
            limits = (
                f"; on {machine} its wheel serves compute capabilities "
                f"{cuda_driver.served(machine)}, and no Jetson: there use a bundle exported with "
                "--target tensorrt (docs/jetson.md)"
            )
        return (
            "device cuda needs the GPU build of ONNX Runtime, which replaces the CPU one: "
            f"pip uninstall -y onnxruntime && pip install 'pulse-edge[gpu]'{limits}"
        )
    ort = load_onnxruntime()
    available = ", ".join(ort.get_available_providers())
    return f"this ONNX Runtime {ort.__version__} has no {provider.name}; it has {available}"


def _installed(package: str) -> bool:
    from importlib import metadata  # takes 50 ms to import

    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
