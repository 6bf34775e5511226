"""Every limit of a manifest from both sides: the last legal value, and the first that is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.limits import file_problems, is_digest, model_problem, model_problems
from pulse_edge.bundle.limits import text_problems as texts_of
from pulse_edge.bundle.manifest import MANIFEST, FileEntry, loads
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.errors import BundleError

from support.hand_bundle import (
    CHECKPOINT,
    CONTENTS,
    PRECISION,
    SIDE,
    SPEC,
    manifest_of,
    write_bundle,
)

DIGEST = "0123456789abcdef" * 4

# Part, field, least, most, and the nearest values that are not legal.
RANGES: list[tuple[str, str, float, float, float, float]] = [
    ("vision", "image_size", 1, 2048, 0, 2049),
    ("vision", "patch_size", 1, 256, 0, 257),
    ("vision", "width", 1, 16_384, 0, 16_385),
    ("vision", "heads", 1, 256, 0, 257),
    ("vision", "layers", 1, 256, 0, 257),
    ("vision", "feature_layers", 1, 256, 0, 257),
    ("vision", "mlp", 1, 65_536, 0, 65_537),
    ("vision", "eps", 1e-12, 0.01, 0.9e-12, 0.011),
    ("text", "hidden", 1, 32_768, 0, 32_769),
    ("text", "layers", 1, 256, 0, 257),
    ("text", "heads", 1, 256, 0, 257),
    ("text", "kv_heads", 1, 256, 0, 257),
    ("text", "head_size", 2, 1024, 1, 1025),
    ("text", "ffn", 1, 131_072, 0, 131_073),
    ("text", "vocab", 1, 1_048_576, 0, 1_048_577),
    ("text", "eps", 1e-12, 0.01, 0.9e-12, 0.011),
    ("text", "rope_theta", 1, 1e9, 0.99, 1.1e9),
    ("text", "context", 2, 1_048_576, 1, 1_048_577),
    ("text", "bos", 0, 1_048_576, -1, 1_048_577),
]


def changed(part: str, **fields: Any) -> ModelSpec:
    """The model with other fields of a part of it."""
    return replace(SPEC, **{part: replace(getattr(SPEC, part), **fields)})


def with_value(part: str, name: str, value: float) -> ModelSpec:
    """A model in which only the range of a field can be wrong, as far as the rules allow that."""
    if part == "vision":
        many = {"layers": 256, "image_size": 2048, "patch_size": 16, "width": 16_384, "heads": 1}
        fewer = {"feature_layers": 1} if name == "layers" else {}
        small = {"patch_size": 1} if name == "image_size" else {}
        return changed(part, **(many | fewer | small | {name: value}))
    return changed(part, **{name: value})


@pytest.mark.parametrize(("part", "name", "least", "most", "below", "above"), RANGES)
def test_a_range_includes_its_ends(
    part: str, name: str, least: float, most: float, below: float, above: float
) -> None:
    for value in (least, most):
        found = list(model_problems(with_value(part, name, value)))
        assert not [problem for problem in found if f"{name} is {value}, outside" in problem]
    for value in (below, above, float("nan")):
        head = f"model.{part}.{name} is {value}, outside {least:,} to {most:,}"
        assert head in model_problems(with_value(part, name, value))
        assert model_problem(with_value(part, name, value)) is not None


def test_the_model_by_hand_is_possible() -> None:
    assert list(model_problems(SPEC)) == []
    assert model_problem(SPEC) is None


LEGAL: list[ModelSpec] = [
    *(replace(SPEC, projector_depth=depth) for depth in (1, 8)),
    changed("vision", layers=2, feature_layers=2),
    changed("vision", patch_size=SIDE),
    replace(
        changed("vision", image_size=256, patch_size=2),
        image=replace(SPEC.image, grids=((256, 256),)),
    ),
    changed("vision", width=33, heads=11),
    changed("text", heads=6, kv_heads=3),
    changed("text", head_size=10),
    changed("text", eos=(5,) * 64),
    changed("text", bos=0, eos=(0, 5)),
    changed("image", aspect="pad", grids=()),
    changed("image", aspect="square", grids=()),
    changed("image", grids=((SIDE, SIDE),) * 64),
    changed("image", grids=((8 * SIDE, 8 * SIDE), (64 * SIDE, SIDE), (SIDE, 64 * SIDE))),
    replace(
        changed("vision", image_size=1, patch_size=1), image=replace(SPEC.image, grids=((1, 1),))
    ),
    changed("image", mean=(999.9, -999.9, 0.0), std=(0.001, 999.9, 1.0)),
]


@pytest.mark.parametrize("model", LEGAL)
def test_the_last_legal_model(model: ModelSpec) -> None:
    assert list(model_problems(model)) == []


IMPOSSIBLE: list[tuple[ModelSpec, str]] = [
    (replace(SPEC, projector_depth=0), "model.projector_depth is 0, outside 1 to 8"),
    (replace(SPEC, projector_depth=9), "model.projector_depth is 9, outside 1 to 8"),
    (changed("vision", layers=2, feature_layers=3), "model.vision.feature_layers is 3 of 2 layers"),
    (changed("vision", patch_size=57), "model.vision.patch_size is 57 at image_size 56"),
    (
        changed("vision", image_size=258, patch_size=2),
        "model.vision has 129 patches along an edge, over 128",
    ),
    (changed("vision", width=34), "model.vision.width 34 is no multiple of its 4 heads"),
    (changed("text", heads=5), "model.text.heads 5 is no multiple of its 2 kv_heads"),
    (changed("text", head_size=9), "model.text.head_size is 9, which is odd"),
    (changed("text", eos=()), "model.text.eos is empty: an answer would never end"),
    (changed("text", eos=(2,) * 65), "model.text.eos lists 65 tokens, over 64"),
    (changed("text", bos=6), "model.text.bos is 6, and the vocabulary has 6 tokens"),
    (changed("text", eos=(2, 6)), "model.text.eos is 6, and the vocabulary has 6 tokens"),
    (changed("text", eos=(-1, 2)), "model.text.eos is -1, and the vocabulary has 6 tokens"),
    (changed("image", grids=()), "model.image.grids is empty"),
    (changed("image", grids=((SIDE, SIDE),) * 65), "model.image.grids lists 65 grids, over 64"),
    *(
        (changed("image", grids=(grid,)), f"model.image.grids has {list(grid)}; expected multiples")
        for grid in [
            *((SIDE, SIDE + 1), (SIDE + 1, SIDE), (0, SIDE), (SIDE, 0), (0, 0)),
            *((-SIDE, SIDE), (SIDE, -SIDE), (-SIDE, -SIDE)),
            *((65 * SIDE, SIDE), (SIDE, 65 * SIDE), (9 * SIDE, 8 * SIDE), (13 * SIDE, 5 * SIDE)),
        ]
    ),
    (changed("image", mean=(1e3, 0.0, 0.0)), "model.image.mean is [1000.0, 0.0, 0.0]"),
    (changed("image", mean=(0.0, 0.0, -1e3)), "model.image.mean is [0.0, 0.0, -1000.0]"),
    (changed("image", mean=(float("nan"), 0.0, 0.0)), "model.image.mean is [nan, 0.0, 0.0]"),
    (changed("image", std=(1e3, 1.0, 1.0)), "model.image.std is [1000.0, 1.0, 1.0]"),
    (changed("image", std=(1.0, 1.0, 0.0009)), "expected at least 0.001"),
    (changed("image", std=(1.0, 1.0, float("nan"))), "expected at least 0.001"),
]


@pytest.mark.parametrize(("model", "message"), IMPOSSIBLE)
def test_the_first_impossible_model(model: ModelSpec, message: str) -> None:
    assert message in "; ".join(model_problems(model))


# -- files


def entries(*names: str, size: int = 1) -> list[FileEntry]:
    return [FileEntry(name, size, DIGEST) for name in names]


LEGAL_FILES: list[list[FileEntry]] = [
    [],
    entries(*map(str, range(1000))),
    entries("x" * 255, "é" * 127 + "x", "a" * 254 + "b"),
    entries("graph.onnx", size=1 << 28),
    entries("w.data", "w.bin", size=(1 << 28) + 1),
    entries("w.data", size=1 << 44),
    entries("empty", size=0),
]


@pytest.mark.parametrize("files", LEGAL_FILES, ids=range(len(LEGAL_FILES)))
def test_the_last_legal_files(files: list[FileEntry]) -> None:
    assert list(file_problems(files)) == []


IMPOSSIBLE_FILES: list[tuple[list[FileEntry], list[str]]] = [
    (entries(*map(str, range(1001))), ["files lists 1,001 files, over 1,000"]),
    (entries("x" * 256), ["files lists a name of 256 bytes, over 255"]),
    (entries("é" * 128), ["files lists a name of 256 bytes, over 255"]),
    (entries("a", "b", "A"), ["files lists 'A' twice"]),
    (entries("straße", "STRASSE"), ["files lists 'STRASSE' twice"]),
    (entries("a", "b", "a", "a"), ["files lists 'a' twice"] * 2),
    (entries("a.data", size=-1), ["files says that 'a.data' has -1 bytes"]),
    (entries("a", size=-1), ["files says that 'a' has -1 bytes"]),
    (
        entries("a.data", size=(1 << 44) + 1),
        ["files says that 'a.data' has 17592186044417 bytes"],
    ),
    (
        entries("a.onnx", size=(1 << 28) + 1),
        ["files says that 'a.onnx' has 268435457 bytes and is no weights"],
    ),
    (
        entries("a.databin", size=(1 << 28) + 1),
        ["files says that 'a.databin' has 268435457 bytes and is no weights"],
    ),
    *(
        ([FileEntry("a", 1, digest)], ["files has no SHA-256 in hex for 'a'"])
        for digest in ("", "0" * 63, "0" * 65, "g" * 64, "A" * 64, "0" * 64 + "\n")
    ),
]


@pytest.mark.parametrize(("files", "messages"), IMPOSSIBLE_FILES, ids=range(len(IMPOSSIBLE_FILES)))
def test_the_first_impossible_files(files: list[FileEntry], messages: list[str]) -> None:
    assert list(file_problems(files)) == messages


def test_a_digest_has_64_digits_in_lower_case() -> None:
    assert is_digest(DIGEST) is True
    assert is_digest(DIGEST.upper()) is False
    assert is_digest(DIGEST[:-1]) is False


# -- texts


@dataclass(frozen=True)
class Record:
    text: str = ""
    number: int = 0
    by_name: dict[str, str] | None = None
    several: tuple[str, ...] = ()
    inner: Record | None = None


def problems(record: Record) -> list[str]:
    return list(texts_of(record))


@pytest.mark.parametrize("letter", ["a", "\ud7ff", "\ue000", "😀", "\0"])
def test_texts_that_are_legal(letter: str) -> None:
    long = letter * 10_000
    assert problems(Record(long, 1, {long: long}, (long, letter), Record(long))) == []


@pytest.mark.parametrize("code", [0xD800, 0xDBFF, 0xDC00, 0xDFFF])
def test_half_characters(code: int) -> None:
    text = "a" + chr(code)
    assert problems(Record(text)) == [f"'text' holds half a character: {text!r}"]


def places() -> Iterator[tuple[Record, str]]:
    long = "x" * 10_001
    yield Record(long), "text"
    yield Record(by_name={"key": long}), "by_name.key"
    yield Record(by_name={long: ""}), "by_name"
    yield Record(several=("", long)), "several"
    yield Record(inner=Record(inner=Record(long))), "inner.inner.text"


@pytest.mark.parametrize(("record", "place"), list(places()), ids=range(5))
def test_a_long_text_is_found_wherever_it_stands(record: Record, place: str) -> None:
    assert problems(record) == [f"{place} has 10,001 characters, over 10,000"]


# -- the manifest


@pytest.mark.parametrize("size", [0, 16, 32, 64, 128, 256])
def test_block_sizes(size: int) -> None:
    def raw(block_size: int) -> bytes:
        return dumps(manifest_of(CONTENTS, precision=replace(PRECISION, block_size=block_size)))

    assert loads(raw(size)).precision.block_size == size
    for other in (size - 1, size + 1):
        with pytest.raises(BundleError, match=f"block_size is {other}; legal are 0, 16, 32, 64, "):
            loads(raw(other))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parameters": 0}, None),
        ({"parameters": (1 << 50) - 1}, None),
        ({"parameters": -1}, "checkpoint.parameters is -1;"),
        ({"parameters": 1 << 50}, "checkpoint.parameters is 1125899906842624;"),
        ({"sha256": DIGEST}, None),
        ({"sha256": DIGEST[1:]}, "checkpoint.sha256 is no SHA-256 in hex;"),
    ],
)
def test_what_a_checkpoint_may_say(fields: dict[str, Any], message: str | None) -> None:
    raw = dumps(manifest_of(CONTENTS, checkpoint=replace(CHECKPOINT, **fields)))
    if message is None:
        assert dumps(loads(raw)) == raw
        return
    with pytest.raises(BundleError, match=f"somewhere: {message} export the bundle again"):
        loads(raw, "somewhere")


@pytest.mark.parametrize("target", ["cpu", "cuda", "standard"])
def test_targets(target: str) -> None:
    assert loads(dumps(manifest_of(CONTENTS, target=target))).target == target
    with pytest.raises(BundleError, match=r"manifest\.json\.target: .* is not one of cpu, cuda"):
        loads(dumps(manifest_of(CONTENTS, target=f"{target}XX")))


def test_the_longest_manifest_is_read_and_a_longer_one_is_not(tmp_path: Path) -> None:
    """It is 2^20 bytes long."""
    path = write_bundle(tmp_path / "bundle")
    (path / MANIFEST).write_bytes(b" " * (1 << 20))
    with pytest.raises(BundleError, match="not valid JSON"):
        open_bundle(path)
    (path / MANIFEST).write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(BundleError, match="1,048,577 bytes, over 1,048,576; copy or export"):
        open_bundle(path)
