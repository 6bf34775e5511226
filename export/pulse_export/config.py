"""config.json and its neighbours -> `ModelSpec`. Fields with values that this export does not
implement are refused by name.

Sources of the fields: LLaVA's llava/model/llava_arch.py and llava_llama.py for the published
layout; transformers' configuration_llava.py, configuration_llava_next.py, configuration_llama.py
and configuration_clip.py for the conversions.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, get_args

from pulse_edge.bundle.spec import (
    Aspect,
    ImageSpec,
    Merge,
    ModelSpec,
    PromptSpec,
    TextSpec,
    VisionSpec,
)
from pulse_edge.errors import CheckpointError

# openai/clip-vit-large-patch14-336: what upstream downloads beside a published LLaVA checkpoint.
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
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

VICUNA = {
    "name": "llava_v1",
    "system": "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    "user": "USER",
    "assistant": "ASSISTANT",
}


def read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return data


# Largest value of any size in a config. More is a mistake, which would otherwise show only after it
# has taken all memory.
LARGEST = 1 << 20


def _whole_number(
    config: dict[str, Any],
    key: str,
    where: str,
    default: int | None = None,
    least: int = 1,
    most: int = LARGEST,
) -> int:
    """A whole number. null counts as absent, and what is absent needs a default."""
    value = default if config.get(key) is None else config[key]
    if value is None:
        raise CheckpointError(f"{where}: no {key!r}")
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise CheckpointError(
            f"{where}: {key} is {value!r:.60}, must be a whole number from {least} to {most}"
        )
    return value


def _positive(config: dict[str, Any], key: str, where: str, default: float | None = None) -> float:
    """A number over 0, like `_whole_number`."""
    value = default if config.get(key) is None else config[key]
    if value is None:
        raise CheckpointError(f"{where}: no {key!r}")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1e30:
        raise CheckpointError(f"{where}: {key} is {value!r:.60}, must be a number over 0")
    return float(value)


def _object(config: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """A nested object; {} for one that is absent or null."""
    value = {} if config.get(key) is None else config[key]
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: {key} is {value!r:.60}, must be an object")
    return value


def architecture(config: dict[str, Any], where: str) -> str:
    """The class the checkpoint was made for."""
    names = config.get("architectures")
    if not names and config.get("model_type") in ("llava_llama", "llava"):
        return "LlavaLlamaForCausalLM"
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise CheckpointError(
            f"{where}: architectures is {names!r:.60}, must be a list that names a class"
        )
    return names[0]


def is_tied(config: dict[str, Any], where: str) -> bool:
    """Whether the head is the embedding table; the flag stands beside the decoder's sizes."""
    nested = "text_config" in config
    text = _object(config, "text_config", where) if nested else config
    _only(text, "tie_word_embeddings", (True, False, None), where)
    return bool(text.get("tie_word_embeddings"))


def _only(config: dict[str, Any], key: str, allowed: tuple[Any, ...], where: str) -> None:
    """Refuse a config field whose value this export does not implement; absent is fine."""
    if key in config and config[key] not in allowed:
        raise CheckpointError(
            f"{where}: {key} is {config[key]!r:.60}, supported is {' or '.join(map(repr, allowed))}"
        )


