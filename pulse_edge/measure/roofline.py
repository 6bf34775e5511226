"""What fits on a device, and the latency that a roofline predicts. Every figure is a PREDICTION:
see `FORMULA`.

`cost.py` counts FLOP and bytes, `profiles.py` has what kernels reach of a device's peaks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pulse_edge.bundle.spec import TextSpec
from pulse_edge.engines.chunk import FP16, plan_rows, prefill_chunk, scratch
from pulse_edge.engines.options import FEW_ROWS, PREFILL_CHUNK
from pulse_edge.errors import ParameterError
from pulse_edge.measure import cost
from pulse_edge.measure.devices import GB, Device
from pulse_edge.measure.profiles import (
    INT8_TOWER,
    Geometry,
    KernelProfile,
    StoredWeights,
    profile_on,
    stored_weights,
)

FORMULA = """\
    memory  = weights + KV cache + activations + workspace
    prefill = linear FLOP / (GEMM peak x share) + attention FLOP / (fp32 or fp16 peak x share), \
no less than its reads
    vision  = the same over the tower and the projector
    step    = weights / (bandwidth x share) + cached bytes / (bandwidth x share) + layers x overhead
    TTFT    = vision + prefill; tokens/s = 1 / step at the prompt's depth"""

CPU_FLOAT = 4  # bytes of an activation on CPUs; on GPUs it is fp16
SECOND_TOKENS = 16  # of a second question about a page, which the cache does not hold yet
# Bytes of the interpreter and its libraries; of a GPU's context and its library's scratch.
WORKSPACE = {"cpu": 0.2 * GB, "gpu": 0.6 * GB}
PLAN_FIXED = 0.3 * GB  # of a plan's build, besides its weights; as the exporter has it


@dataclass(frozen=True)
class Prediction:
    """What one precision takes on one device. Bytes and seconds, none of them measured.

    Attributes:
        precision: the export's `--precision`.
        prompts: the export's `--prefill`; None if prompts and steps share one set of weights.
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
        build_peak: bytes that building the plans takes on the device at its peak, on a card in the
            host; None if there is nothing to build.
        vision: seconds of a page through the tower.
        prefill: seconds of a prompt with a page through the decoder.
        ttft_cold: seconds to the first token about a new page.
        ttft_warm: seconds to the first token of a second question about it.
        step: seconds of a decode step at the prompt's depth.
    """

    precision: str
    prompts: str | None
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
    build_peak: int | None
    vision: float
    prefill: float
    ttft_cold: float
    ttft_warm: float
    step: float

    @property
    def name(self) -> str:
        """The precision, and that of the second set."""
        return self.precision + (f" + {self.prompts}" if self.prompts else "")

    @property
    def total(self) -> int:
        """Bytes of all that is kept in memory."""
        return self.weights + self.cache_bytes + self.activations + self.workspace


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


def prompt_seconds(
    text: TextSpec,
    profile: KernelProfile,
    device: Device,
    weights: StoredWeights,
    tokens: int,
    before: int = 0,
    chunk: int = PREFILL_CHUNK,
) -> float:
    """Seconds of a prompt through the weights that the engine takes for one of its length.

    Args:
        text: see `prefill_seconds`.
        profile: see `prefill_seconds`.
        device: see `prefill_seconds`.
        weights: of all parts.
        tokens: see `prefill_seconds`.
        before: see `prefill_seconds`.
        chunk: see `prefill_seconds`.
    """
    read = weights.decoder + weights.head
    if not weights.prompts or tokens <= FEW_ROWS:
        return prefill_seconds(text, profile, device, read, tokens, before, chunk)
    second = replace(profile, gemm_share=profile.prompt_share)
    last = step_seconds(text, profile, device, read, before + tokens)
    return prefill_seconds(text, second, device, weights.prompts, tokens, before, chunk) + last


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


def build_peak(geometry: Geometry, profile: KernelProfile, device: Device, rows: int) -> int | None:
    """Bytes that TensorRT takes to build a profile's plans; None if another engine runs it.

    As the exporter expects it before a build. On a Jetson the GPU's copy of the weights and the
    activations lie in the same memory.

    Args:
        geometry: the model's sizes.
        profile: of the precision, as the device runs it.
        device: that the plans are for.
        rows: tokens of a prompt at a time.
    """
    if profile.engine != "tensorrt":
        return None
    shared = device.engine == "tensorrt"
    weights = stored_weights(geometry, profile)
    busy = scratch(geometry.text, rows) if shared else 0
    return round(
        PLAN_FIXED + busy + (profile.plan_memory + shared) * (weights.decoder + weights.head)
    )


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
    prefill = prompt_seconds(text, profile, device, weights, tokens, chunk=rows)
    second = prompt_seconds(text, profile, device, weights, SECOND_TOKENS, tokens, chunk=rows)
    return Prediction(
        precision=profile.precision,
        prompts=profile.prefill,
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
        build_peak=build_peak(geometry, profile, device, rows),
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
