"""How each precision runs on each kind of device, and what a model's weights take in it.

Shares are what kernels reach of the peaks. For CPUs those of int4 and w8a8 were set from
measurements on one, at two sizes, which they meet within 18 %; no other measurement has tested them
yet (`python -m benchmarks.predictions` does, and records how far off they are). All others are
assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, PREFILL_GRAPH, VISION_GRAPH
from pulse_edge.bundle.spec import TextSpec, VisionSpec
from pulse_edge.engines.chunk import FP16
from pulse_edge.errors import ParameterError
from pulse_edge.measure import cost
from pulse_edge.measure.devices import Device

QUESTION_TOKENS = 53  # of a question and what the template puts around it


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
        prefill: the export's `--prefill`; None if prompts and steps share one set of weights.
        prompts: bytes per weight of the set for prompts; 0 if there is none.
        prompt_share: fraction of `gemm`'s peak that the layers of that set reach.
        gemm: type that linear layers multiply.
        gemm_share: fraction of that type's peak that the decoder's linear layers reach.
        attention: type that attention multiplies.
        attention_share: fraction of that type's peak that attention reaches.
        vision_share: fraction of `gemm`'s peak that the tower's linear layers reach.
        read_share: fraction of the memory's peak at which a decode step reads weights.
        cache_share: likewise, for reading the cache.
        step_overhead: seconds that a layer adds to a decode step besides reads and products.
        tower: storage of the tower and the projector (the export's `--tower`).
        plan_memory: memory that TensorRT takes to build a plan, in multiples of the decoder's
            weights. See `Storage.plan_memory` of the exporter.
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
    plan_memory: float = 2.0
    engine: str = "onnxruntime"
    prefill: str | None = None
    prompts: float = 0
    prompt_share: float = 0


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
_CPU_INT4 = replace(_CPU, precision="int4", decoder=0.5 + _CPU_SCALE)
_CPU_W8A8 = replace(_CPU, precision="w8a8", decoder=1, gemm_share=0.85, read_share=0.66)
PROFILES: tuple[KernelProfile, ...] = (
    _CPU_INT4,
    replace(_CPU_INT4, prefill="w8a8", prompts=1, prompt_share=_CPU_W8A8.gemm_share),
    _CPU,
    _CPU_W8A8,
    replace(
        _GPU, precision="fp16", decoder=2, head=2, gemm_share=0.6, read_share=0.75, plan_memory=3.0
    ),
    replace(
        _GPU,
        precision="w8a8",
        decoder=1,
        vision=1,
        gemm="int8",
        tower="w8a8",
        plan_memory=3.0,
        engine="tensorrt",
    ),
    _GPU,
    replace(_GPU, precision="int4", decoder=0.5 + _GPU_SCALE, plan_memory=2.5),
)


@dataclass(frozen=True)
class StoredWeights:
    """Bytes of each part that stay in the device's memory.

    Attributes:
        decoder: its layers, as steps read them.
        prompts: its layers once more, as prompts read them; 0 if they read the same.
        head: the output matrix.
        vision: tower and projector.
        table: embeddings; with ONNX Runtime on a GPU also a page's features. 0 with TensorRT: it
            lies in the host's memory; on a Jetson, where that is the GPU's, in its file.
    """

    decoder: float
    prompts: float
    head: float
    vision: float
    table: float

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return self.decoder + self.prompts + self.head + self.vision + self.table


def stored_weights(geometry: Geometry, profile: KernelProfile) -> StoredWeights:
    """What a model's weights take in a precision."""
    text = geometry.text
    on_device = (profile.kind, profile.engine) == ("gpu", "onnxruntime")
    page = geometry.views * geometry.vision.grid**2 if on_device else 0
    tower = cost.vision_weights(geometry.vision, text.hidden, geometry.projector_depth)
    return StoredWeights(
        decoder=text.layers * cost.layer_weights(text) * profile.decoder,
        prompts=text.layers * cost.layer_weights(text) * profile.prompts,
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
        own = (profile.precision, profile.prefill, profile.kind)
        if own == (stored.name, stored.prefill, kind):
            break
    else:
        raise ParameterError(
            f"nothing is known of {stored.name} bundles for {target}; name a model instead"
        )

    def bytes_of(graph: str) -> int:
        return sum(f.size for f in bundle.manifest.files if f.path.startswith(graph))

    counted = stored_weights(geometry, profile)
    text = geometry.text
    return replace(
        profile,
        cache=stored.kv_cache,
        decoder=profile.decoder * (bytes_of(DECODER_GRAPH) - counted.head) / counted.decoder,
        prompts=bytes_of(PREFILL_GRAPH) / (text.layers * cost.layer_weights(text)),
        vision=profile.vision * bytes_of(VISION_GRAPH) / counted.vision,
        tower=stored.vision,
        engine="tensorrt" if target == "standard" else "onnxruntime",
    )


def with_int8_caches(profiles: tuple[KernelProfile, ...]) -> tuple[KernelProfile, ...]:
    """The profiles, each for a CPU followed by the same with `--cache int8`.

    The export has 8-bit caches for CPUs only.
    """
    return tuple(
        each
        for profile in profiles
        for each in (profile, replace(profile, cache="int8"))
        if each is profile or profile.kind == "cpu"
    )
