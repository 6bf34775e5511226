"""What fits on a device, and the latency that a roofline predicts. Every figure here is a PREDICTION.

    memory  = weights + KV cache + activations + workspace
    prefill = linear FLOP / (GEMM peak x share) + attention FLOP / (fp32 or fp16 peak x share), no less than its reads
    vision  = the same over the tower and the projector
    step    = weights / (bandwidth x share) + cached bytes / (bandwidth x share) + layers x overhead
    TTFT    = vision + prefill; tokens/s = 1 / step at the prompt's depth

`cost.py` counts FLOP and bytes. Shares are what kernels reach of the peaks. For CPUs those of int4 and w8a8 were set
from measurements on one, at two sizes, which they meet within 18 %; no other measurement has tested them yet
(`python -m benchmarks.predictions` does, and records how far off they are). All others are assumed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, Literal

from pulse_edge import system
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, VISION_GRAPH
from pulse_edge.bundle.spec import TextSpec, VisionSpec
from pulse_edge.engines.chunk import FP16, plan_rows, prefill_chunk, scratch
from pulse_edge.engines.options import PREFILL_CHUNK
from pulse_edge.errors import ParameterError
from pulse_edge.measure import cost
from pulse_edge.measure import tables as figures
from pulse_edge.measure.peaks import measure_peaks

GB, TERA = 10**9, 10**12
Engine = Literal["onnxruntime", "tensorrt"]
FLOATS = 4  # bytes of an activation on CPUs; on GPUs it is fp16


@dataclass(frozen=True)
class Geometry:
    """A model's sizes. `tokens`: of a prompt with a page, text included; `views`: of that page."""

    name: str
    text: TextSpec
    vision: VisionSpec
    projector_depth: int
    tokens: int
    views: int


PULSE_7B = Geometry(
    "pulse-7b",
    TextSpec(4096, 32, 32, 32, 128, 11008, 32000, 1e-5, 10000.0, 4096, 1, (2,)),
    VisionSpec(336, 14, 1024, 16, 24, 23, 4096, "quick_gelu", 1e-5),
    projector_depth=2, tokens=2933, views=5,
)  # fmt: skip


@dataclass(frozen=True)
class Device:
    """memory: bytes, of which `reserved` are the system's. read: bytes/s. gemm: dense FLOP/s by type, no sparsity."""

    name: str
    title: str
    kind: Literal["cpu", "gpu"]
    memory: float
    reserved: float
    read: float
    gemm: dict[str, float]
    engine: Engine = "onnxruntime"


def _gpu(name: str, title: str, memory: float, reserved: float, read: float, fp16: float, int8: float) -> Device:
    """memory and reserved in GB, read in GB/s, the rest in TFLOP/s."""
    gemm = {"fp16": fp16 * TERA, "int8": int8 * TERA}
    return Device(name, title, "gpu", memory * GB, reserved * GB, read * GB, gemm)


def _jetson(*row: Any) -> Device:
    """ONNX Runtime's wheel has no code for it: its GPU is TensorRT's."""
    return replace(_gpu(*row), engine="tensorrt")


# Memory, bandwidth and dense tensor-core rates. NVIDIA's headline figures for Ampere and later count 2:4 sparsity; they
# are halved here. Orin's GPU: SMs x clock x 4096 int8 operations (Jetson Orin datasheets: 8 SMs at 1.02 GHz on the
# Nano in its 25 W Super mode, 8 at 918 MHz on the NX, 16 at 1.3 GHz on the AGX 64 GB; what the DLAs add is left out),
# fp16 half of it. Thor: T5000 datasheet, 2,070 sparse FP4 TFLOPS, so 517 dense in 8 bits and 259 in fp16. T4, L4, A10,
# A100 80 GB SXM and H100 80 GB SXM: their product datasheets. RTX 4060: Ada whitepaper, 24 SMs at 2.46 GHz, fp16 with
# fp32 accumulation as the kernels for transformers use it.
# Reserved: an assumption; on a Jetson the system and the desktop share the memory, on a card only the driver's context.
DEVICES = {
    d.name: d
    for d in (
        _jetson("orin-nano-8gb", "Jetson Orin Nano 8 GB (Super, 25 W)", 8, 1.5, 102, 16.7, 33.4),
        _jetson("orin-nx-16gb", "Jetson Orin NX 16 GB", 16, 1.5, 102.4, 15.0, 30.1),
        _jetson("agx-orin", "Jetson AGX Orin 64 GB", 64, 1.5, 204.8, 42.6, 85.2),
        _jetson("thor", "Jetson AGX Thor (T5000)", 128, 2, 273, 259, 517),
        _gpu("t4", "T4", 16, 0.5, 320, 65, 130),
        _gpu("l4", "L4", 24, 0.5, 300, 121, 242),
        _gpu("a10", "A10", 24, 0.5, 600, 125, 250),
        _gpu("rtx-4060", "GeForce RTX 4060", 8, 0.5, 272, 30.2, 121),
        _gpu("a100", "A100 80 GB SXM", 80, 0.5, 2039, 312, 624),
        _gpu("h100", "H100 80 GB SXM", 80, 0.5, 3350, 989, 1979),
    )
}
THIS = "this"


