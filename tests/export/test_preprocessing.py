"""The processor's files: read where transformers reads them, and refused where pixels differ."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("safetensors", reason="exporting needs pulse-edge[export]")

from pulse_edge.bundle.spec import ImageSpec
from pulse_edge.errors import CheckpointError
from pulse_export.checkpoint import Checkpoint
from pulse_export.preprocessing import CLIP_MEAN, ImageLayout, image_spec

from support import tiny
from support.damage import edit, refused
from support.fixture_types import Checkpoints

FLAT, NESTED = "preprocessor_config.json", "processor_config.json"
SQUASH = {"height": 56, "width": 56}


@pytest.fixture
def llava(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    """LLaVA-1.5's conversion."""
    return Path(shutil.copytree(checkpoints(layout="hf_llava"), tmp_path / "copy"))


@pytest.fixture
def following(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    """LLaVA-NeXT's conversion."""
    return Path(shutil.copytree(checkpoints(layout="hf_next"), tmp_path / "copy"))


def nest(path: Path, **around: Any) -> None:
    """As transformers 5 saves: all in processor_config.json."""
    inner = json.loads((path / FLAT).read_text())
    (path / FLAT).unlink()
    tiny.write_json(path / NESTED, {"image_processor": inner} | around)


@pytest.mark.parametrize("v5", [True, False])
def test_a_processor_is_read_from_either_file(llava: Path, v5: bool) -> None:
    edit(
        llava, FLAT, image_processor_type="LlavaImageProcessor", do_pad=True,
        image_mean=[0.5, 0.25, 0.5], image_std=[0.5, 0.5, 1],
    )  # fmt: skip
    if v5:
        nest(llava, processor_class="LlavaProcessor", patch_size=14, num_additional_image_tokens=1)
    image = Checkpoint(llava).spec.image
    assert image.aspect == "pad"
    assert image.mean == (0.5, 0.25, 0.5)
    assert image.std == (0.5, 0.5, 1.0)


def test_the_nested_processor_comes_first(llava: Path) -> None:
    flat = json.loads((llava / FLAT).read_text())
    tiny.write_json(llava / NESTED, {"image_processor": flat | {"image_mean": [0.5] * 3}})
    assert Checkpoint(llava).spec.image.mean == (0.5, 0.5, 0.5)
    tiny.write_json(llava / NESTED, {"image_processor": flat | {"resample": 2}})
    assert f"{NESTED} image_processor: resample is 2" in refused(llava)
    tiny.write_json(llava / NESTED, {"processor_class": "LlavaProcessor"})
    assert Checkpoint(llava).spec.image.mean != (0.5, 0.5, 0.5)
    (llava / "video_preprocessor_config.json").write_text('{"resample": 0}')
    Checkpoint(llava)


REFUSED: list[dict[str, Any]] = [
    {"resample": 2},
    {"resample": 1},
    {"resample": "lanczos"},
    {"resample": None},
    {"rescale_factor": 0.5},
    {"rescale_factor": 1 / 127.5},
    {"do_resize": False},
    {"do_rescale": False},
    {"do_normalize": False},
    {"do_convert_rgb": False},
    {"do_pad": "yes"},
    {"crop_size": 224},
    {"crop_size": {"height": 56, "width": 112}},
    {"crop_size": {"shortest_edge": 56}},
    {"crop_size": "56"},
    {"size": 84},
    {"size": {"shortest_edge": 84}},
    {"size": {"height": 84, "width": 84}},
    {"size": {"height": 56, "width": 112}},
    {"size": {"longest_edge": 56}},
    {"size": {"shortest_edge": 56, "longest_edge": 112}},
    {"size": []},
    {"size": {"max_pixels": 3136}},
    {"image_mean": 0.5},
    {"image_mean": [0.5, 0.5]},
    {"image_std": [0.5, 0.5, 0]},
    {"image_std": [0.5, 0.5, -1]},
    {"image_std": ["0.5", 0.5, 0.5]},
    {"image_processor_type": "SiglipImageProcessor"},
    {"image_processor_type": "ViTImageProcessor"},
    {"image_processor_type": ..., "feature_extractor_type": "ViTFeatureExtractor"},
    {"do_flip_channel_order": True},
    {"offset": 1},
    {"do_reduce_labels": True},
    {"max_image_size": 980},
    {"crop_pct": 0.9},
]


@pytest.mark.parametrize("v5", [True, False])
@pytest.mark.parametrize("fields", REFUSED, ids=lambda f: json.dumps(f, default=str)[:50])
@pytest.mark.parametrize("kind", ["llava", "following", "published"])
def test_other_pixels_are_refused_by_name(
    checkpoints: Checkpoints, tmp_path: Path, kind: str, fields: dict[str, Any], v5: bool
) -> None:
    layout = {"llava": "hf_llava", "following": "hf_next", "published": "llava"}[kind]
    path = Path(shutil.copytree(checkpoints(layout=layout), tmp_path / "copy"))
    if kind == "published":
        tiny.write_json(path / FLAT, tiny.preprocessor_config(tiny.Geometry()))
    edit(path, FLAT, **fields)
    if v5:
        nest(path)
    message = refused(path)
    assert next(key for key, value in fields.items() if value is not ...) in message
    assert (NESTED if v5 else FLAT) in message


@pytest.mark.parametrize(
    "fields",
    [
        {"size": SQUASH, "do_pad": True},
        {"size": 56, "crop_size": 56},
        {"size": 56, "default_to_square": True, "do_pad": True},
        {"do_center_crop": False, "do_pad": True},
        {"size": SQUASH | {"shortest_edge": None}, "do_pad": True},
        {"resample": "bicubic"},
        {"size": ..., "crop_size": ..., "resample": ..., "image_mean": ..., "image_std": ...},
        {"do_pad": False, "size_divisor": None, "_processor_class": "LlavaProcessor"},
        {"image_processor_type": "LlavaImageProcessorFast", "data_format": "channels_first"},
        {"image_processor_type": ..., "feature_extractor_type": "CLIPFeatureExtractor"},
    ],
)
def test_other_spellings_of_the_same_pixels(llava: Path, fields: dict[str, Any]) -> None:
    type_ = "LlavaImageProcessor" if fields.get("do_pad") else "CLIPImageProcessor"
    edit(llava, FLAT, **({"image_processor_type": type_} | fields))
    image = Checkpoint(llava).spec.image
    assert image.aspect == ("pad" if fields.get("do_pad") else "square")
    assert image.mean == (0.48145466, 0.4578275, 0.40821073)


@pytest.mark.parametrize(
    "fields",
    [
        {"size": SQUASH},  # the whole page squashed
        {"size": 56, "default_to_square": True},
        {"do_center_crop": False},  # a view that is not square
    ],
)
def test_a_page_that_is_not_padded_is_cropped(llava: Path, fields: dict[str, Any]) -> None:
    edit(llava, FLAT, **fields)
    assert next(iter(fields)) in refused(llava)


def test_padding_that_clips_processor_ignores(llava: Path) -> None:
    edit(llava, FLAT, do_pad=True)
    assert "do_pad is True, which CLIPImageProcessor ignores" in refused(llava)


def test_padding_against_the_published_aspect(checkpoints: Checkpoints, tmp_path: Path) -> None:
    path = Path(shutil.copytree(checkpoints(aspect="square"), tmp_path / "copy"))
    tiny.write_json(path / FLAT, {"do_pad": True})
    assert "image_aspect_ratio 'square'; make the two agree" in refused(path)
    edit(path, image_aspect_ratio="pad")
    assert Checkpoint(path).spec.image.aspect == "pad"


@pytest.mark.parametrize(
    "grids",
    [
        [[56, 56]],
        [[56, 112], [112, 56]],
        [[h, w] for w, h in reversed(tiny.Geometry.grids)],  # ties go to the first
        [[336, 672]],
        "[[56, 112]]",
    ],
)
@pytest.mark.parametrize("v5", [True, False])
def test_grids_of_processor_and_config_agree(following: Path, grids: Any, v5: bool) -> None:
    Checkpoint(following)
    edit(following, FLAT, image_grid_pinpoints=grids)
    if v5:
        nest(following)
    assert "image_grid_pinpoints" in refused(following)


@pytest.mark.parametrize("kind", ["CLIPImageProcessor", "LlavaImageProcessor"])
def test_a_following_model_needs_its_own_processor(following: Path, kind: str) -> None:
    edit(following, FLAT, image_processor_type=kind)
    assert f"image_processor_type is {kind!r}, supported here is LlavaNext" in refused(following)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patch_size", 16),
        ("patch_size", "14"),
        ("vision_feature_select_strategy", "full"),
        ("num_additional_image_tokens", 0),
        ("num_additional_image_tokens", 2),
        ("image_token", "<ecg>"),
        ("image_processor", []),
        ("image_processor", "x"),
    ],
)
def test_a_processor_that_counts_other_tokens(llava: Path, field: str, value: Any) -> None:
    nest(llava, **{field: value})
    message = refused(llava)
    assert NESTED in message
    assert field in message


