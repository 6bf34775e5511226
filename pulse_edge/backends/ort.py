"""ONNX Runtime: the CPU and CUDA providers, over the graphs of export/targets/contrib.py.

The CPU provider also runs those of standard.py, which are made for TensorRT: slowly, but with their numbers.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import DECODER_GRAPH, VISION_GRAPH, Bundle, Progress
from ..errors import EngineError
from . import EngineOptions, Floats

try:
    import onnxruntime as ort
except ImportError as error:
    raise EngineError(
        f"ONNX Runtime is not installed ({error}); for the CPU: pip install 'pulse-edge[cpu]', "
        "for NVIDIA GPUs: pip install 'pulse-edge[gpu]'"
    ) from None


@dataclass(frozen=True)
class Provider:
    """An ONNX Runtime execution provider and where its tensors live."""

    name: str
    device: str  # ONNX Runtime's name for the memory
    targets: tuple[str, ...]  # bundle targets it runs
    options: dict[str, Any] = field(default_factory=dict)


# CUDA options: docs/execution-providers/CUDA-ExecutionProvider. The graphs hold no convolution, so cuDNN has nothing
# to search; growing the arena by what is asked keeps the peak at what is used.
PROVIDERS = {
    "cpu": Provider("CPUExecutionProvider", "cpu", ("cpu", "cuda", "standard")),
    "cuda": Provider(
        "CUDAExecutionProvider", "cuda", ("cuda",),
        {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "DEFAULT"},
    ),
}  # fmt: skip

FOLDED_BYTES = 500_000_000


def open_engine(bundle: Bundle, options: EngineOptions) -> OrtEngine:
    """Raises `EngineError` when the device is unknown, not usable here, or does not run this bundle."""
    target = bundle.manifest.target
    device = options.device
    if device == "auto":
        device = target if target in PROVIDERS else "cpu"
    provider = PROVIDERS.get(device)
    if provider is None:
        raise EngineError(f"device {device!r} is not one of auto, {', '.join(PROVIDERS)}")
    if target not in provider.targets:
        raise EngineError(
            f"{bundle.path} was exported for {target} and does not run on {device}; "
            f"export it again with --target {device}, or use --device {target if target in PROVIDERS else 'cpu'}"
        )
    if provider.name not in ort.get_available_providers():
        raise EngineError(_why_no_provider(device, provider))
    ort.set_default_logger_severity(4)  # what fails raises; ONNX Runtime's own log would only repeat it
    if provider.device == "cuda":
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find, which may not be needed
            ort.preload_dlls()  # CUDA and cuDNN from their wheels, where no system path leads
    return OrtEngine(bundle, options, device, provider)


def _why_no_provider(device: str, provider: Provider) -> str:
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        return (
            "onnxruntime and onnxruntime-gpu are both installed, and the CPU package has overwritten the GPU one; "
            "repair it: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'pulse-edge[gpu]'"
        )
    if device == "cuda" and not _installed("onnxruntime-gpu"):
        return (
            "device cuda needs the GPU build of ONNX Runtime, which replaces the CPU one: "
            "pip uninstall -y onnxruntime && pip install 'pulse-edge[gpu]'"
        )
    there = ", ".join(ort.get_available_providers())
    return f"this ONNX Runtime {ort.__version__} has no {provider.name}; it has {there}"


def _installed(distribution: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


class OrtEngine:
    """See `backends.Engine`. One IO binding is kept for single-token steps; its buffers are written in place."""

    def __init__(self, bundle: Bundle, options: EngineOptions, device: str, provider: Provider) -> None:
        manifest = bundle.manifest
        self._text = manifest.model.text
        self._options, self._device, self._provider = options, device, provider
        self._io: Any = np.float32 if manifest.precision.io == "fp32" else np.float16
        self.capacity = min(options.context or self._text.context, self._text.context)
        self.length = 0
        self._standard = manifest.target == "standard"
        self._vision = self._session(bundle, VISION_GRAPH)
        self._decoder = self._session(bundle, DECODER_GRAPH)
        rows = self._text.context if self._standard else self.capacity  # the standard graphs' caches have one length
        shape = [1, self._text.kv_heads, rows, self._text.head_size]
        self._cache = {
            f"{layer}.{part}": self._empty_cache(shape)
            for layer in range(self._text.layers)
            for part in ("key", "value")
        }
        self._single = _Run(self, 1, 1)

    def _session(self, bundle: Bundle, graph: str) -> Any:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self._options.threads
        settings.enable_mem_pattern = False  # patterns are kept for every prompt length that ever ran
        settings.log_severity_level = 4  # what fails raises; nothing else is a user's concern
        if self._standard:
            # More of its optimizer would give quantized weights other activations than the graph says. What is left
            # turns small models' weights into floats once, and larger ones' at every call.
            small = bundle.size < FOLDED_BYTES
            level = ort.GraphOptimizationLevel
            settings.graph_optimization_level = level.ORT_ENABLE_BASIC if small else level.ORT_DISABLE_ALL
            settings.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            session = ort.InferenceSession(
                str(bundle.file(graph)), settings, providers=[(self._provider.name, self._provider.options)]
            )
        except Exception as error:  # pybind's exceptions share no base below Exception
            raise EngineError(f"{bundle.file(graph)}: ONNX Runtime cannot load it ({_first_line(error)})") from None
        if self._provider.name not in session.get_providers():
            # ONNX Runtime falls back to the CPU in silence when a provider's libraries or driver do not load.
            raise EngineError(
                f"{self._provider.name} did not start: no NVIDIA GPU, or its driver, CUDA 13 or cuDNN 9 is missing; "
                "see nvidia-smi and pip install 'pulse-edge[gpu]', or use a bundle exported with --target cpu"
            )
        return session

    def _empty_cache(self, shape: list[int]) -> Any:
        try:
            if self._provider.device == "cpu":
                return ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, self._io))  # pages are taken as they fill
            return ort.OrtValue.ortvalue_from_shape_and_type(shape, self._io, self._provider.device, 0)
        except Exception as error:
            why = _first_line(error)
            raise EngineError(f"no memory for a cache of {shape[2]} tokens ({why}); lower --context") from None

    def encode(self, pixels: Floats) -> Floats:
        try:
            features: Floats = self._vision.run(["features"], {"pixels": pixels})[0]
        except Exception as error:
            raise EngineError(f"the vision graph failed: {_first_line(error)}") from None
        return features

    def prefill(self, embeds: Floats, progress: Progress | None = None) -> Floats:
        start, chunk = self.length, self._options.prefill_chunk or len(embeds)
        if progress:
            progress("prefill", 0, len(embeds))
        try:
            for at in range(0, len(embeds), chunk):
                part = embeds[at : at + chunk]
                logits = _Run(self, len(part), 1)(part)
                if progress:
                    progress("prefill", len(part), len(embeds))
        except BaseException:
            self.length = start
            raise
        last: Floats = logits[0]
        return last

    def step(self, embeds: Floats) -> Floats:
        rows = len(embeds)
        return (self._single if rows == 1 else _Run(self, rows, rows))(embeds)

    def rewind(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind a cache of {self.length} to {length}")
        self.length = length

    def describe(self) -> dict[str, Any]:
        return {
            "engine": "onnxruntime",
            "engine_version": ort.__version__,
            "device": self._device,
            "provider": self._provider.name,
            "threads": self._options.threads,
            "context": self.capacity,
        }


class _Run:
    """Inputs, outputs and binding of the decoder for `rows` new positions and the logits of the last `wanted`."""

    def __init__(self, engine: OrtEngine, rows: int, wanted: int) -> None:
        self._engine, self._rows = engine, rows
        self._embeds: NDArray[Any] = np.empty((1, rows, engine._text.hidden), engine._io)
        self._seqlens = np.zeros(1, np.int32)  # contrib: cache rows after this call, less one
        self._total = np.zeros((), np.int32)
        self._position = np.zeros(1, np.int64)  # standard: cache rows before it
        self._wanted = np.arange(rows - wanted, rows)
        self._logits: Floats = np.empty((wanted, engine._text.vocab), np.float32)
        self._binding = engine._decoder.io_binding()
        # On the CPU these OrtValues are views of the arrays: writing the array is writing the input. The arrays are
        # attributes because not every version's binding keeps them alive.
        bind = ort.OrtValue.ortvalue_from_numpy
        self._binding.bind_ortvalue_input("inputs_embeds", bind(self._embeds))
        if engine._standard:
            self._binding.bind_ortvalue_input("position", bind(self._position))
        else:
            self._binding.bind_ortvalue_input("seqlens_k", bind(self._seqlens))
            self._binding.bind_ortvalue_input("total_length", bind(self._total))
        self._binding.bind_ortvalue_input("logit_rows", bind(self._wanted))
        self._binding.bind_ortvalue_output("logits", bind(self._logits))
        for name, value in engine._cache.items():  # input and output are one buffer: the operator appends in place
            self._binding.bind_ortvalue_input(f"past.{name}", value)
            self._binding.bind_ortvalue_output(f"present.{name}", value)

    def __call__(self, embeds: Floats) -> Floats:
        engine = self._engine
        total = engine.length + self._rows
        if total > engine.capacity:  # the operator would grow the cache, or write beyond it
            raise EngineError(f"{total} tokens do not fit a cache of {engine.capacity}")
        self._embeds[0] = embeds
        self._seqlens[0] = total - 1
        self._total[...] = total
        self._position[0] = engine.length
        try:
            engine._decoder.run_with_iobinding(self._binding)
        except Exception as error:
            raise EngineError(f"the decoder graph failed at {total} tokens: {_first_line(error)}") from None
        engine.length = total
        return self._logits


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
