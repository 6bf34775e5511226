"""The manifest of a bundle: its model, precision, files and origin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pulse_edge.bundle.limits import (
    BLOCK_SIZES,
    CALIBRATION_SAMPLES,
    CALIBRATION_TOKENS,
    DAMPINGS,
    MOST_EIGHT_BITS,
    file_problems,
    is_digest,
    model_problems,
    self_test_problems,
    text_problems,
)
from pulse_edge.bundle.sealed_json import load_sealed, sealed
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.errors import BundleError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
VISION_GRAPH, DECODER_GRAPH = "vision.onnx", "decoder.onnx"
PREFILL_GRAPH = "prefill.onnx"  # the decoder of a bundle with weights of their own for prompts
EMBEDDINGS = "embeddings.bin"
TOKENIZER = "tokenizer.model"  # SentencePiece's
FAST_TOKENIZER = "tokenizer.json"  # read by the package `tokenizers`
TOKENIZERS = (TOKENIZER, FAST_TOKENIZER)  # a bundle has one of them
NOTICE = "Research use only: not a medical device, not for diagnosis or treatment."

GRAPHS = (VISION_GRAPH, DECODER_GRAPH)  # of every bundle
PREFILLS = ("w8a8",)  # storages of such weights
RECIPES = ("rtn", "gptq", "awq", "auto")  # how weights became four-bit codes
TURNS = ("first", "several")  # turns of a conversation that a model was trained on

TargetName = Literal["cpu", "cuda", "standard"]  # what the graphs are written for


@dataclass(frozen=True)
class RecipeInfo:
    """How the decoder's weights became codes. What a recipe does not have is left out of the file.

    Attributes:
        name: one of `RECIPES`.
        damping: of the Hessian, as a share of the mean of its diagonal.
        act_order: whether the inputs with the largest activations were rounded first.
        samples: of the calibration.
        tokens: of these samples, pages' among them.
        data_sha256: of their pages and conversations.
        eight_bits: linear layers with 8 bits instead of 4, of a mix for a budget of bytes.
    """

    name: str
    damping: float | None = None
    act_order: bool | None = None
    samples: int | None = None
    tokens: int | None = None
    data_sha256: str | None = None
    eight_bits: tuple[str, ...] | None = None


@dataclass(frozen=True)
class PrecisionInfo:
    """The types that weights, cache and activations are stored in.

    Weight entries read `fp32`, `fp16`, `int8`, `int4` or `w8a8` (8-bit weights that are multiplied
    with 8-bit activations). `io` is the graphs' float type.

    Attributes:
        prefill: of a second set of decoder weights, which prompts run through, one of `PREFILLS`.
            None, and left out of the file, where prompts and steps share one set.
        rounding: how the decoder's weights became codes. None, and left out of the file, if they
            were rounded to nearest by the largest weight of each block.
    """

    name: str
    decoder: str
    head: str
    vision: str
    embeddings: Literal["fp32", "fp16"]
    kv_cache: Literal["fp32", "fp16", "int8"]
    io: Literal["fp32", "fp16"]
    activations: str
    block_size: int
    recipe: str
    prefill: str | None = None
    rounding: RecipeInfo | None = None


@dataclass(frozen=True)
class TowerInfo:
    """Who wrote the vision tower's graph, where this project did not.

    Attributes:
        family: transformers' `model_type` of the tower.
        optimum: version of the package optimum-onnx, which exported it.
        error: largest error of the exported graph in fp32 against the torch module, relative to the
            module's largest value.
    """

    family: str
    optimum: str
    error: float


@dataclass(frozen=True)
class CheckpointInfo:
    """Identity of the source.

    Attributes:
        sha256: of config.json, the tokenizer, and each tensor's name, dtype, shape and bytes in
            name order. Resharding a checkpoint does not change it.
    """

    name: str
    architecture: str
    dtype: str
    parameters: int
    sha256: str


@dataclass(frozen=True)
class FileEntry:
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ExpectedToken:
    """What the model says first to a question without a page, chosen greedily.

    The exporter records it where the choice is clear. A device that says another token computes
    something else.
    """

    question: str
    token: int


@dataclass(frozen=True)
class Manifest:
    schema_version: int
    notice: str
    model: ModelSpec
    precision: PrecisionInfo
    target: TargetName
    checkpoint: CheckpointInfo
    tools: dict[str, str]
    files: tuple[FileEntry, ...]
    self_test: ExpectedToken | None = None  # None is left out of the file
    turns: str | None = None  # one of `TURNS`; None is unknown, and left out
    tower: TowerInfo | None = None  # None, and left out, for a tower of our own
    # SHA-256 of this manifest's canonical bytes with an empty seal. It covers every file's hash.
    seal: str = ""

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the graphs' files."""
        return GRAPHS if self.precision.prefill is None else (*GRAPHS, PREFILL_GRAPH)

    @property
    def tokenizer(self) -> str:
        """Name of the tokenizer's file."""
        listed = {file.path for file in self.files}
        return next((name for name in TOKENIZERS if name in listed), TOKENIZER)

    def sealed(self) -> Manifest:
        return sealed(self)