def this_device(threads: int = 0, quick: bool = False) -> Device:
    """The CPU that this runs on: its memory as the system tells it, its peaks as measured now (seconds)."""
    peaks, host = measure_peaks(threads, quick), system.describe()
    if peaks is None or not host["memory"]:
        raise ParameterError("this machine's peaks could not be measured; name a device")
    title = f"{host['name']}, {peaks.threads} threads, peaks measured now"
    return Device(THIS, title, "cpu", host["memory"], 1 * GB, peaks.read, peaks.gemm)


def device_named(name: str, threads: int = 0) -> Device:
    """Raises `ParameterError` for a name that is not in the table."""
    if name == THIS:
        return this_device(threads)
    if name not in DEVICES:
        raise ParameterError(f"device {name!r} is not one of {THIS}, {', '.join(DEVICES)}")
    return DEVICES[name]


@dataclass(frozen=True)
class Way:
    """How a precision runs on a kind of device. Bytes are those of a weight, scales included (blocks of 128).

    gemm: the type that is multiplied, and gemm_share what its kernels reach of that peak; likewise for the others.
    step_overhead: seconds a layer adds to a decode step that are neither reads nor products.
    tower: what the vision tower and projector are stored as (the export's `--tower`). engine: what
    runs it; on GPUs ONNX Runtime keeps the embedding table and a page's features in their memory.
    """

    precision: str
    kind: Literal["cpu", "gpu"]
    cache: Literal["fp32", "fp16", "int8"]
    decoder: float  # bytes a weight
    head: float
    vision: float
    gemm: str
    gemm_share: float
    attention: str
    attention_share: float
    vision_share: float
    read_share: float
    cache_share: float
    step_overhead: float
    tower: str = "int8"
    engine: Engine = "onnxruntime"


# CPU: measured on two cores of an AMD EPYC (Zen 3, AVX2) at 7B width with ONNX Runtime 1.32; the recorded check is in
# benchmarks/results/predictions.jsonl. int8 in blocks, and int8 caches, are taken to be as int4 and floats there; they
# were not checked. Other processors' kernels reach other shares, above all with VNNI.
_BLOCK = 4 / 128, 2 / 128  # bytes of a scale for each weight: fp32 on CPUs, fp16 on GPUs
_CPU = Way(
    "int8", "cpu", "fp32", decoder=1 + _BLOCK[0], head=1 + _BLOCK[0], vision=1, gemm="int8", gemm_share=0.54,
    attention="fp32", attention_share=0.6, vision_share=0.75, read_share=0.58, cache_share=0.7, step_overhead=60e-6,
)  # fmt: skip
_GPU = Way(
    "int8", "gpu", "fp16", decoder=1 + _BLOCK[1], head=1 + _BLOCK[1], vision=2, gemm="fp16",
    gemm_share=0.5, attention="fp16", attention_share=0.4, vision_share=0.5, read_share=0.7,
    cache_share=0.6, step_overhead=20e-6, tower="fp16",
)  # fmt: skip
INT8_TOWER = 1 + _BLOCK[1]  # bytes a weight of `--tower int8` on a GPU
WAYS: tuple[Way, ...] = (
    replace(_CPU, precision="int4", decoder=0.5 + _BLOCK[0]),
    _CPU,
    replace(_CPU, precision="w8a8", decoder=1, gemm_share=0.85, read_share=0.66),
    replace(_GPU, precision="fp16", decoder=2, head=2, gemm_share=0.6, read_share=0.75),
    replace(
        _GPU,
        precision="w8a8",
        decoder=1,
        vision=1,
        gemm="int8",
        tower="w8a8",
        engine="tensorrt",
    ),
    _GPU,
    replace(_GPU, precision="int4", decoder=0.5 + _BLOCK[1]),
)
WORKSPACE = {"cpu": 0.2 * GB, "gpu": 0.6 * GB}  # interpreter and libraries; a GPU's context and its library's scratch