SIGLIP = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_processor_type": "SiglipImageProcessor",
    "processor_class": "LlavaProcessor",
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": SQUASH,
}
LLAVA_SIGLIP = ImageLayout(("CLIP", "Llava", "Siglip"), None, (), "flat", 56, 14, "full")
NEXT_SIGLIP = ImageLayout(
    ("LlavaNext", "Siglip"), "anyres", ((56, 112),), "spatial_unpad", 56, 14, "full"
)


def siglip_spec(path: Path, layout: ImageLayout, **fields: Any) -> ImageSpec:
    values = {k: v for k, v in (SIGLIP | fields).items() if v is not ...}
    tiny.write_json(path / FLAT, values)
    return image_spec(path, "config.json", layout)


def test_siglips_processor_stretches_a_page(tmp_path: Path) -> None:
    spec = siglip_spec(tmp_path, LLAVA_SIGLIP)
    assert (spec.aspect, spec.mean, spec.std) == ("stretch", (0.5,) * 3, (0.5,) * 3)
    own = siglip_spec(tmp_path, LLAVA_SIGLIP, image_mean=[0.4] * 3, image_std=[0.25] * 3)
    assert (own.mean, own.std) == ((0.4,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("name", ["SiglipImageProcessor", "SiglipImageProcessorFast"])
def test_tiles_of_llava_next_are_only_normalised(tmp_path: Path, name: str) -> None:
    spec = siglip_spec(tmp_path, NEXT_SIGLIP, image_processor_type=name)
    assert (spec.aspect, spec.mean) == ("anyres", (0.5,) * 3)


def test_another_processor_crops_or_pads_also_for_siglips_tower(tmp_path: Path) -> None:
    sizes = {"size": {"shortest_edge": 56}, "crop_size": SQUASH, "do_convert_rgb": True}
    cropped = siglip_spec(
        tmp_path, LLAVA_SIGLIP, image_processor_type="CLIPImageProcessor", **sizes
    )
    assert (cropped.aspect, cropped.mean) == ("square", CLIP_MEAN)
    padded = siglip_spec(
        tmp_path, LLAVA_SIGLIP, do_pad=True, image_processor_type="LlavaImageProcessor", **sizes
    )
    assert padded.aspect == "pad"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": {"shortest_edge": 56}}, "size is .*'shortest_edge'"),
        ({"size": {"height": 56, "width": 57}}, "size is"),
        ({"size": ...}, "size is .*224"),
        ({"resample": 2}, "resample is 2"),
        ({"do_pad": True}, "do_pad is True, which SiglipImageProcessor ignores"),
        ({"do_resize": False}, "do_resize"),
        ({"do_convert_rgb": False}, "do_convert_rgb"),
        ({"image_processor_type": ...}, "no image_processor_type"),
        ({"image_processor_type": "ViTImageProcessor"}, "supported here is .*Siglip"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std"),
    ],
    ids=str,
)
def test_what_siglips_processor_must_not_say(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        siglip_spec(tmp_path, LLAVA_SIGLIP, **fields)


@pytest.mark.parametrize(
    ("strategy", "counted", "legal"),
    [
        ("full", 0, True), ("full", None, True), ("full", 1, False),
        ("default", 1, True), ("default", None, True), ("default", 0, False),
    ],
)  # fmt: skip
def test_the_processor_counts_the_towers_tokens(
    tmp_path: Path, strategy: str, counted: int | None, legal: bool
) -> None:
    layout = replace(NEXT_SIGLIP, strategy=strategy)
    around = {"num_additional_image_tokens": counted, "vision_feature_select_strategy": strategy}
    tiny.write_json(tmp_path / NESTED, {"image_processor": SIGLIP} | around)
    if legal:
        assert image_spec(tmp_path, "config.json", layout).aspect == "anyres"
    else:
        with pytest.raises(CheckpointError, match="num_additional_image_tokens"):
            image_spec(tmp_path, "config.json", layout)


@pytest.mark.parametrize("aspect", ["stretch", "", "resize"])
def test_config_json_cannot_ask_to_stretch(tmp_path: Path, aspect: str) -> None:
    with pytest.raises(CheckpointError, match="only anyres, pad and square"):
        siglip_spec(tmp_path, replace(NEXT_SIGLIP, aspect=aspect))
