"""ONNX Runtime: the CPU and CUDA providers, over the graphs of export/targets/contrib.py.

The CPU provider also runs those of standard.py, which are made for TensorRT: slowly, but with their numbers.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import mmap
import os
import platform
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.embeddings import HostTable, open_table
from pulse_edge.bundle.manifest import DECODER_GRAPH, VISION_GRAPH
from pulse_edge.decode.speculation import DRAFTS
from pulse_edge.engines import cuda_driver as driver
from pulse_edge.engines.chunk import prefill_chunk
from pulse_edge.engines.engine import Features, Rows, likeliest
from pulse_edge.engines.options import PREFILL_CHUNK, EngineOptions
from pulse_edge.errors import EngineError
from pulse_edge.progress import Progress

try:
    import onnxruntime as ort
except ImportError as error:
    raise EngineError(
        f"ONNX Runtime is not installed ({error}); for the CPU: pip install 'pulse-edge[cpu]', "
        "for NVIDIA GPUs: pip install 'pulse-edge[gpu]'"
    ) from None


@dataclass(frozen=True)
class Provider:
    """An ONNX Runtime execution provider and where its tensors live.

    shared: whether that is the host's memory, so that writing an array is writing the input. graphs: whether decode
    steps may be captured and replayed as one launch.
    """

    name: str
    device: str  # ONNX Runtime's name for the memory
    targets: tuple[str, ...]  # bundle targets it runs
    row_cost: float  # see engines.engine.Engine
    packed_row_cost: float  # the same, of weights in blocks of 4 or 8 bits
    prefill_chunk: int | None = PREFILL_CHUNK  # where `EngineOptions` has none; None: as memory allows
    options: dict[str, str] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)  # of the session (onnxruntime_session_options_config_keys.h)
    shared: bool = True
    graphs: dict[str, str] = field(default_factory=dict)  # options that turn graphs on


# CUDA options: docs/execution-providers/CUDA-ExecutionProvider. Growing the arena by what is asked keeps the peak at
# what is used. The graphs hold no convolution: cuDNN is given nothing to search and no workspace.
# Row costs: measured at 7B width; on two CPU cores (AVX2) 0.33-0.42 in int4 and int8. On an H100 (ONNX Runtime 1.31.1)
# steps of 1, 2, 4, 8 and 16 rows after 2,933 tokens took 6.6, 7.3, 7.3, 7.3 and 7.5 ms in fp16, and 3.6, 5.7, 5.1, 7.2
# and 12.1 ms in int4; 2,933 tokens in int4 took 80 ms at once, 87 by 2,048 and 119 by 512.
# Left off: `ep.cuda.fpa_intb_gemm`, whose kernels for blocks of 32 were slower there (127 ms became 175, a step's 3.1
# ms 3.8) and take 8 s more to load, to find the fastest.
PROVIDERS = {
    "cpu": Provider("CPUExecutionProvider", "cpu", ("cpu", "cuda", "standard"), 0.4, 0.4),
    "cuda": Provider(
        "CUDAExecutionProvider", "cuda", ("cuda",), 0.03, 0.2, None,
        {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "DEFAULT",
         "cudnn_conv_use_max_workspace": "0"},
        shared=False, graphs={"enable_cuda_graph": "1"},
    ),
}  # fmt: skip
HOST = PROVIDERS["cpu"]
GRAPH_ROWS = 1 + DRAFTS[-1]  # rows of the largest step whose binding, and graph, is kept: a token and a whole draft
NO_GRAPH = "-1"  # as gpu_graph_id; others name a graph (onnxruntime_run_options_config_keys.h)

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
    if device == "cuda":
        capability = driver.compute_capability()
        if refusal := driver.unsupported(capability, platform.machine()):
            raise EngineError(refusal)
        choose_attention(capability)
    ort.set_default_logger_severity(4)  # what fails raises; ONNX Runtime's own log would only repeat it
    if not provider.shared:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find, which may not be needed
            ort.preload_dlls()  # CUDA and cuDNN from their wheels, where no system path leads
    return OrtEngine(bundle, options, device, provider)


def choose_attention(capability: int | None) -> None:
    """Steps through cuDNN's attention instead of ONNX Runtime's XQA kernels, where there is that choice.

    That is from compute capability 9.0 on (group_query_attention.cc). On an H100 a step of int4 takes 2.89 ms instead
    of 3.05, and 3.37 instead of 3.56 after 2,933 tokens (benchmarks/results/gpu). An environment variable is all that
    ONNX Runtime has for it, read when a session is made; a user's own setting stays.
    """
    if capability is not None and capability >= 90:
        os.environ.setdefault("ORT_ENABLE_XQA", "0")


def profile_projector(bundle: Bundle, options: EngineOptions, pixels: Floats, runs: int) -> list[float]:
    """Seconds that the projector's kernels take of each `encode`, as ONNX Runtime's profiler has them, on the CPU. Its
    graph is the tower's, so that no clock of ours can tell the two apart."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads, settings.enable_profiling, settings.log_severity_level = options.threads, True, 4
    with tempfile.TemporaryDirectory() as folder:
        settings.profile_file_prefix = os.path.join(folder, "vision")
        session = ort.InferenceSession(str(bundle.file(VISION_GRAPH)), settings, providers=[HOST.name])
        for _ in range(runs):
            session.run(["features"], {"pixels": pixels})
        with open(session.end_profiling(), encoding="utf-8") as file:
            events = json.load(file)
    taken = [e for e in events if e["name"].endswith("_kernel_time") and "projector" in e["name"]]
    kernels = len(taken) // runs  # in the order of the runs
    return [1e-6 * sum(e["dur"] for e in taken[i * kernels : (i + 1) * kernels]) for i in range(runs)]


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
    """See `engines.engine.Engine`. The bindings of steps are kept; their buffers are written in place.

    Bundles for CUDA keep the embedding table and a page's features on the device: there a step copies the numbers of
    its rows and one length to the device, and tokens or logits back. Other bundles take embeddings from the host.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions, device: str, provider: Provider) -> None:
        manifest = bundle.manifest
        self._text = manifest.model.text
        self._options, self._device, self._provider = options, device, provider
        self._dtype: Any = np.float32 if manifest.precision.io == "fp32" else np.float16
        self._cached_as: Any = np.int8 if manifest.precision.kv_cache == "int8" else self._dtype
        self.capacity = min(options.context or self._text.context, self._text.context)
        packed = manifest.precision.decoder not in ("fp32", "fp16")
        self.length, self.row_cost = 0, provider.packed_row_cost if packed else provider.row_cost
        self._standard = manifest.target == "standard"
        with ThreadPoolExecutor() as pool:  # ONNX Runtime packs the weights of a session in one thread
            vision = pool.submit(self._session, bundle, VISION_GRAPH, provider.options)
            self._decoder, self._graphs = self._open_decoder(bundle)
            self._vision = vision.result()
        self._inputs = frozenset(i.name for i in self._decoder.get_inputs())
        if manifest.target == "cuda" and "rows" not in self._inputs:
            raise EngineError(f"{bundle.path} was exported by an older pulse-edge; export the checkpoint again")
        self._there = _DeviceTable(bundle, provider) if "rows" in self._inputs else None
        self._table = self._there or HostTable(bundle, self._dtype)
        self.table_rows = len(self._table)
        rows = self._text.context if self._standard else self.capacity  # the standard graphs' caches have one length
        shape = [1, self._text.kv_heads, rows, self._text.head_size]
        self._cache = {
            f"{layer}.{part}": self._empty_cache(shape)
            for layer in range(self._text.layers)
            for part in ("key", "value")
        }
        self.reset()
        self._chunk = self._chosen_chunk()
        self._steps: dict[int, _Run] = {}  # by rows
        self._looks: dict[tuple[int, ...], _Look] = {}  # by the shape of pixels
        # A page is looked at once and then asked about: what the tower took goes back before the decoder takes its own.
        self._shrinking = ort.RunOptions()
        if provider.shared:
            self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def _chosen_chunk(self) -> int:
        """Prompt tokens at a time: as asked for, as the provider has it, or as the device's free memory allows."""
        if self._options.prefill_chunk is not None:
            return self._options.prefill_chunk
        if self._provider.prefill_chunk is not None:
            return self._provider.prefill_chunk
        memory = driver.memory()
        return prefill_chunk(memory[0] if memory else None, self._text, self.capacity)

    def _open_decoder(self, bundle: Bundle) -> tuple[Any, bool]:
        """The decoder, and whether its steps are captured: not every version of a provider takes every node."""
        options, graphs = self._provider.options, self._provider.graphs
        if graphs:
            try:
                return self._session(bundle, DECODER_GRAPH, options | graphs), True
            except EngineError as error:
                if "graph capture" not in str(error):
                    raise
        return self._session(bundle, DECODER_GRAPH, options), False

    def _session(self, bundle: Bundle, graph: str, options: dict[str, str]) -> Any:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self._options.threads
        settings.enable_mem_pattern = False  # patterns are kept for every prompt length that ever ran
        settings.log_severity_level = 4  # what fails raises; nothing else is a user's concern
        for key, value in self._provider.config.items():
            settings.add_session_config_entry(key, value)
        if self._standard:
            # More of its optimizer would give quantized weights other activations than the graph says. What is left
            # turns small models' weights into floats once, and larger ones' at every call.
            small = bundle.size < FOLDED_BYTES
            level = ort.GraphOptimizationLevel
            settings.graph_optimization_level = level.ORT_ENABLE_BASIC if small else level.ORT_DISABLE_ALL
            settings.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            session = ort.InferenceSession(
                str(bundle.file(graph)), settings, providers=[(self._provider.name, options)]
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
            if self._provider.shared:
                return ort.OrtValue.ortvalue_from_numpy(_untouched(shape, self._cached_as))
            return ort.OrtValue.ortvalue_from_shape_and_type(shape, self._cached_as, self._provider.device, 0)
        except Exception as error:
            why = _first_line(error)
            raise EngineError(f"no memory for a cache of {shape[2]} tokens ({why}); lower --context") from None

    def encode(self, pixels: Floats) -> Features:
        try:
            if self._there is not None:
                return self._encode_there(self._there, pixels)
            features: Floats = self._vision.run(["features"], {"pixels": pixels}, self._shrinking)[0]
        except Exception as error:
            raise EngineError(f"the vision graph failed: {_first_line(error)}") from None
        return features

    def _encode_there(self, table: _DeviceTable, pixels: Floats) -> _Page:
        page = table.begin(len(pixels))
        look = self._looks.get(pixels.shape) or _Look(self._vision, table, pixels.shape, self._provider)
        look(pixels, self._shrinking)
        self._looks[pixels.shape] = look
        return page

    def rows(self, numbers: Numbers, page: Features | None = None) -> Rows:
        return self._table.rows(numbers, page)

    def prefill(self, rows: Rows, progress: Progress | None = None) -> Floats:
        start, chunk = self.length, self._chunk or len(rows)
        if progress:
            progress("prefill", 0, len(rows))
        try:
            for at in range(0, len(rows), chunk):
                part = rows[at : at + chunk]
                run = _Run(self, len(part), 1)
                run(part)
                if progress:
                    progress("prefill", len(part), len(rows))
            last: Floats = run.logits()[0]
        except BaseException:
            self.length = start
            raise
        return last

    def choose(self, rows: Rows) -> Numbers:
        run, start = self._stepper(len(rows)), self.length
        try:
            run(rows)
            return run.chosen()
        except BaseException:
            self.length = start
            raise

    def step(self, rows: Rows) -> Floats:
        run, start = self._stepper(len(rows)), self.length
        try:
            run(rows)
            return run.logits()
        except BaseException:
            self.length = start
            raise

    def _stepper(self, rows: int) -> _Run:
        if rows > GRAPH_ROWS:
            return _Run(self, rows, rows)
        if rows not in self._steps:
            self._steps[rows] = _Run(self, rows, rows, graph=str(rows) if self._graphs else NO_GRAPH)
        return self._steps[rows]

    def rewind(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind a cache of {self.length} to {length}")
        self.length = length

    def reset(self) -> None:
        """See `Engine.reset`. A device's memory comes with what others left in it; the CPU's kernels read no further
        than the cache's length."""
        self.length = 0
        if self._provider.shared:
            return
        shape, item = next(iter(self._cache.values())).shape(), np.dtype(self._cached_as).itemsize
        size = math.prod(shape) * item
        for value in self._cache.values():
            if not (self._device == "cuda" and driver.clear(value.data_ptr(), size)):
                value.update_inplace(np.zeros(shape, self._cached_as))

    def cached(self) -> dict[str, NDArray[Any]]:
        """What the cache holds, [1, kv heads, length, head size] by "layer.key" and "layer.value". On the CPU."""
        return {name: value.numpy()[:, :, : self.length] for name, value in self._cache.items()}

    def describe(self) -> dict[str, Any]:
        return {
            "engine": "onnxruntime",
            "engine_version": ort.__version__,
            "device": self._device,
            "provider": self._provider.name,
            "threads": self._options.threads,
            "context": self.capacity,
            "prefill_chunk": self._chunk,
            **({} if self._provider.shared else {"cuda_graphs": self._graphs}),
        }


class _Tensor:
    """An array, and the OrtValue where the provider reads or writes it: the same memory, or a copy on the device."""

    def __init__(self, array: NDArray[Any], provider: Provider) -> None:
        self.array, self._copied = array, not provider.shared
        # Not every version's OrtValue or binding keeps the array alive that it is a view of: `array` does.
        self.value = (
            ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), array.dtype.type, provider.device, 0)
            if self._copied
            else ort.OrtValue.ortvalue_from_numpy(array)
        )

    def write(self, array: NDArray[Any]) -> None:
        """Put a contiguous array of this shape where the provider reads it."""
        if self._copied:
            self.value.update_inplace(array)
        else:
            self.array[...] = array

    def upload(self) -> None:
        if self._copied:
            self.value.update_inplace(self.array)

    def download(self) -> None:
        if self._copied:
            self.array[...] = self.value.numpy()


