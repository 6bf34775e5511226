"""The range of every number in a manifest, and what its texts may be.

A seal proves that nothing was damaged. It does not prove that a number makes sense, and an engine
that believes it may take all memory or all time. The limits are far above the models that the
exporter takes, and low enough that the largest legal value harms nothing.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from pulse_edge.bundle.spec import ImageSpec, ModelSpec, RopeScaling, TextSpec, VisionSpec

LARGEST_MANIFEST = 1 << 20  # bytes; PULSE-7B's takes 3 kB
LONGEST_TEXT = 10_000  # characters
LONGEST_NAME = 255  # bytes of a file's name, as file systems have it
LONGEST_TEST_QUESTION = 1_000  # characters; it is prefilled before a device answers
MOST_FILES = 1_000
MOST_GRIDS = 64
MOST_TILES = 64  # of a page; PULSE-7B's has 4
LARGEST_FILE = 1 << 44  # bytes
LARGEST_PARSED = 1 << 28  # bytes of a file that is no weights; PULSE-7B's largest takes 500 kB

# Field -> (least, most), both legal.
VISION_RANGES: dict[str, tuple[float, float]] = {
    "image_size": (1, 2048),
    "patch_size": (1, 256),
    "width": (1, 16_384),
    "heads": (1, 256),
    "layers": (1, 256),
    "feature_layers": (1, 256),
    "mlp": (1, 65_536),
    "eps": (1e-12, 1e-2),
}
TEXT_RANGES: dict[str, tuple[float, float]] = {
    "hidden": (1, 32_768),
    "layers": (1, 256),
    "heads": (1, 256),
    "kv_heads": (1, 256),
    "head_size": (2, 1024),
    "ffn": (1, 131_072),
    "vocab": (1, 1 << 20),
    "eps": (1e-12, 1e-2),
    "rope_theta": (1, 1e9),
    "context": (2, 1 << 20),
    "bos": (0, 1 << 20),
}
ROPE_RANGES: dict[str, tuple[float, float]] = {
    "factor": (1, 1e4),
    "low_freq_factor": (1e-3, 1e4),
    "high_freq_factor": (1e-3, 1e4),
    "original_context": (1, 1 << 20),
}
LLAMA3_ROPE = ("low_freq_factor", "high_freq_factor", "original_context")  # it has all or none
PROJECTOR_DEPTHS = (1, 8)
DAMPINGS = (1e-6, 1.0)  # of a Hessian, as a share of the mean of its diagonal
CALIBRATION_SAMPLES = (1, 4096)
CALIBRATION_TOKENS = (1, 1 << 40)
MOST_EIGHT_BITS = 256 * 7 + 1  # linear layers that a mix may have in 8 bits: all there may be
BLOCK_SIZES = (0, 16, 32, 64, 128, 256)  # of quantized weights; 0: none are in blocks
# Suffixes of files that hold only numbers. They are hashed while the engine opens
WEIGHTS = (".data", ".bin")
_DIGEST = re.compile("[0-9a-f]{64}")


def model_problem(model: ModelSpec) -> str | None:
    """What is impossible about a model, in words that name the field; None for nothing."""
    return next(model_problems(model), None)


class ListedFile(Protocol):
    """A file as a manifest lists it."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str: ...


