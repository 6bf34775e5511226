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

from pulse_edge.bundle.spec import ModelSpec, TextSpec, VisionSpec
from pulse_edge.errors import CheckpointError
from pulse_export.fields import Fields
from pulse_export.network_fields import CONVERSION, PUBLISHED, TEXT, VISION, check_fields
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
LLAMA_DEFAULTS: dict[str, Any] = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "intermediate_size": 11008,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "vocab_size": 32000,
}
ROPE = frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor"})


def architecture(config: Fields) -> str:
    """The class the checkpoint was made for."""
    names = config.values.get("architectures")
    if not names and config.get("model_type") in ("llava_llama", "llava"):
        return "LlavaLlamaForCausalLM"
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


def _text_spec(config: Fields, path: Path) -> TextSpec:
    hidden, heads = config.whole("hidden_size"), config.whole("num_attention_heads")
    kv_heads = config.whole("num_key_value_heads", heads)
    head_size = config.whole("head_dim", max(1, hidden // heads))
    if heads % kv_heads or head_size % 2 or (config.get("head_dim") is None and hidden % heads):
        raise CheckpointError(
            f"{config.where}: width {hidden} / {heads} heads / {kv_heads} KV heads does not "
            f"divide, or head size {head_size} is odd"
        )
    vocab = config.whole("vocab_size")
    return TextSpec(
        hidden=hidden,
        layers=config.whole("num_hidden_layers", most=1000),
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        ffn=config.whole("intermediate_size"),
        vocab=vocab,
        eps=config.positive("rms_norm_eps"),
        rope_theta=_rope_theta(config),
        context=config.whole("max_position_embeddings"),
        bos=config.whole("bos_token_id", 1, least=0, most=vocab - 1),
        eos=_end_tokens(config, path, vocab),
    )


def _rope_theta(config: Fields) -> float:
    """The base of plain RoPE; every other kind is refused."""
    thetas = [config.positive("rope_theta")] if config.get("rope_theta") is not None else []
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.part(key)
        kind = rope.values.get("rope_type", rope.values.get("type", "default"))
        if kind != "default":
            raise CheckpointError(
                f"{rope.where}: RoPE scaling {kind!r:.60} is not supported, only plain RoPE"
            )
        unknown = sorted(rope.values.keys() - ROPE)
        if unknown:
            raise CheckpointError(
                f"{rope.where}: {unknown[0]!r:.60} is not supported, only plain RoPE"
            )
        rope.only("factor", 1, None)
        rope.only("partial_rotary_factor", 1, None)
        if rope.get("rope_theta") is not None:
            thetas.append(rope.positive("rope_theta"))
    if len(set(thetas)) > 1:
        stated = " and ".join(map(str, thetas))
        raise CheckpointError(f"{config.where}: rope_theta is both {stated}; keep one")
    return thetas[0] if thetas else 10000.0


def _end_tokens(config: Fields, path: Path, vocab: int) -> tuple[int, ...]:
    """The ids that end an answer. transformers generates with those of generation_config.json."""
    own = _ends(config, vocab)
    file = path / "generation_config.json"
    generation = Fields(read_json(file) if file.exists() else {}, str(file))
    ends = _ends(generation, vocab)
    if ends and not set(own) <= set(ends):
        raise CheckpointError(
            f"{file}: eos_token_id is {ends}, but {config.where} says {own}; make the two agree"
        )
    bos = generation.get("bos_token_id")
    if bos is not None and bos != config.get("bos_token_id", 1):
        raise CheckpointError(
            f"{file}: bos_token_id is {bos!r:.60}, but {config.where} says "
            f"{config.get('bos_token_id', 1)!r:.60}; make the two agree"
        )
    return tuple(dict.fromkeys(ends or own or [2]))


def _ends(config: Fields, vocab: int) -> list[int]:
    """End tokens: none, one or a list.

    transformers takes an empty list as it stands: an answer fails or never ends.
    """
    value = config.get("eos_token_id")
    if value is None:
        return []
    listed = value if isinstance(value, list) else [value]
    if not listed:
        raise CheckpointError(
            f"{config.where}: eos_token_id is [], so an answer would never end; "
            "list the tokenizer's end token, or remove the field"
        )
    return [
        Fields({"eos_token_id": v}, config.where).whole("eos_token_id", -1, 0, vocab - 1)
        for v in listed
    ]


def _vision_spec(config: Fields, select_layer: int) -> VisionSpec:
    check_fields(config, VISION)
    layers = config.whole("num_hidden_layers", most=1000)
    # hidden_states[0] is the embeddings' output, so hidden_states[k] needs k layers, and -1 all.
    used = select_layer if select_layer >= 0 else layers + 1 + select_layer
    if not 0 < used <= layers:
        raise CheckpointError(
            f"{config.where}: feature layer {select_layer} of a tower with {layers} layers"
        )
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


def published_spec(config: Fields, path: Path, template: str | None) -> ModelSpec:
    """The published layout: one flat config.

    The tower's config is known by its name, or lies beside the weights.
    """
    check_fields(config, TEXT, PUBLISHED)
    kind = str(config.values.get("mm_projector_type", "linear"))
    match = re.fullmatch(r"mlp([1-8])x_gelu", kind)
    if kind != "linear" and not match:
        raise CheckpointError(
            f"{config.where}: mm_projector_type {kind!r:.60} is not supported, "
            "only linear and mlpNx_gelu"
        )
    select = config.whole("mm_vision_select_layer", -2, least=-1000, most=1000)
    side = _vision_spec(_published_tower(config, path), select)
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
        _text_spec(config, path),
        image_spec(path, config.where, layout),
        prompt_spec(path, template),
    )


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


def hf_spec(config: Fields, path: Path, template: str | None) -> ModelSpec:
    """The Hugging Face conversions: nested configs; grids as (height, width)."""
    following = architecture(config) == "LlavaNextForConditionalGeneration"
    config.only("model_type", "llava_next" if following else "llava", None)
    check_fields(config, CONVERSION)
    text, vision = config.part("text_config"), config.part("vision_config")
    text.only("model_type", "llama")
    check_fields(text, TEXT)
    text = _with_end_tokens_of(config, text)
    select = config.whole("vision_feature_layer", -2, least=-1000, most=1000)
    side = _vision_spec(vision.over(CLIP_DEFAULTS if vision.values else CLIP_L_336), select)
    grids = parse_grids(config, side.image_size) if following else ()
    layout = ImageLayout(
        processors=("LlavaNext",) if following else ("CLIP", "Llava"),
        aspect="anyres" if following else None,
        grids=tuple((width, height) for height, width in grids),
        merge="spatial_unpad" if following else "flat",
        side=side.image_size,
        patch=side.patch_size,
    )
    return ModelSpec(
        side,
        2,
        _text_spec(text.over(LLAMA_DEFAULTS), path),
        image_spec(path, config.where, layout),
        prompt_spec(path, template),
    )


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
