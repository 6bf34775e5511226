"""config.json and its neighbours -> `ModelSpec`. Fields with values that this export does not
implement are refused by name.

Sources of the fields: LLaVA's llava/model/llava_arch.py and llava_llama.py for the published
layout; transformers' configuration_llava.py, configuration_llava_next.py, configuration_llama.py
and configuration_clip.py for the conversions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pulse_edge.bundle.spec import ModelSpec, VisionSpec
from pulse_edge.errors import CheckpointError
from pulse_export.decoder_config import text_spec
from pulse_export.families import (
    FAMILIES,
    PUBLISHED_FAMILIES,
    attention_window,
    check_window,
    converted_family,
)
from pulse_export.fields import Fields
from pulse_export.network.optimum.config import OPTIMUM, OWN, optimum_spec
from pulse_export.network_fields import (
    ANY_TOWER,
    CLIP_TOWER,
    CONVERSION,
    OTHER_TOWER,
    PUBLISHED,
    TEXT,
    VISION,
    check_fields,
    used_layers,
)
from pulse_export.preprocessing import ImageLayout, image_spec, parse_grids
from pulse_export.strict_json import read_json
from pulse_export.tokenizer_files import prompt_spec

# openai/clip-vit-large-patch14-336: what upstream downloads beside a published LLaVA checkpoint,
# and what transformers takes for a conversion without `vision_config`.
CLIP_L_336: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
KNOWN_TOWERS: dict[str, dict[str, Any]] = {"openai/clip-vit-large-patch14-336": CLIP_L_336}
# What transformers' configurations have for fields that a config leaves out.
CLIP_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
CONVERTED_TOWER = (
    "the authors' code treats each kind of tower in its own way; convert the checkpoint to "
    "LlavaNextForConditionalGeneration with transformers, and export that with --network optimum"
)


def architecture(config: Fields) -> str:
    """The class the checkpoint was made for."""
    names = config.values.get("architectures")
    kind = config.get("model_type")
    if not names and kind is not None:
        for family in FAMILIES:
            if kind in family.types:
                return family.published
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise CheckpointError(
            f"{config.where}: architectures is {names!r:.60}, must be a list that names a class"
        )
    return names[0]


def is_tied(config: Fields) -> bool:
    """Whether the head is the embedding table.

    Conversions have the flag beside the decoder's sizes, or at the top, or both; versions of
    transformers differ in which one they follow.
    """
    places = (config, config.part("text_config"))
    for fields in places:
        fields.only("tie_word_embeddings", True, False, None)
    return any(fields.get("tie_word_embeddings") for fields in places)


def _vision_spec(config: Fields, select_layer: int, network: str) -> VisionSpec:
    if network == OPTIMUM:
        return optimum_spec(config, select_layer)
    check_fields(config, VISION)
    layers = config.whole("num_hidden_layers", most=1000)
    used = used_layers(config.where, select_layer, layers)
    spec = VisionSpec(
        image_size=config.whole("image_size"),
        patch_size=config.whole("patch_size"),
        width=config.whole("hidden_size"),
        heads=config.whole("num_attention_heads"),
        layers=layers,
        feature_layers=used,
        mlp=config.whole("intermediate_size"),
        activation=config.values.get("hidden_act", "quick_gelu"),
        eps=config.positive("layer_norm_eps", 1e-5),
    )
    if spec.image_size % spec.patch_size or spec.width % spec.heads:
        raise CheckpointError(
            f"{config.where}: image {spec.image_size} / patch {spec.patch_size} or "
            f"width {spec.width} / heads {spec.heads} does not divide"
        )
    return spec


def published_spec(
    config: Fields, path: Path, template: str | None, network: str = OWN
) -> ModelSpec:
    """The published layout: one flat config.

    The tower's config is known by its name, or lies beside the weights.
    """
    family = PUBLISHED_FAMILIES[architecture(config)]
    rules = {"model_type": (family.types, "")}
    check_fields(config, TEXT, PUBLISHED, rules, family.rules, read=family.read)
    kind = str(config.values.get("mm_projector_type", "linear"))
    match = re.fullmatch(r"mlp([1-8])x_gelu", kind)
    if kind != "linear" and not match:
        raise CheckpointError(
            f"{config.where}: mm_projector_type {kind!r:.60} is not supported, "
            "only linear and mlpNx_gelu"
        )
    select = config.whole("mm_vision_select_layer", -2, least=-1000, most=1000)
    tower = tower_fields(config, path)
    tower.only("model_type", CLIP_TOWER, None, advice=CONVERTED_TOWER)
    side = _vision_spec(tower, select, network)
    aspect = config.get("image_aspect_ratio", "square")
    layout = ImageLayout(
        processors=("CLIP",),
        aspect=aspect,
        grids=parse_grids(config, side.image_size) if aspect == "anyres" else (),
        merge=config.get("mm_patch_merge_type", "flat"),
        side=side.image_size,
        patch=side.patch_size,
    )
    config.only("mm_hidden_size", side.width, None, advice="it must be the tower's width")
    return ModelSpec(
        side,
        int(match[1]) if match else 1,
        text_spec(config, path, family),
        image_spec(path, config.where, layout),
        prompt_spec(path, template, family.template),
    )


def tower_fields(config: Fields, path: Path) -> Fields:
    """The tower's config. Of CLIP's, with the defaults of transformers.

    Args:
        config: the checkpoint's config.json.
        path: the checkpoint's directory.
    """
    if architecture(config) in PUBLISHED_FAMILIES:
        return _published_tower(config, path)
    vision = config.part("vision_config")
    if vision.get("model_type", CLIP_TOWER) != CLIP_TOWER:
        return vision
    return vision.over(CLIP_DEFAULTS if vision.values else CLIP_L_336)


def _published_tower(config: Fields, path: Path) -> Fields:
    tower = tower_name(config)
    beside = path / "vision_config.json"
    if beside.exists():
        stored = Fields(read_json(beside), str(beside))
        return stored.part("vision_config") if stored.get("vision_config") else stored
    if tower not in KNOWN_TOWERS:
        raise CheckpointError(
            f"{config.where}: vision tower {tower!r:.60} is not one of {', '.join(KNOWN_TOWERS)}; "
            "put its config as vision_config.json beside the weights"
        )
    return Fields(KNOWN_TOWERS[tower], config.where)


def tower_name(config: Fields) -> str:
    """What the published layout calls its vision tower."""
    return str(config.values.get("mm_vision_tower", config.values.get("vision_tower", "")))


def hf_spec(config: Fields, path: Path, template: str | None, network: str = OWN) -> ModelSpec:
    """The Hugging Face conversions: nested configs; grids as (height, width)."""
    following = architecture(config) == "LlavaNextForConditionalGeneration"
    config.only("model_type", "llava_next" if following else "llava", None)
    tower = tower_fields(config, path)
    if network == OWN:
        tower.only("model_type", CLIP_TOWER, None, advice=OTHER_TOWER)
    check_fields(config, CONVERSION, *((ANY_TOWER,) if network == OPTIMUM else ()))
    text = config.part("text_config")
    family = converted_family(text)
    check_fields(text, TEXT, family.rules, read=family.read)
    text = _with_end_tokens_of(config, text)
    select = config.whole("vision_feature_layer", -2, least=-1000, most=1000)
    side = _vision_spec(tower, select, network)
    grids = parse_grids(config, side.image_size) if following else ()
    layout = ImageLayout(
        processors=_processors(following, tower),
        aspect="anyres" if following else None,
        grids=tuple((width, height) for height, width in grids),
        merge="spatial_unpad" if following else "flat",
        side=side.image_size,
        patch=side.patch_size,
        strategy=config.get("vision_feature_select_strategy", "default"),
    )
    return ModelSpec(
        side,
        2,
        text_spec(text.over(family.defaults), path, family),
        image_spec(path, config.where, layout),
        prompt_spec(path, template, family.template),
    )


def check_attention(config: Fields, context: int) -> None:
    """Refuse a decoder whose layers see less than a context.

    Args:
        config: the checkpoint's config.json, after it became a spec.
        context: of the bundle, in tokens.

    Raises:
        CheckpointError: its sliding window is shorter.
    """
    family = PUBLISHED_FAMILIES.get(architecture(config))
    text = config if family else config.part("text_config")
    window = attention_window(text, family or converted_family(text))
    check_window(text.where, window, context)


def _processors(following: bool, tower: Fields) -> tuple[str, ...]:
    """Names of the image processors, without suffix, that pages may have for this tower.

    A tile of LLaVA-NeXT has the tower's size, so that SigLIP's processor only normalises it.
    """
    clip = tower.get("model_type", CLIP_TOWER) == CLIP_TOWER
    if following:
        return ("LlavaNext",) if clip else ("LlavaNext", "Siglip")
    return ("CLIP", "Llava") if clip else ("CLIP", "Llava", "Siglip")


def _with_end_tokens_of(config: Fields, text: Fields) -> Fields:
    """The decoder's fields with the end tokens that stand beside them.

    transformers takes the outer ones before those of `text_config`.
    """
    outer, inner = config.get("eos_token_id"), text.get("eos_token_id")
    if outer is None:
        return text
    if inner is not None and inner != outer:
        raise CheckpointError(
            f"{config.where}: eos_token_id is {outer!r:.60}, but {inner!r:.60} in text_config; "
            "make the two agree"
        )
    return Fields({**text.values, "eos_token_id": outer}, text.where)
