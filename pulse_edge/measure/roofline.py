"""What fits on a device, and the latency that a roofline predicts. Every figure is a PREDICTION:
see `FORMULA`.

`cost.py` counts FLOP and bytes. Shares are what kernels reach of the peaks. For CPUs those of int4
and w8a8 were set from measurements on one, at two sizes, which they meet within 18 %; no other
measurement has tested them yet (`python -m benchmarks.predictions` does, and records how far off
they are). All others are assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, VISION_GRAPH
from pulse_edge.bundle.spec import TextSpec, VisionSpec
from pulse_edge.engines.chunk import FP16, plan_rows, prefill_chunk, scratch
from pulse_edge.engines.options import PREFILL_CHUNK
from pulse_edge.errors import ParameterError
from pulse_edge.measure import cost
from pulse_edge.measure.devices import GB, Device

FORMULA = """\
    memory  = weights + KV cache + activations + workspace
    prefill = linear FLOP / (GEMM peak x share) + attention FLOP / (fp32 or fp16 peak x share), \
no less than its reads
    vision  = the same over the tower and the projector
    step    = weights / (bandwidth x share) + cached bytes / (bandwidth x share) + layers x overhead
    TTFT    = vision + prefill; tokens/s = 1 / step at the prompt's depth"""

CPU_FLOAT = 4  # bytes of an activation on CPUs; on GPUs it is fp16
QUESTION_TOKENS = 53  # of a question and what the template puts around it
SECOND_TOKENS = 16  # of a second question about a page, which the cache does not hold yet
# Bytes of the interpreter and its libraries; of a GPU's context and its library's scratch.
WORKSPACE = {"cpu": 0.2 * GB, "gpu": 0.6 * GB}


@dataclass(frozen=True)
class Geometry:
    """A model's sizes.

    Attributes:
        name: of the checkpoint.
        text: the decoder's sizes.
        vision: the tower's sizes.
        projector_depth: linear layers between the two.
        tokens: of a prompt with a page, its text included.
        views: of that page.
    """

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
    projector_depth=2,
    tokens=2933,
    views=5,
)


@dataclass(frozen=True)
class KernelProfile:
    """How the kernels of a precision run on a kind of device.

    Attributes:
        precision: the export's `--precision`.
        kind: of device.
        cache: type of the KV cache's elements.
        decoder: bytes per weight of the decoder's layers, scales in blocks of 128 included.
        head: likewise, of the output matrix.
        vision: likewise, of the tower and the projector.
        gemm: type that linear layers multiply.
        gemm_share: fraction of that type's peak that the decoder's linear layers reach.
        attention: type that attention multiplies.
        attention_share: fraction of that type's peak that attention reaches.
        vision_share: fraction of `gemm`'s peak that the tower's linear layers reach.
        read_share: fraction of the memory's peak at which a decode step reads weights.
        cache_share: likewise, for reading the cache.
        step_overhead: seconds that a layer adds to a decode step besides reads and products.
        tower: storage of the tower and the projector (the export's `--tower`).
        engine: what runs it. ONNX Runtime keeps the embedding table and a page's features in a
            GPU's memory, TensorRT does not.
    """

    precision: str
    kind: Literal["cpu", "gpu"]
    cache: str
    decoder: float
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
    engine: str = "onnxruntime"


# Bytes of a scale for each weight, in blocks of 128: fp32 scales on CPUs, fp16 on GPUs.
_CPU_SCALE = 4 / 128
_GPU_SCALE = 2 / 128
INT8_TOWER = 1 + _GPU_SCALE  # bytes per weight of `--tower int8` on a GPU

