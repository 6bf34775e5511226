"""Manifests whose fields are legal JSON of the right type and impossible are refused by name."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.limits import TEXT_RANGES, VISION_RANGES, model_problem
from pulse_edge.bundle.manifest import MANIFEST, loads
from pulse_edge.errors import BundleError

from support.manifests import edit_manifest, reseal

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def manifest(bundle: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((bundle / MANIFEST).read_bytes())
    return data


def refused(manifest: dict[str, Any], change: Change) -> str:
    """The message about a manifest with a change."""
    data = json.loads(json.dumps(manifest))
    change(data)
    with pytest.raises(BundleError) as caught:
        loads(reseal(data))
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    return message


def ranged(part: str, ranges: dict[str, tuple[float, float]]) -> list[Any]:
    return [
        pytest.param(part, name, limits, id=f"{part}.{name}") for name, limits in ranges.items()
    ]


@pytest.mark.parametrize(
    ("part", "name", "limits"), [*ranged("vision", VISION_RANGES), *ranged("text", TEXT_RANGES)]
)
def test_each_number_has_a_range(
    manifest: dict[str, Any], part: str, name: str, limits: tuple[float, float]
) -> None:
    kind = type(manifest["model"][part][name])
    least, most = limits
    outside = [0, -1, 1 << 62, 10**30] if kind is int else [0.0, -1.0, 1e300, float("nan")]
    outside += [kind(most) * 2 + 1, kind(least) - 1]
    for value in outside:
        if least <= value <= most:
            continue  # 0 is legal for the first token
        data = json.loads(json.dumps(manifest))
        data["model"][part][name] = value
        message = refused(data, lambda _: None)
        assert f"model.{part}.{name} is " in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["model"]["text"].update(eos=[]), "text.eos is empty"),
        (lambda m: m["model"]["text"].update(eos=[-1]), "text.eos is -1"),
        (lambda m: m["model"]["text"].update(eos=[512]), "text.eos is 512, and the vocabulary"),
        (lambda m: m["model"]["text"].update(eos=[2] * 65), "lists 65 tokens"),
        (lambda m: m["model"]["text"].update(bos=512), "text.bos is 512"),
        (lambda m: m["model"]["text"].update(kv_heads=3), "no multiple of its 3 kv_heads"),
        (lambda m: m["model"]["text"].update(head_size=15), "head_size is 15, which is odd"),
        (lambda m: m["model"]["vision"].update(heads=3), "no multiple of its 3 heads"),
        (lambda m: m["model"]["vision"].update(feature_layers=9), "feature_layers is 9 of"),
        (lambda m: m["model"]["vision"].update(patch_size=57), "patch_size is 57 at image_size 56"),
        (
            lambda m: m["model"]["vision"].update(image_size=2048, patch_size=1),
            "2048 patches along an edge",
        ),
        (lambda m: m["model"].update(projector_depth=0), "projector_depth is 0"),
        (lambda m: m["model"].update(projector_depth=9), "projector_depth is 9"),
        (lambda m: m["model"]["image"].update(grids=[[112000, 112000]]), "has [112000, 112000]"),
        (lambda m: m["model"]["image"].update(grids=[[56, 57]]), "has [56, 57]"),
        (lambda m: m["model"]["image"].update(grids=[[0, 56]]), "has [0, 56]"),
        (lambda m: m["model"]["image"].update(grids=[[-56, -56]]), "has [-56, -56]"),
        (lambda m: m["model"]["image"].update(grids=[[56 * 65, 56]]), "at most 64 tiles"),
        (lambda m: m["model"]["image"].update(grids=[]), "grids is empty"),
        (lambda m: m["model"]["image"].update(grids=[[56, 56]] * 65), "lists 65 grids"),
        (lambda m: m["model"]["image"].update(std=[0.0, 1.0, 1.0]), "at least 0.001"),
        (lambda m: m["model"]["image"].update(std=[-1.0, 1.0, 1.0]), "at least 0.001"),
        (lambda m: m["model"]["image"].update(mean=[1e9, 1.0, 1.0]), "mean is"),
        (lambda m: m["model"]["image"].update(mean=[float("inf"), 1.0, 1.0]), "mean is"),
        (lambda m: m.update(notice="Cleared for diagnosis."), "notice is not 'Research use only"),
        (lambda m: m["precision"].update(block_size=-1), "block_size is -1"),
        (lambda m: m["precision"].update(block_size=1 << 40), "block_size is"),
        (lambda m: m["checkpoint"].update(parameters=-1), "checkpoint.parameters is -1"),
        (lambda m: m["checkpoint"].update(sha256="x"), "checkpoint.sha256 is no SHA-256"),
        (lambda m: m["checkpoint"].update(name="x" * 10_001), "has 10,001 characters"),
        (lambda m: m["tools"].update({"x" * 10_001: "1"}), "has 10,001 characters"),
        (lambda m: m["files"][0].update(size=-1), "has -1 bytes"),
        (lambda m: m["files"][0].update(size=1 << 60), "bytes"),
        (lambda m: m["files"][0].update(size=1 << 29), "and is no weights"),
        (lambda m: m["files"][0].update(sha256="A" * 64), "no SHA-256 in hex"),
        (lambda m: m["files"].append(m["files"][0]), "twice"),
        (lambda m: m["files"].append(m["files"][0] | {"path": "DECODER.ONNX"}), "twice"),
        (
            lambda m: m.update(files=[m["files"][0] | {"path": f"{i}"} for i in range(1001)]),
            "lists 1,001 files",
        ),
    ],
)
def test_impossible_values_are_refused_by_name(
    manifest: dict[str, Any], change: Change, message: str
) -> None:
    assert message in refused(manifest, change)


def test_what_exports_write_is_possible(bundle: Path) -> None:
    assert model_problem(open_bundle(bundle).manifest.model) is None


def test_a_manifest_that_is_too_long_is_not_read(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    with (copy / MANIFEST).open("r+b") as file:
        file.truncate(1 << 40)  # sparse: a reader would take all memory
    begin = time.monotonic()
    with pytest.raises(BundleError, match=r"1,099,511,627,776 bytes, over 1,048,576"):
        open_bundle(copy)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 100_000, b"\xff"])
def test_json_that_is_deep_or_long_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        loads(content)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "/etc/passwd", "a\nb", "\x1b[2J"])
def test_listed_names_are_plain(bundle: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    edit_manifest(copy, lambda m: m["files"][0].update(path=name))
    with pytest.raises(BundleError, match="not a plain file name"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["x" * 256, "\u00e9" * 128, "x" * 5000, "a/" * 200])
def test_no_file_system_has_such_a_name(manifest: dict[str, Any], name: str) -> None:
    message = refused(manifest, lambda m: m["files"][0].update(path=name))
    assert "files lists a name of" in message


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800"])
@pytest.mark.parametrize("place", ["system", "name"])
def test_half_a_character_is_no_text(manifest: dict[str, Any], place: str, text: str) -> None:
    part = manifest["model"]["prompt"] if place == "system" else manifest["checkpoint"]
    key = next(key for key, value in part.items() if isinstance(value, str))

    def change(data: dict[str, Any]) -> None:
        (data["model"]["prompt"] if place == "system" else data["checkpoint"])[key] = text

    assert "holds half a character" in refused(manifest, change)