@dataclass(frozen=True)
class Prediction:
    """Bytes and seconds, none of them measured.

    max_context: the longest that fits, 0 where the weights do not. prefill_rows: tokens of a prompt
    at a time. needs_int8_tower: at this context it fits with `--tower int8` only, which takes
    `tower_saving` bytes less.
    """

    precision: str
    cache: str
    weights: int
    cache_bytes: int
    activations: int
    workspace: int
    fits: bool
    max_context: int
    prefill_rows: int
    engine: str
    tower: str
    tower_saving: int
    needs_int8_tower: bool
    vision: float
    prefill: float
    ttft_cold: float
    ttft_warm: float
    step: float

    @property
    def total(self) -> int:
        return self.weights + self.cache_bytes + self.activations + self.workspace


@dataclass(frozen=True)
class Weights:
    """Bytes of each part that stay in the device's memory.

    table: embeddings and a page's features, where they lie there; else rows come from the disk.
    """

    decoder: float
    head: float
    vision: float
    table: float

    @property
    def total(self) -> float:
        return self.decoder + self.head + self.vision + self.table


def stored(geometry: Geometry, way: Way) -> Weights:
    text = geometry.text
    there = (way.kind, way.engine) == ("gpu", "onnxruntime")
    rows = text.vocab + geometry.views * geometry.vision.grid**2
    return Weights(
        text.layers * cost.layer_weights(text) * way.decoder,
        text.hidden * text.vocab * way.head,
        cost.vision_weights(geometry.vision, text.hidden, geometry.projector_depth) * way.vision,
        rows * text.hidden * FP16 if there else 0,
    )


def way_on(way: Way, device: Device) -> Way:
    """The row as a device runs it: on a Jetson by TensorRT, with an int8 tower in int8 and int4."""
    if way.kind != "gpu" or way.engine == device.engine or device.engine == "onnxruntime":
        return way
    small = way.precision in ("int8", "int4")
    vision, tower = (1.0, "int8") if small else (way.vision, way.tower)
    return replace(way, engine=device.engine, vision=vision, tower=tower)