# CPU: measured on two cores of an AMD EPYC (Zen 3, AVX2) at 7B width with ONNX Runtime 1.32; the
# recorded check is in benchmarks/results/predictions.jsonl. int8 in blocks, and int8 caches, are
# taken to be as int4 and floats there; they were not checked. Other processors' kernels reach other
# shares, above all with VNNI.
_CPU = KernelProfile(
    precision="int8",
    kind="cpu",
    cache="fp32",
    decoder=1 + _CPU_SCALE,
    head=1 + _CPU_SCALE,
    vision=1,
    gemm="int8",
    gemm_share=0.54,
    attention="fp32",
    attention_share=0.6,
    vision_share=0.75,
    read_share=0.58,
    cache_share=0.7,
    step_overhead=60e-6,
)
_GPU = KernelProfile(
    precision="int8",
    kind="gpu",
    cache="fp16",
    decoder=1 + _GPU_SCALE,
    head=1 + _GPU_SCALE,
    vision=2,
    gemm="fp16",
    gemm_share=0.5,
    attention="fp16",
    attention_share=0.4,
    vision_share=0.5,
    read_share=0.7,
    cache_share=0.6,
    step_overhead=20e-6,
    tower="fp16",
)
PROFILES: tuple[KernelProfile, ...] = (
    replace(_CPU, precision="int4", decoder=0.5 + _CPU_SCALE),
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
    replace(_GPU, precision="int4", decoder=0.5 + _GPU_SCALE),
)


@dataclass(frozen=True)
class Prediction:
    """What one precision takes on one device. Bytes and seconds, none of them measured.

    Attributes:
        precision: the export's `--precision`.
        cache: type of the KV cache's elements.
        weights: bytes, the embedding table included if it lies in the device's memory.
        cache_bytes: of the whole context.
        activations: bytes of both networks.
        workspace: bytes of libraries.
        fits: whether all of that is within the device's memory.
        max_context: the longest context that fits, 0 if the weights do not.
        prefill_rows: tokens of a prompt at a time.
        engine: what runs it.
        tower: what the vision tower is stored as.
        tower_saving: bytes that `--tower int8` takes less.
        needs_int8_tower: whether, at this context, it fits with `--tower int8` only.
        vision: seconds of a page through the tower.
        prefill: seconds of a prompt with a page through the decoder.
        ttft_cold: seconds to the first token about a new page.
        ttft_warm: seconds to the first token of a second question about it.
        step: seconds of a decode step at the prompt's depth.
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
        """Bytes of all that is kept in memory."""
        return self.weights + self.cache_bytes + self.activations + self.workspace


@dataclass(frozen=True)
class StoredWeights:
    """Bytes of each part that stay in the device's memory.

    Attributes:
        decoder: its layers.
        head: the output matrix.
        vision: tower and projector.
        table: embeddings; with ONNX Runtime on a GPU also a page's features. 0 with TensorRT: it
            lies in the host's memory; on a Jetson, where that is the GPU's, in its file.
    """

    decoder: float
    head: float
    vision: float
    table: float

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return self.decoder + self.head + self.vision + self.table


def stored_weights(geometry: Geometry, profile: KernelProfile) -> StoredWeights:
    """What a model's weights take in a precision."""
    text = geometry.text
    on_device = (profile.kind, profile.engine) == ("gpu", "onnxruntime")
    page = geometry.views * geometry.vision.grid**2 if on_device else 0
    tower = cost.vision_weights(geometry.vision, text.hidden, geometry.projector_depth)
    return StoredWeights(
        decoder=text.layers * cost.layer_weights(text) * profile.decoder,
        head=text.hidden * text.vocab * profile.head,
        vision=tower * profile.vision,
        table=0 if profile.engine == "tensorrt" else (text.vocab + page) * text.hidden * FP16,
    )


def profile_on(profile: KernelProfile, device: Device) -> KernelProfile:
    """The profile as a device runs it: on a Jetson by TensorRT, with an int8 tower in int8 and
    int4."""
    if profile.kind != "gpu" or device.engine in (profile.engine, "onnxruntime"):
        return profile
    if profile.precision in ("int8", "int4"):
        return replace(profile, engine=device.engine, vision=1.0, tower="int8")
    return replace(profile, engine=device.engine)