def loads(raw: bytes, where: str = MANIFEST) -> Manifest:
    """Parse and check a manifest. Raises `BundleError`."""
    outdated = "export the checkpoint again with this version, or install the version that wrote it"
    again = "copy or export the bundle again"
    manifest = load_sealed(Manifest, raw, where, SCHEMA_VERSION, outdated, again)
    if problem := next(_problems(manifest), None):
        raise BundleError(f"{where}: {problem}; export the bundle again")
    return manifest


def _problems(manifest: Manifest) -> Iterator[str]:
    """What is impossible about a manifest, in words that name the field."""
    if manifest.notice != NOTICE:
        yield f"notice is not {NOTICE!r}"
    yield from text_problems(manifest)
    yield from model_problems(manifest.model)
    if manifest.precision.block_size not in BLOCK_SIZES:
        legal = ", ".join(map(str, BLOCK_SIZES))
        yield f"precision.block_size is {manifest.precision.block_size}; legal are {legal}"
    prefill = manifest.precision.prefill
    if prefill is not None and prefill not in PREFILLS:
        yield f"precision.prefill is {prefill!r:.40}; legal are {', '.join(PREFILLS)}"
    if prefill is not None and manifest.target != "cpu":
        yield f"precision.prefill is {prefill}, but the target is {manifest.target}, not cpu"
    if manifest.precision.rounding is not None:
        yield from recipe_problems(manifest.precision.rounding)
    if not 0 <= manifest.checkpoint.parameters < 1 << 50:
        yield f"checkpoint.parameters is {manifest.checkpoint.parameters}"
    if not is_digest(manifest.checkpoint.sha256):
        yield "checkpoint.sha256 is no SHA-256 in hex"
    yield from file_problems(manifest.files)
    if {*TOKENIZERS} <= {file.path for file in manifest.files}:
        yield f"files lists both {' and '.join(TOKENIZERS)}"
    if manifest.turns is not None and manifest.turns not in TURNS:
        yield f"turns is {manifest.turns!r:.40}; legal are {', '.join(TURNS)}"
    if manifest.tower is not None and not 0 <= manifest.tower.error <= 1:  # also NaN
        yield f"tower.error is {manifest.tower.error}, outside 0 to 1"
    if manifest.tower is None and manifest.model.vision.activation == "other":
        yield "model.vision.activation is 'other', but there is no 'tower' of Optimum's"
    if manifest.self_test is not None:
        test = manifest.self_test
        yield from self_test_problems(test.question, test.token, manifest.model.text)


def recipe_problems(info: RecipeInfo) -> Iterator[str]:
    """What is impossible about how weights became codes, in words that name the field."""
    where = "precision.rounding"
    if info.name not in RECIPES:
        yield f"{where}.name is {info.name!r:.40}; legal are {', '.join(RECIPES)}"
    ranges = {
        "damping": DAMPINGS,
        "samples": CALIBRATION_SAMPLES,
        "tokens": CALIBRATION_TOKENS,
    }
    for name, (least, most) in ranges.items():
        value = getattr(info, name)
        if value is not None and not least <= value <= most:  # also NaN
            yield f"{where}.{name} is {value}, outside {least:,} to {most:,}"
    if info.data_sha256 is not None and not is_digest(info.data_sha256):
        yield f"{where}.data_sha256 is no SHA-256 in hex"
    wide = len(info.eight_bits or ())
    if wide > MOST_EIGHT_BITS:
        yield f"{where}.eight_bits lists {wide:,} layers, over {MOST_EIGHT_BITS:,}"