class _Page:
    """The page that a device table holds: its features, [views, patches, hidden], by `np.asarray`."""

    def __init__(self, table: _DeviceTable, views: int) -> None:
        self._table, self._views = table, views

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        features = self._table.read(self, self._views)
        return features if dtype is None else features.astype(dtype)


class _DeviceTable:
    """The embedding table, and below it the features of one page, in one tensor on the device.

    So a prompt's rows are one gather, and a page never comes to the host. The tower writes into the tensor's end. For
    PULSE-7B the table is 262 MB and the page 24.
    """

    def __init__(self, bundle: Bundle, provider: Provider) -> None:
        model, table = bundle.manifest.model, open_table(bundle)
        self._patches, self._views, self._provider = model.vision.grid**2, model.most_views, provider
        self._rows, hidden = map(int, table.shape)
        whole = np.zeros((self._rows + self._views * self._patches, hidden), table.dtype)
        whole[: self._rows] = table
        try:
            tensor = _Tensor(whole, provider)
            tensor.upload()
        except Exception as error:
            raise EngineError(f"no memory for the embedding table ({_first_line(error)})") from None
        self.value = tensor.value
        self._whole = whole if provider.shared else None  # what the value is a view of
        self._dtype, self._hidden = table.dtype, hidden
        self._page: _Page | None = None

    def __len__(self) -> int:
        return self._rows

    def begin(self, views: int) -> _Page:
        """A new page, whose features are about to be written. From here on the last one's are gone."""
        if views > self._views:
            raise EngineError(f"{views} views, but a page of this model has at most {self._views}")
        self._page = _Page(self, views)
        return self._page

    def bind_page(self, binding: Any, views: int) -> None:
        """Let the tower write its features into the table."""
        address = self.value.data_ptr() + self._rows * self._hidden * self._dtype.itemsize
        shape = [views, self._patches, self._hidden]
        binding.bind_output("features", self._provider.device, 0, self._dtype.type, shape, address)

    def read(self, page: _Page, views: int) -> NDArray[Any]:
        self._check(page)
        features = self.value.numpy()[self._rows : self._rows + views * self._patches]
        copied: NDArray[Any] = features.reshape(views, self._patches, self._hidden).copy()
        return copied

    def rows(self, numbers: Numbers, page: Features | None) -> Rows:
        """The numbers themselves: the graph gathers."""
        if len(numbers) and int(numbers.max()) >= self._rows:
            self._check(page)
        return numbers

    def _check(self, page: Features | None) -> None:
        if page is None or page is not self._page:
            raise EngineError("the device keeps the features of the last page only, and this is an earlier one")


