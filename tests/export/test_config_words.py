"""Fields of a checkpoint that are empty, or words without meaning: refused, not taken as absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("safetensors", reason="exporting needs pulse-edge[export]")

from pulse_export.checkpoint import Checkpoint

from support.damage import edit, refused
from support.fixture_types import Checkpoints

EMPTY: tuple[Any, ...] = ("", 0, False, [], {}, " ", 0.0)


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.fixture
def hf_copy(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoints(layout="hf_next"), tmp_path / "copy"))


@pytest.mark.parametrize("value", [*EMPTY, "none", "Flat", "flat ", "spatial", True, 1, ["flat"]])
def test_a_merge_that_is_no_known_word_is_refused(copy: Path, value: Any) -> None:
    """LLaVA takes "flat" where there is no field, and fails for other words when a page comes."""
    edit(copy, mm_patch_merge_type=value)
    text = refused(copy)
    assert f"mm_patch_merge_type {value!r} is not supported, only flat and spatial_unpad" in text


@pytest.mark.parametrize("value", [*EMPTY, "none", "Square", "anyres_max_9", 1, True])
def test_an_aspect_that_is_no_known_word_is_refused(copy: Path, value: Any) -> None:
    edit(copy, image_aspect_ratio=value)
    assert f"image_aspect_ratio {value!r} is not supported, only " in refused(copy)


@pytest.mark.parametrize("value", [..., None])
def test_words_that_are_absent_have_llavas_defaults(copy: Path, value: Any) -> None:
    edit(copy, mm_patch_merge_type=value, image_aspect_ratio=value)
    image = Checkpoint(copy).spec.image
    assert (image.merge, image.aspect) == ("flat", "square")


@pytest.mark.parametrize("value", [-1, 0, 1, 63, 65, 1024, 1 << 40, "64", 64.5, True, [64], {}, ""])
def test_a_projector_of_another_width_is_refused(copy: Path, value: Any) -> None:
    """LLaVA makes its projector that wide, and then cannot load the weights."""
    edit(copy, mm_hidden_size=value)
    width = Checkpoint(_without_width(copy)).spec.vision.width
    edit(copy, mm_hidden_size=value)
    text = refused(copy)
    assert (
        f"mm_hidden_size is {value!r}, supported is {width} or None; it must be the tower" in text
    )


def _without_width(copy: Path) -> Path:
    edit(copy, mm_hidden_size=...)
    return copy


@pytest.mark.parametrize("value", [..., None, "width"])
def test_the_towers_own_width_is_taken(copy: Path, value: Any) -> None:
    width = Checkpoint(_without_width(copy)).spec.vision.width
    edit(copy, mm_hidden_size=width if value == "width" else value)
    assert Checkpoint(copy).spec.vision.width == width


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(
    "value", [[], "", "2", " ", False, True, 2.0, 2.5, -1, 512, {}, [[]], [None], ["2"], [2, -1]]
)
def test_end_tokens_that_are_none_are_refused(copy: Path, file: str, value: Any) -> None:
    edit(copy, file, eos_token_id=value)
    text = refused(copy)
    assert f"{copy / file}: eos_token_id is " in text
    assert "must be a whole number from 0 to 511" in text or (
        value == [] and "an answer would never end; list the tokenizer's end token" in text
    )


@pytest.mark.parametrize("value", [..., None])
def test_end_tokens_that_are_absent_are_those_of_the_config(copy: Path, value: Any) -> None:
    edit(copy, "generation_config.json", eos_token_id=value)
    assert Checkpoint(copy).spec.text.eos == (2,)


def outer_and_inner(path: Path, outer: Any, inner: Any) -> None:
    """End tokens of a conversion: beside `text_config`, and in it; ... leaves them out."""
    file = path / "config.json"
    config = json.loads(file.read_text())
    for fields, value in ((config, outer), (config["text_config"], inner)):
        fields.pop("eos_token_id", None)
        if value is not ...:
            fields["eos_token_id"] = value
    file.write_text(json.dumps(config))
    (path / "generation_config.json").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("outer", "inner", "ends"),
    [
        (..., ..., (2,)),
        (2, ..., (2,)),
        (..., 2, (2,)),
        (2, 2, (2,)),
        (None, 2, (2,)),
        ([2, 7], ..., (2, 7)),
        ([2, 7], [2, 7], (2, 7)),
    ],
)
def test_end_tokens_of_a_conversion(
    hf_copy: Path, outer: Any, inner: Any, ends: tuple[int, ...]
) -> None:
    """transformers takes those beside `text_config` first."""
    outer_and_inner(hf_copy, outer, inner)
    assert Checkpoint(hf_copy).spec.text.eos == ends


@pytest.mark.parametrize(
    ("outer", "inner", "message"),
    [
        (7, 2, "eos_token_id is 7, but 2 in text_config; make the two agree"),
        ([2, 7], 2, "eos_token_id is [2, 7], but 2 in text_config"),
        (7, ..., "its end token is 2, but eos_token_id"),
        ([], ..., "eos_token_id is [], so an answer would never end"),
        ("2", ..., "eos_token_id is '2', must be a whole number"),
        ([], 2, "eos_token_id is [], but 2 in text_config"),
    ],
)
def test_end_tokens_of_a_conversion_that_disagree(
    hf_copy: Path, outer: Any, inner: Any, message: str
) -> None:
    outer_and_inner(hf_copy, outer, inner)
    assert message in refused(hf_copy)