def geometry_of_bundle(bundle: Bundle) -> Geometry:
    """A bundle's sizes, for a page of the usual shape, which fills the largest grid."""
    model = bundle.manifest.model
    side = model.vision.image_size
    views = 1
    if model.image.aspect == "anyres":
        views += max((w // side) * (h // side) for w, h in model.image.grids)
    tokens = min(views * model.vision.grid**2 + QUESTION_TOKENS, model.text.context)
    return Geometry(
        name=bundle.manifest.checkpoint.name,
        text=model.text,
        vision=model.vision,
        projector_depth=model.projector_depth,
        tokens=tokens,
        views=views,
    )


def profile_of_bundle(bundle: Bundle, geometry: Geometry) -> KernelProfile:
    """The profile of a bundle's precision, with the bytes that its files really take.

    Raises:
        ParameterError: there is no profile of its precision for what it was exported for.
    """
    target = bundle.manifest.target
    stored = bundle.manifest.precision
    kind = "cpu" if target == "cpu" else "gpu"
    for profile in PROFILES:
        if (profile.precision, profile.kind) == (stored.name, kind):
            break
    else:
        raise ParameterError(
            f"nothing is known of {stored.name} bundles for {target}; name a model instead"
        )

    def bytes_of(graph: str) -> int:
        return sum(f.size for f in bundle.manifest.files if f.path.startswith(graph))

    counted = stored_weights(geometry, profile)
    return replace(
        profile,
        cache=stored.kv_cache,
        decoder=profile.decoder * (bytes_of(DECODER_GRAPH) - counted.head) / counted.decoder,
        vision=profile.vision * bytes_of(VISION_GRAPH) / counted.vision,
        tower=stored.vision,
        engine="tensorrt" if target == "standard" else "onnxruntime",
    )


def prefill_seconds(
    text: TextSpec,
    profile: KernelProfile,
    device: Device,
    weights: float,
    tokens: int,
    before: int = 0,
    chunk: int = PREFILL_CHUNK,
) -> float:
    """Seconds of a prompt. A pass takes the time of its products or of its reads, if longer.

    Args:
        text: the decoder's sizes.
        profile: of the precision.
        device: whose peaks are taken.
        weights: bytes that each pass reads.
        tokens: of the prompt, after `before` that the cache holds.
        before: tokens in the cache.
        chunk: tokens of a pass.
    """
    gemm = device.gemm[profile.gemm] * profile.gemm_share
    attention = device.gemm[profile.attention] * profile.attention_share
    reads = weights / (device.read * profile.read_share)
    overhead = text.layers * profile.step_overhead
    seconds = 0.0
    for at, rows in cost.passes(tokens, before, chunk):
        products = cost.linear(text, rows) / gemm + cost.attention(text, at, rows) / attention
        seconds += max(products, reads) + overhead
    return seconds


def vision_seconds(geometry: Geometry, profile: KernelProfile, device: Device) -> float:
    """Seconds of all views of a page through the tower and the projector."""
    vision = geometry.vision
    views = geometry.views
    linear = cost.vision_linear(vision, geometry.text.hidden, geometry.projector_depth, views)
    attention = cost.vision_attention(vision, views)
    return linear / (device.gemm[profile.gemm] * profile.vision_share) + attention / (
        device.gemm[profile.attention] * profile.attention_share
    )


def step_seconds(
    text: TextSpec, profile: KernelProfile, device: Device, weights: float, depth: int
) -> float:
    """Seconds of one decode step.

    Args:
        text: the decoder's sizes.
        profile: of the precision.
        device: whose peaks are taken.
        weights: bytes that a step reads.
        depth: positions that the cache holds.
    """
    cached = cost.cache_row(text, profile.cache) * depth
    reads = weights / (device.read * profile.read_share)
    reads += cached / (device.read * profile.cache_share)
    return reads + text.layers * profile.step_overhead


def activation_bytes(geometry: Geometry, kind: str, context: int, rows: int) -> int:
    """Bytes that the two networks take besides weights and cache.

    On a GPU the larger of the two counts, because the tower's memory is freed before the decoder
    runs; the decoder's as the engine counts it (engines/chunk.py). On a CPU both count, because
    ONNX Runtime's arena keeps what it took. The decoder's are a chunk's rows through the MLP (gate,
    up, their product), the residual's copies, and the attention's scores of one chunk; the tower's
    are all views through the MLP, twice, and the residual's copies.

    Args:
        geometry: the model's sizes.
        kind: of device.
        context: positions of the cache.
        rows: tokens of a prompt at a time.
    """
    text = geometry.text
    vision = geometry.vision
    patches = geometry.views * (vision.grid**2 + 1)
    tower = patches * (2 * vision.mlp + 4 * vision.width)
    if kind == "gpu":
        return max(scratch(text, rows), tower * FP16)
    decoder = rows * (3 * text.ffn + 6 * text.hidden) + text.heads * rows * context
    return (decoder + tower) * CPU_FLOAT


def prefill_rows(
    text: TextSpec, profile: KernelProfile, device: Device, context: int, free: float
) -> int:
    """Tokens of a prompt at a time, as the engine takes them.

    Args:
        text: the decoder's sizes.
        profile: of the precision, as the device runs it.
        device: what it runs on.
        context: positions of the cache.
        free: bytes of the device's memory that are left after weights, cache and workspace.
    """
    if profile.kind == "cpu":
        chunk = PREFILL_CHUNK
    elif profile.engine == "tensorrt":
        chunk = plan_rows(device.memory)
    else:
        chunk = prefill_chunk(int(free), text, context)
    return min(chunk or context, context)


def predict(
    geometry: Geometry, device: Device, profile: KernelProfile, context: int | None = None
) -> Prediction:
    """What one precision of a model takes on a device.

    Args:
        geometry: the model's sizes.
        device: what it is to run on.
        profile: a row of `PROFILES`, or a bundle's.
        context: positions of the cache; None: the model's own.
    """
    text = geometry.text
    context = context or text.context
    profile = profile_on(profile, device)
    weights = stored_weights(geometry, profile)
    read = weights.decoder + weights.head
    workspace = WORKSPACE[device.kind]
    row = cost.cache_row(text, profile.cache)
    left = device.memory - device.reserved - weights.total - workspace  # for cache and activations
    rows = prefill_rows(text, profile, device, context, left - row * context)
    busy = activation_bytes(geometry, device.kind, context, rows)
    # A plan's rows are fixed; ONNX Runtime could take fewer at a time to fit a longer context.
    fewest = rows if profile.engine == "tensorrt" else min(PREFILL_CHUNK, context)
    least = activation_bytes(geometry, device.kind, context, fewest)
    saving = weights.vision * (1 - INT8_TOWER / 2) if profile.tower == "fp16" else 0
    fits = left - busy >= row * context
    tokens = min(geometry.tokens, context)
    vision = vision_seconds(geometry, profile, device)
    prefill = prefill_seconds(text, profile, device, read, tokens, chunk=rows)
    second = prefill_seconds(text, profile, device, read, SECOND_TOKENS, tokens, chunk=rows)
    return Prediction(
        precision=profile.precision,
        cache=profile.cache,
        weights=round(weights.total),
        cache_bytes=row * context,
        activations=round(busy),
        workspace=round(workspace),
        fits=fits,
        max_context=max(0, min(text.context, int((left - least) / row))),
        prefill_rows=rows,
        engine=profile.engine,
        tower=profile.tower,
        tower_saving=round(saving),
        needs_int8_tower=not fits and left - least + saving >= row * context,
        vision=vision,
        prefill=prefill,
        ttft_cold=vision + prefill,
        ttft_warm=second,
        step=step_seconds(text, profile, device, read, tokens),
    )


def predictions(
    geometry: Geometry,
    device: Device,
    profiles: tuple[KernelProfile, ...],
    context: int | None,
) -> list[Prediction]:
    """One prediction for each profile that the device can run.

    Raises:
        ParameterError: the context is out of the model's range, or the device runs no profile.
    """
    longest = geometry.text.context
    if context is not None and not 1 <= context <= longest:
        raise ParameterError(f"context is {context}, but must be from 1 to the model's {longest}")
    able = [
        profile
        for profile in profiles
        if profile.kind == device.kind and {profile.gemm, profile.attention} <= device.gemm.keys()
    ]
    if not able:
        names = ", ".join(f"{profile.precision} for {profile.kind}" for profile in profiles)
        raise ParameterError(f"{device.title} runs none of {names}")
    return [predict(geometry, device, profile, context) for profile in able]