class _Look:
    """Pixels, and the binding of the tower, for a number of views; the features go into the table."""

    def __init__(self, vision: Any, table: _DeviceTable, shape: tuple[int, ...], provider: Provider) -> None:
        self._vision = vision
        self._pixels = _Tensor(np.empty(shape, np.float32), provider)
        self._binding = vision.io_binding()
        self._binding.bind_ortvalue_input("pixels", self._pixels.value)
        table.bind_page(self._binding, shape[0])

    def __call__(self, pixels: Floats, options: Any) -> None:
        self._pixels.write(np.ascontiguousarray(pixels, np.float32))
        self._vision.run_with_iobinding(self._binding, options)


class _Run:
    """Inputs, outputs and binding of the decoder for `rows` new positions and the logits of the last `wanted`.

    A graph, where it has one, replays what was read from the host's memory when it was captured. That is the total
    length alone, which lives there; it is the cache's then, and the operator goes by `seqlens_k`. No output may share
    memory with an input but the cache's: to capture a graph ONNX Runtime runs it more than once.
    """

    def __init__(self, engine: OrtEngine, rows: int, wanted: int, graph: str = NO_GRAPH) -> None:
        self._engine, self._rows, self._fixed = engine, rows, graph != NO_GRAPH
        self._options = ort.RunOptions()
        if engine._graphs:
            self._options.add_run_config_entry("gpu_graph_id", graph)
        try:
            self._bind(wanted)
        except Exception as error:
            why = _first_line(error)
            raise EngineError(f"no memory for {rows} tokens at a time ({why}); lower --prefill-chunk") from None

    def _bind(self, wanted: int) -> None:
        engine, rows, provider = self._engine, self._rows, self._engine._provider
        self._seqlens = _Tensor(np.zeros(1, np.int32), provider)
        self._total = _Tensor(np.full((), engine.capacity, np.int32), HOST)  # the operator reads it there
        self._position = _Tensor(np.zeros(1, np.int64), provider)  # what the standard graphs read instead
        self._wanted = _Tensor(np.arange(rows - wanted, rows), provider)
        self._wanted.upload()
        self._logits = _Tensor(np.empty((wanted, engine._text.vocab), np.float32), provider)
        self._binding = engine._decoder.io_binding()
        self._bind_rows(wanted)
        if engine._standard:
            self._binding.bind_ortvalue_input("position", self._position.value)
        else:
            self._binding.bind_ortvalue_input("seqlens_k", self._seqlens.value)
            self._binding.bind_ortvalue_input("total_length", self._total.value)
        self._binding.bind_ortvalue_input("logit_rows", self._wanted.value)
        self._binding.bind_ortvalue_output("logits", self._logits.value)
        for name, value in engine._cache.items():  # input and output are one buffer: the operator appends in place
            self._binding.bind_ortvalue_input(f"past.{name}", value)
            self._binding.bind_ortvalue_output(f"present.{name}", value)

    def _bind_rows(self, wanted: int) -> None:
        """Numbers and the table they point into, and the tokens chosen; or embeddings."""
        engine, provider = self._engine, self._engine._provider
        self._tokens: _Tensor | None = None
        if engine._there is None:
            self._embeds = _Tensor(np.empty((1, self._rows, engine._text.hidden), engine._dtype), provider)
            self._binding.bind_ortvalue_input("inputs_embeds", self._embeds.value)
            return
        self._embeds = _Tensor(np.zeros(self._rows, np.int64), provider)
        self._tokens = _Tensor(np.zeros(wanted, np.int64), provider)
        self._binding.bind_ortvalue_input("rows", self._embeds.value)
        self._binding.bind_ortvalue_input("table", engine._there.value)
        self._binding.bind_ortvalue_output("tokens", self._tokens.value)

    def __call__(self, rows: Rows) -> None:
        """Append the rows to the cache; then `logits` and `chosen` tell what comes after them."""
        engine = self._engine
        total = engine.length + self._rows
        if total > engine.capacity:  # the operator would grow the cache, or write beyond it
            raise EngineError(f"{total} tokens do not fit a cache of {engine.capacity}")
        if rows.ndim != self._embeds.array.ndim - (self._tokens is None):
            raise ValueError(f"rows are of shape {rows.shape}; `Engine.rows` makes those that fit")
        self._embeds.array[...] = rows
        self._seqlens.array[0] = total - 1
        if not self._fixed:
            self._total.array[...] = total
        self._position.array[0] = engine.length
        try:
            self._embeds.upload()
            self._seqlens.upload()
            if engine._standard:
                self._position.upload()
            engine._decoder.run_with_iobinding(self._binding, self._options)
        except Exception as error:
            raise EngineError(f"the decoder graph failed at {total} tokens: {_first_line(error)}") from None
        engine.length = total

    def logits(self) -> Floats:
        """float32 [wanted, vocab] of the last run; valid until the next."""
        self._logits.download()
        return self._logits.array

    def chosen(self) -> Numbers:
        """The likeliest tokens [wanted] of the last run, -1 where a logit is not finite."""
        if self._tokens is None:
            return likeliest(self.logits())
        self._tokens.download()
        return self._tokens.array.copy()


def _untouched(shape: list[int], dtype: Any) -> NDArray[Any]:
    """Zeros whose memory is taken page by page as it fills.

    Not `np.zeros`, which asks Linux for pages of 2 MB: those are as long as a head's part of the cache at 7B, so that
    the first token would take, and clear, all 4.3 GB of it.
    """
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    memory = mmap.mmap(-1, math.prod(shape) * np.dtype(dtype).itemsize, **private)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