def of_bundle(bundle: Bundle) -> Geometry:
    """A page of the usual shape fills the largest grid, and its question takes 53 tokens."""
    model = bundle.manifest.model
    side = model.vision.image_size
    views = 1 + max((w // side) * (h // side) for w, h in model.image.grids) if model.image.aspect == "anyres" else 1
    tokens = min(views * model.vision.grid**2 + 53, model.text.context)
    return Geometry(bundle.manifest.checkpoint.name, model.text, model.vision, model.projector_depth, tokens, views)


def way_of_bundle(bundle: Bundle, geometry: Geometry) -> Way:
    """The row of the bundle's precision, with the bytes that its files really take. Raises `ParameterError`."""
    made = bundle.manifest.precision
    kind = "cpu" if bundle.manifest.target == "cpu" else "gpu"
    for way in WAYS:
        if (way.precision, way.kind) == (made.name, kind):
            sizes = {f.path: f.size for f in bundle.manifest.files}
            counted = stored(geometry, way)
            decoder = sum(size for path, size in sizes.items() if path.startswith(DECODER_GRAPH))
            vision = sum(size for path, size in sizes.items() if path.startswith(VISION_GRAPH))
            return replace(
                way,
                cache=made.kv_cache,
                decoder=way.decoder * (decoder - counted.head) / counted.decoder,
                vision=way.vision * vision / counted.vision,
                tower=made.vision,
                engine="tensorrt" if bundle.manifest.target == "standard" else "onnxruntime",
            )
    raise ParameterError(f"nothing is known of {made.name} bundles for {bundle.manifest.target}; name a model instead")


def prefill_seconds(
    text: TextSpec,
    way: Way,
    device: Device,
    weights: float,
    tokens: int,
    before: int = 0,
    chunk: int = PREFILL_CHUNK,
) -> float:
    """Seconds of a prompt. A pass takes what its products take, or its reads where that is longer.

    Args:
        weights: bytes that each pass reads.
        tokens: of the prompt, after `before` that the cache holds.
        chunk: tokens of a pass.
    """
    seconds = 0.0
    for at, rows in cost.passes(tokens, before, chunk):
        products = cost.linear(text, rows) / (device.gemm[way.gemm] * way.gemm_share)
        products += cost.attention(text, at, rows) / (device.gemm[way.attention] * way.attention_share)
        seconds += max(products, weights / (device.read * way.read_share)) + text.layers * way.step_overhead
    return seconds


def vision_seconds(geometry: Geometry, way: Way, device: Device) -> float:
    vision, hidden, views = geometry.vision, geometry.text.hidden, geometry.views
    linear = cost.vision_linear(vision, hidden, geometry.projector_depth, views)
    return linear / (device.gemm[way.gemm] * way.vision_share) + cost.vision_attention(vision, views) / (
        device.gemm[way.attention] * way.attention_share
    )


def step_seconds(text: TextSpec, way: Way, device: Device, weights: float, depth: int) -> float:
    cached = cost.cache_row(text, way.cache) * depth
    reads = weights / (device.read * way.read_share) + cached / (device.read * way.cache_share)
    return reads + text.layers * way.step_overhead


def activations(geometry: Geometry, kind: str, context: int, rows: int) -> int:
    """Bytes that the two networks take besides weights and cache.

    rows: tokens of a prompt at a time.

    GPU: the larger of the two, as the tower's go back before the decoder runs; the decoder's as the
    engine counts them (engines/chunk.py). CPU: both, as ONNX Runtime's arena keeps what it took;
    the decoder's are a chunk's rows through the MLP (gate, up, their product), the residual's
    copies, and the attention's scores of one chunk. Vision: all views through the MLP, twice, and
    the residual's copies.
    """
    text, vision = geometry.text, geometry.vision
    patches = geometry.views * (vision.grid**2 + 1)
    tower = patches * (2 * vision.mlp + 4 * vision.width)
    if kind == "gpu":
        return max(scratch(text, rows), tower * FP16)
    decoder = rows * (3 * text.ffn + 6 * text.hidden) + text.heads * rows * context
    return (decoder + tower) * FLOATS


def prefill_rows(text: TextSpec, way: Way, device: Device, context: int, free: float) -> int:
    """Tokens of a prompt at a time, as the engine takes them.

    free: bytes of the device's memory that are left after weights, cache and workspace.
    """
    if way.kind == "cpu":
        chunk = PREFILL_CHUNK
    elif way.engine == "tensorrt":
        chunk = plan_rows(device.memory)
    else:
        chunk = prefill_chunk(int(free), text, context)
    return min(chunk or context, context)


def predict(geometry: Geometry, device: Device, way: Way, context: int | None = None) -> Prediction:
    """context: of the cache; None is the model's."""
    text, context = geometry.text, context or geometry.text.context
    way = way_on(way, device)
    weights = stored(geometry, way)
    read = weights.decoder + weights.head
    workspace = WORKSPACE[device.kind]
    row = cost.cache_row(text, way.cache)
    left = device.memory - device.reserved - weights.total - workspace  # for cache and activations
    rows = prefill_rows(text, way, device, context, left - row * context)
    busy = activations(geometry, device.kind, context, rows)
    fewest = rows if way.engine == "tensorrt" else min(PREFILL_CHUNK, context)  # a plan's are fixed
    least = activations(geometry, device.kind, context, fewest)
    saving = weights.vision * (1 - INT8_TOWER / 2) if way.tower == "fp16" else 0
    fits = left - busy >= row * context
    tokens = min(geometry.tokens, context)
    vision = vision_seconds(geometry, way, device)
    prefill = prefill_seconds(text, way, device, read, tokens, chunk=rows)
    second = prefill_seconds(text, way, device, read, SECOND, tokens, chunk=rows)
    return Prediction(
        precision=way.precision,
        cache=way.cache,
        weights=round(weights.total),
        cache_bytes=row * context,
        activations=round(busy),
        workspace=round(workspace),
        fits=fits,
        max_context=max(0, min(text.context, int((left - least) / row))),
        prefill_rows=rows,
        engine=way.engine,
        tower=way.tower,
        tower_saving=round(saving),
        needs_int8_tower=not fits and left - least + saving >= row * context,
        vision=vision,
        prefill=prefill,
        ttft_cold=vision + prefill,
        ttft_warm=second,
        step=step_seconds(text, way, device, read, tokens),
    )


SECOND = 16  # tokens of a second question that are new to the cache


def predictions(geometry: Geometry, device: Device, ways: tuple[Way, ...], context: int | None) -> list[Prediction]:
    """One for each way that the device can run."""
    if context is not None and not 1 <= context <= geometry.text.context:
        raise ParameterError(f"context is {context}, but must be from 1 to the model's {geometry.text.context}")
    able = [w for w in ways if w.kind == device.kind and {w.gemm, w.attention} <= device.gemm.keys()]
    if not able:
        raise ParameterError(f"{device.title} runs none of {', '.join(w.precision + ' for ' + w.kind for w in ways)}")
    return [predict(geometry, device, way, context) for way in able]


def report(geometry: Geometry, device: Device, found: list[Prediction], context: int | None) -> dict[str, Any]:
    """JSON-ready. Bytes and seconds."""
    return {
        "what": "PREDICTED by a roofline, not measured",
        "formula": (__doc__ or "").split("\n\n")[1],
        "shares": "measured on another CPU" if device.kind == "cpu" else "assumed; worth on an H100: see the README",
        "model": {"name": geometry.name, "prompt_tokens": geometry.tokens, "views": geometry.views},
        "context": context or geometry.text.context,
        "device": dataclasses.asdict(device),
        "predictions": [dataclasses.asdict(p) | {"total": p.total} for p in found],
    }


def text(geometry: Geometry, device: Device, found: list[Prediction], context: int | None) -> str:
    """For people."""
    made = report(geometry, device, found, context)
    rows: list[tuple[str, ...]] = [
        ("precision, cache", "weights", "cache", "activations", "workspace", "all", "context that fits",
         "vision", "TTFT cold", "warm", "tokens/s"),
        *(_row(p) for p in found),
    ]  # fmt: skip
    gemm = ", ".join(f"{kind} {rate / TERA:.3g} TFLOP/s" for kind, rate in device.gemm.items())
    return "\n".join([
        f"{made['what']}. Shares of the peaks: {made['shares']}.",
        f"{geometry.name} on {device.title}: {device.memory / GB:.3g} GB, {device.reserved / GB:.3g} of them taken for "
        f"the system; {device.read / GB:.4g} GB/s; {gemm}",
        f"context {made['context']}, prompt {geometry.tokens} tokens of which {geometry.views} views make most",
        "",
        figures.table(rows),
        *_notes(found),
        "",
        made["formula"],
    ])  # fmt: skip


def _notes(found: list[Prediction]) -> list[str]:
    """What to export otherwise, below the table."""
    small = [p for p in found if p.needs_int8_tower]
    if not small:
        return []
    saving = figures.number(small[0].tower_saving, "bytes")
    return [
        "",
        "Counted with a vision tower in fp16, the default of --target cuda. "
        f"{', '.join(p.precision for p in small)}: fits with --tower int8, "
        f"which takes {saving} less.",
    ]


def _row(p: Prediction) -> tuple[str, ...]:
    bytes_ = (figures.number(b, "bytes") for b in (p.weights, p.cache_bytes, p.activations, p.workspace, p.total))
    seconds = (figures.number(s, "s") for s in (p.vision, p.ttft_cold, p.ttft_warm))
    fits = "all" if p.fits else f"{p.max_context:,}" if p.max_context else "none: too large"
    if p.needs_int8_tower:
        fits += "; all with --tower int8"
    return (f"{p.precision}, {p.cache}", *bytes_, fits, *seconds, figures.number(1 / p.step, "tokens/s"))


def device_table() -> str:
    rows: list[tuple[str, ...]] = [("name", "device", "memory", "read", "fp16, dense", "int8, dense")]
    for d in DEVICES.values():
        rates = (f"{d.gemm[kind] / TERA:.4g} T/s" for kind in ("fp16", "int8"))
        rows.append((d.name, d.title, f"{d.memory / GB:.3g} GB", f"{d.read / GB:.4g} GB/s", *rates))
    return figures.table([*rows, (THIS, "this CPU, peaks measured", *4 * ("",))], left=(0, 1))
