"""What a manifest says about the decoder, its conversation and its tokenizer: legal and not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.limits import ROPE_RANGES, model_problem
from pulse_edge.bundle.manifest import MANIFEST, loads
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.bundle.spec import ModelSpec, RopeScaling
from pulse_edge.errors import BundleError

from support.hand_bundle import CONTENTS, SPEC, manifest_of, write_bundle
from support.manifests import reseal

LLAMA3 = RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)
LINEAR = RopeScaling("linear", 4.0)


def with_rope(rope: RopeScaling) -> ModelSpec:
    return replace(SPEC, text=replace(SPEC.text, rope=rope))


def test_what_plain_llamas_do_not_have_is_left_out() -> None:
    """So that bundles of earlier versions keep their bytes."""
    stored = json.loads(dumps(manifest_of(CONTENTS)))["model"]
    assert not {"rope", "qkv_bias"} & stored["text"].keys()
    assert "style" not in stored["prompt"]


@pytest.mark.parametrize("rope", [LINEAR, LLAMA3], ids=["linear", "llama3"])
@pytest.mark.parametrize("style", [None, "two", "llama_2", "chatml"])
def test_a_manifest_says_it_all_again(rope: RopeScaling, style: Any) -> None:
    model = replace(with_rope(rope), prompt=replace(SPEC.prompt, style=style))
    model = replace(model, text=replace(model.text, qkv_bias=True))
    manifest = manifest_of(CONTENTS, model=model)
    assert loads(dumps(manifest)) == manifest


@pytest.mark.parametrize(
    ("part", "fields", "reason"),
    [
        ("text", {"rope": {"kind": "yarn", "factor": 4.0}}, "'yarn' is not one of linear, llama3"),
        ("text", {"rope": {"kind": "linear"}}, "missing field 'factor'"),
        ("text", {"rope": {"kind": "linear", "factor": 4.0, "beta": 1.0}}, "unknown field 'beta'"),
        ("text", {"rope": {"kind": "linear", "factor": "4"}}, "expected float"),
        ("text", {"rope": []}, "expected an object"),
        ("text", {"qkv_bias": 1}, "expected bool"),
        ("text", {"qkv_bias": None}, "expected bool"),
        ("prompt", {"style": "alpaca"}, "'alpaca' is not one of two, llama_2, chatml"),
        ("prompt", {"style": 2}, "2 is not one of two"),
    ],
    ids=str,
)
def test_other_words_are_refused_by_name(part: str, fields: dict[str, Any], reason: str) -> None:
    data = json.loads(dumps(manifest_of(CONTENTS)))
    data["model"][part] |= fields
    with pytest.raises(BundleError) as caught:
        loads(reseal(data))
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", ROPE_RANGES)
def test_each_number_of_rope_has_a_range(name: str) -> None:
    least, most = ROPE_RANGES[name]
    wide = replace(LLAMA3, low_freq_factor=1e-3, high_freq_factor=1e4)
    for value in (least, most):
        if name in ("low_freq_factor", "high_freq_factor"):
            continue  # each has to leave room for the other
        fields: dict[str, Any] = {name: value}
        assert model_problem(with_rope(replace(wide, **fields))) is None
    for value in (least / 2, most * 2, -1.0, float("nan")):
        changes: dict[str, Any] = {name: value}
        problem = model_problem(with_rope(replace(wide, **changes)))
        assert problem is not None
        assert f"model.text.rope.{name}" in problem


@pytest.mark.parametrize(
    ("rope", "reason"),
    [
        (replace(LINEAR, low_freq_factor=1.0), "rope.low_freq_factor is set, and linear"),
        (replace(LINEAR, original_context=64), "rope.original_context is set, and linear"),
        (replace(LLAMA3, low_freq_factor=None), "rope lacks one of low_freq_factor"),
        (replace(LLAMA3, original_context=None), "rope lacks one of low_freq_factor"),
        (replace(LLAMA3, low_freq_factor=4.0), "4.0, not below high_freq_factor 4.0"),
    ],
)
def test_numbers_that_do_not_go_together(rope: RopeScaling, reason: str) -> None:
    assert reason in (model_problem(with_rope(rope)) or "")


def test_a_bundle_has_one_tokenizer(tmp_path: Path) -> None:
    contents = dict(CONTENTS)
    del contents["tokenizer.model"]
    json_only = manifest_of(contents | {"tokenizer.json": b"{}"})
    assert json_only.tokenizer == "tokenizer.json"
    assert manifest_of(CONTENTS).tokenizer == "tokenizer.model"
    both = write_bundle(tmp_path / "both", {"tokenizer.json": b"{}"})
    with pytest.raises(BundleError, match=r"both tokenizer\.model and tokenizer\.json"):
        open_bundle(both)
    none = tmp_path / "none"
    none.mkdir()
    for name, content in contents.items():
        (none / name).write_bytes(content)
    (none / MANIFEST).write_bytes(dumps(manifest_of(contents)))
    with pytest.raises(BundleError, match=r"lists no tokenizer\.model"):
        open_bundle(none)
    (none / "tokenizer.json").write_bytes(b"{}")
    (none / MANIFEST).write_bytes(dumps(json_only))
    assert open_bundle(none).read("tokenizer.json") == b"{}"