def _text_spec(config: dict[str, Any], path: Path, where: str) -> TextSpec:
    _only(config, "hidden_act", ("silu",), where)
    _only(config, "attention_bias", (False, None), where)
    _only(config, "mlp_bias", (False, None), where)
    _only(config, "pretraining_tp", (1, None), where)
    rope = _object(config, "rope_parameters", where)
    scaling = _object(config, "rope_scaling", where) or rope
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise CheckpointError(
            f"{where}: RoPE scaling {kind!r:.60} is not supported, only plain RoPE"
        )
    hidden, heads = (
        _whole_number(config, "hidden_size", where),
        _whole_number(config, "num_attention_heads", where),
    )
    kv_heads = _whole_number(config, "num_key_value_heads", where, heads)
    head_size = _whole_number(config, "head_dim", where, max(1, hidden // heads))
    if heads % kv_heads or head_size % 2 or (config.get("head_dim") is None and hidden % heads):
        raise CheckpointError(
            f"{where}: width {hidden} / {heads} heads / {kv_heads} KV heads does not divide, "
            f"or head size {head_size} is odd"
        )
    vocab = _whole_number(config, "vocab_size", where)
    beside = path / "generation_config.json"
    ends = (
        [(config, where), (read_json(beside), str(beside))]
        if beside.exists()
        else [(config, where)]
    )
    eos = [e for source, file in ends for e in _ends(source, vocab, file)] or [2]
    return TextSpec(
        hidden=hidden,
        layers=_whole_number(config, "num_hidden_layers", where, most=1000),
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        ffn=_whole_number(config, "intermediate_size", where),
        vocab=vocab,
        eps=_positive(config, "rms_norm_eps", where),
        rope_theta=_positive(
            config, "rope_theta", where, _positive(rope, "rope_theta", where, 10000.0)
        ),
        context=_whole_number(config, "max_position_embeddings", where),
        bos=_whole_number(config, "bos_token_id", where, 1, least=0, most=vocab - 1),
        eos=tuple(dict.fromkeys(eos)),
    )


def _ends(config: dict[str, Any], vocab: int, where: str) -> list[int]:
    """End tokens: none, one or a list."""
    value = config.get("eos_token_id")
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return [
        _whole_number({"eos_token_id": v}, "eos_token_id", where, -1, least=0, most=vocab - 1)
        for v in listed
    ]


def _vision_spec(config: dict[str, Any], select_layer: int, where: str) -> VisionSpec:
    layers = _whole_number(config, "num_hidden_layers", where, most=1000)
    # hidden_states[0] is the embeddings' output, so hidden_states[k] needs k layers, and -1 all.
    used = select_layer if select_layer >= 0 else layers + 1 + select_layer
    if not 0 < used <= layers:
        raise CheckpointError(
            f"{where}: feature layer {select_layer} of a tower with {layers} layers"
        )
    _only(config, "hidden_act", ("quick_gelu", "gelu"), where)
    spec = VisionSpec(
        image_size=_whole_number(config, "image_size", where),
        patch_size=_whole_number(config, "patch_size", where),
        width=_whole_number(config, "hidden_size", where),
        heads=_whole_number(config, "num_attention_heads", where),
        layers=layers,
        feature_layers=used,
        mlp=_whole_number(config, "intermediate_size", where),
        activation=config.get("hidden_act", "quick_gelu"),
        eps=_positive(config, "layer_norm_eps", where, 1e-5),
    )
    if spec.image_size % spec.patch_size or spec.width % spec.heads:
        raise CheckpointError(
            f"{where}: image {spec.image_size} / patch {spec.patch_size} or width {spec.width} / "
            f"heads {spec.heads} does not divide"
        )
    return spec


def published_spec(config: dict[str, Any], path: Path) -> ModelSpec:
    """The published layout: one flat config. The tower's config is known by its name, or lies
    beside the weights."""
    where = str(path / "config.json")
    _only(config, "mm_vision_select_feature", ("patch",), where)
    _only(config, "mm_use_im_start_end", (False, None), where)
    _only(config, "mm_use_im_patch_token", (False, None), where)
    kind = str(config.get("mm_projector_type", "linear"))
    match = re.fullmatch(r"mlp([1-8])x_gelu", kind)
    if kind != "linear" and not match:
        raise CheckpointError(
            f"{where}: mm_projector_type {kind!r:.60} is not supported, only linear and mlpNx_gelu"
        )
    tower = str(config.get("mm_vision_tower", config.get("vision_tower", "")))
    beside = path / "vision_config.json"
    vision: dict[str, Any] | None = (
        read_json(beside) if beside.exists() else KNOWN_TOWERS.get(tower)
    )
    if vision is None:
        raise CheckpointError(
            f"{where}: vision tower {tower!r} is not one of {', '.join(KNOWN_TOWERS)}; "
            "put its config as vision_config.json beside the weights"
        )
    tower_config = _object(vision, "vision_config", str(beside)) or vision
    select = _whole_number(config, "mm_vision_select_layer", where, -2, least=-1000, most=1000)
    side = _vision_spec(tower_config, select, str(beside) if beside.exists() else where)
    aspect = config.get("image_aspect_ratio") or "square"
    grids = _grids(config, side.image_size, where) if aspect == "anyres" else []
    image = _image_spec(path, where, aspect, grids, config.get("mm_patch_merge_type") or "flat")
    return ModelSpec(
        side,
        int(match[1]) if match else 1,
        _text_spec(config, path, where),
        image,
        _prompt_spec(path),
    )


def hf_spec(config: dict[str, Any], path: Path) -> ModelSpec:
    """The Hugging Face conversions: nested configs; grids as (height, width)."""
    where = str(path / "config.json")
    _only(config, "vision_feature_select_strategy", ("default",), where)
    _only(config, "projector_hidden_act", ("gelu",), where)
    _only(config, "multimodal_projector_bias", (True,), where)
    text, vision = _object(config, "text_config", where), _object(config, "vision_config", where)
    _only(text, "model_type", ("llama",), f"{where} text_config")
    _only(vision, "model_type", ("clip_vision_model",), f"{where} vision_config")
    text = {
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "intermediate_size": 11008,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 2048,
        "vocab_size": 32000,
    } | text  # LlamaConfig's defaults
    select = _whole_number(config, "vision_feature_layer", where, -2, least=-1000, most=1000)
    side = _vision_spec(CLIP_L_336 | vision, select, f"{where} vision_config")
    following = architecture(config, where) == "LlavaNextForConditionalGeneration"
    grids = [(w, h) for h, w in _grids(config, side.image_size, where)] if following else []
    preprocessor = path / "preprocessor_config.json"
    processing = read_json(preprocessor) if preprocessor.exists() else {}
    aspect = "anyres" if following else "pad" if processing.get("do_pad") else "square"
    image = _image_spec(path, where, aspect, grids, "spatial_unpad" if following else "flat")
    return ModelSpec(
        side, 2, _text_spec(text, path, f"{where} text_config"), image, _prompt_spec(path)
    )


def _grids(config: dict[str, Any], side: int, where: str) -> list[tuple[int, int]]:
    """`image_grid_pinpoints` as they are stored: pairs of edges in pixels."""
    grids = stored = config.get("image_grid_pinpoints")
    if isinstance(stored, str):  # some configs hold the list as text
        try:
            grids = json.loads(stored.replace("(", "[").replace(")", "]"))
        except (ValueError, RecursionError):
            grids = None
    if (
        not isinstance(grids, list)
        or not 0 < len(grids) <= 1000
        or not all(isinstance(pair, list) and len(pair) == 2 for pair in grids)
        or not all(
            type(edge) is int and 0 < edge <= LARGEST and edge % side == 0
            for pair in grids
            for edge in pair
        )
    ):
        raise CheckpointError(
            f"{where}: image_grid_pinpoints is {stored!r:.60}, "
            f"must be pairs of multiples of {side}, at least one"
        )
    return [(a, b) for a, b in grids]


def _image_spec(
    path: Path, where: str, aspect: Any, grids: list[tuple[int, int]], merge: Any
) -> ImageSpec:
    for field, value, kind in (
        ("image_aspect_ratio", aspect, Aspect),
        ("mm_patch_merge_type", merge, Merge),
    ):
        *others, last = get_args(kind)
        if value not in (*others, last):
            legal = f"{', '.join(others)} and {last}"
            raise CheckpointError(f"{where}: {field} {value!r:.60} is not supported, only {legal}")
    preprocessor = path / "preprocessor_config.json"
    p = read_json(preprocessor) if preprocessor.exists() else {}
    _only(p, "resample", (3,), str(preprocessor))  # PIL's bicubic
    _only(p, "rescale_factor", (1 / 255,), str(preprocessor))
    for flag in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        _only(p, flag, (True,), str(preprocessor))
    mean = _channels(p, "image_mean", CLIP_MEAN, str(preprocessor))
    std = _channels(p, "image_std", CLIP_STD, str(preprocessor))
    if min(std) <= 0:
        raise CheckpointError(f"{preprocessor}: image_std is {list(std)}, must be over 0")
    return ImageSpec(aspect, tuple(grids), mean, std, merge)


Channels = tuple[float, float, float]


def _channels(config: dict[str, Any], key: str, default: Channels, where: str) -> Channels:
    """Three numbers, for red, green and blue."""
    value = default if config.get(key) is None else config[key]
    numbers = isinstance(value, list | tuple) and all(
        type(x) in (int, float) and math.isfinite(x) for x in value
    )
    if not numbers or len(value) != 3:
        raise CheckpointError(f"{where}: {key} is {value!r:.60}, must be three numbers")
    return float(value[0]), float(value[1]), float(value[2])


def _prompt_spec(path: Path) -> PromptSpec:
    config = path / "tokenizer_config.json"
    stored = read_json(config) if config.exists() else {}
    _only(stored, "legacy", (True, False, None), str(config))
    legacy = stored.get("legacy")
    # Hugging Face's slow tokenizer takes an absent flag as true.
    return PromptSpec(**VICUNA, legacy=legacy is not False)