def text_problems(record: Any) -> Iterator[str]:
    """Texts that are too long or no Unicode, anywhere in a record."""
    for name, text in _texts(dataclasses.asdict(record), ""):
        if len(text) > LONGEST_TEXT:
            yield f"{name} has {len(text):,} characters, over {LONGEST_TEXT:,}"
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            yield f"{name!r:.60} holds half a character: {text!r:.60}"


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256 in hex."""
    return bool(_DIGEST.fullmatch(text))


def file_problems(files: Sequence[ListedFile]) -> Iterator[str]:
    """Names that are not unique, and sizes and digests that cannot be."""
    if len(files) > MOST_FILES:
        yield f"files lists {len(files):,} files, over {MOST_FILES:,}"
    names: set[str] = set()
    for entry in files:
        if entry.path.casefold() in names:
            yield f"files lists {entry.path!r:.60} twice"
        names.add(entry.path.casefold())
        length = len(entry.path.encode(errors="surrogatepass"))
        if length > LONGEST_NAME:
            yield f"files lists a name of {length} bytes, over {LONGEST_NAME}"
        if not 0 <= entry.size <= LARGEST_FILE:
            yield f"files says that {entry.path!r:.60} has {entry.size} bytes"
        if entry.size > LARGEST_PARSED and not entry.path.endswith(WEIGHTS):
            yield f"files says that {entry.path!r:.60} has {entry.size} bytes and is no weights"
        if not is_digest(entry.sha256):
            yield f"files has no SHA-256 in hex for {entry.path!r:.60}"


def self_test_problems(question: str, token: int, text: TextSpec) -> Iterator[str]:
    """What is impossible about the token that a model is expected to say first."""
    if not question.strip():
        yield "self_test.question is empty"
    if len(question) > LONGEST_TEST_QUESTION:
        yield f"self_test.question has {len(question):,} characters, over {LONGEST_TEST_QUESTION:,}"
    if not 0 <= token < text.vocab:
        yield f"self_test.token is {token}, and the vocabulary has {text.vocab} tokens"


def model_problems(model: ModelSpec) -> Iterator[str]:
    """All that is impossible about a model."""
    yield from _out_of_range("model.vision", model.vision, VISION_RANGES)
    yield from _out_of_range("model.text", model.text, TEXT_RANGES)
    least, most = PROJECTOR_DEPTHS
    if not least <= model.projector_depth <= most:
        yield f"model.projector_depth is {model.projector_depth}, outside {least} to {most}"
    yield from _vision_problems(model.vision)
    yield from _text_problems(model.text)
    yield from _image_problems(model.image, model.vision.image_size)


def _out_of_range(where: str, record: Any, ranges: dict[str, tuple[float, float]]) -> Iterator[str]:
    for name, (least, most) in ranges.items():
        value = getattr(record, name)
        if not least <= value <= most:  # also NaN
            yield f"{where}.{name} is {value}, outside {least:,} to {most:,}"


def _vision_problems(vision: VisionSpec) -> Iterator[str]:
    if vision.feature_layers > vision.layers:
        yield f"model.vision.feature_layers is {vision.feature_layers} of {vision.layers} layers"
    if vision.patch_size > vision.image_size:
        yield f"model.vision.patch_size is {vision.patch_size} at image_size {vision.image_size}"
    elif vision.grid > 128:
        yield f"model.vision has {vision.grid} patches along an edge, over 128"
    if vision.width % vision.heads:
        yield f"model.vision.width {vision.width} is no multiple of its {vision.heads} heads"


def _text_problems(text: TextSpec) -> Iterator[str]:
    if text.heads % text.kv_heads:
        yield f"model.text.heads {text.heads} is no multiple of its {text.kv_heads} kv_heads"
    if text.head_size % 2:
        yield f"model.text.head_size is {text.head_size}, which is odd"
    if not text.eos:
        yield "model.text.eos is empty: an answer would never end"
    if len(text.eos) > 64:
        yield f"model.text.eos lists {len(text.eos)} tokens, over 64"
    for name, token in [("bos", text.bos), *(("eos", token) for token in text.eos)]:
        if not 0 <= token < text.vocab:
            yield f"model.text.{name} is {token}, and the vocabulary has {text.vocab} tokens"
    if text.rope is not None:
        yield from _rope_problems(text.rope)


def _rope_problems(rope: RopeScaling) -> Iterator[str]:
    where = "model.text.rope"
    given = [name for name in LLAMA3_ROPE if getattr(rope, name) is not None]
    if given and rope.kind != "llama3":
        yield f"{where}.{given[0]} is set, and {rope.kind} scaling has none"
    if rope.kind == "llama3" and len(given) < len(LLAMA3_ROPE):
        yield f"{where} lacks one of {', '.join(LLAMA3_ROPE)}"
    present = {name: span for name, span in ROPE_RANGES.items() if getattr(rope, name) is not None}
    yield from _out_of_range(where, rope, present)
    low, high = rope.low_freq_factor, rope.high_freq_factor
    if low is not None and high is not None and not low < high:
        yield f"{where}.low_freq_factor is {low}, not below high_freq_factor {high}"


def _image_problems(image: ImageSpec, side: int) -> Iterator[str]:
    if len(image.grids) > MOST_GRIDS:
        yield f"model.image.grids lists {len(image.grids)} grids, over {MOST_GRIDS}"
    if image.aspect == "anyres" and not image.grids:
        yield "model.image.grids is empty"
    for grid in image.grids:
        width, height = grid
        whole = width > 0 and height > 0 and width % side == 0 and height % side == 0
        if not whole or (width // side) * (height // side) > MOST_TILES:
            yield (
                f"model.image.grids has {list(grid)}; expected multiples of {side} "
                f"that make at most {MOST_TILES} tiles"
            )
    for name, values in (("mean", image.mean), ("std", image.std)):
        if not all(math.isfinite(value) and abs(value) < 1e3 for value in values):
            yield f"model.image.{name} is {list(values)}"
    if not all(value >= 1e-3 for value in image.std):
        yield f"model.image.std is {list(image.std)}; expected at least 0.001"


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every text in a record as a dict, with its place."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield where, key
            yield from _texts(inner, f"{where}.{key}" if where else key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, where)
