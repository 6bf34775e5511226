"""config.json and its neighbours -> `ModelSpec`. What this export does not implement is refused by name.

Fields: LLaVA's llava/model/llava_arch.py and llava_llama.py for the published layout; transformers'
configuration_llava.py, configuration_llava_next.py, configuration_llama.py, configuration_clip.py for the conversions.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pulse_edge.bundle import ImageSpec, ModelSpec, PromptSpec, TextSpec, VisionSpec
from pulse_edge.errors import CheckpointError

# openai/clip-vit-large-patch14-336: what upstream downloads beside a published LLaVA checkpoint.
CLIP_L_336: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
KNOWN_TOWERS: dict[str, dict[str, Any]] = {"openai/clip-vit-large-patch14-336": CLIP_L_336}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

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
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return data


def _field(config: dict[str, Any], key: str, where: str) -> Any:
    if config.get(key) is None:
        raise CheckpointError(f"{where}: no {key!r}")
    return config[key]


def _only(config: dict[str, Any], key: str, allowed: tuple[Any, ...], where: str) -> None:
    """Refuse a config field whose value this export does not implement; absent is fine."""
    if key in config and config[key] not in allowed:
        raise CheckpointError(f"{where}: {key} is {config[key]!r}, supported is {' or '.join(map(repr, allowed))}")


def _text_spec(config: dict[str, Any], path: Path, where: str) -> TextSpec:
    _only(config, "hidden_act", ("silu",), where)
    _only(config, "attention_bias", (False, None), where)
    _only(config, "mlp_bias", (False, None), where)
    _only(config, "pretraining_tp", (1, None), where)
    rope = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or rope
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise CheckpointError(f"{where}: RoPE scaling {kind!r} is not supported, only plain RoPE")
    hidden, heads = int(_field(config, "hidden_size", where)), int(_field(config, "num_attention_heads", where))
    generation = read_json(path / "generation_config.json") if (path / "generation_config.json").exists() else {}
    eos = [e for source in (config, generation) for e in _as_list(source.get("eos_token_id"))] or [2]
    return TextSpec(
        hidden=hidden,
        layers=int(_field(config, "num_hidden_layers", where)),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_size=int(config.get("head_dim") or hidden // heads),
        ffn=int(_field(config, "intermediate_size", where)),
        vocab=int(_field(config, "vocab_size", where)),
        eps=float(_field(config, "rms_norm_eps", where)),
        rope_theta=float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0),
        context=int(_field(config, "max_position_embeddings", where)),
        bos=int(config["bos_token_id"] if config.get("bos_token_id") is not None else 1),
        eos=tuple(dict.fromkeys(eos)),
    )


def _as_list(value: Any) -> list[int]:
    return [] if value is None else [int(v) for v in value] if isinstance(value, list) else [int(value)]


def _vision_spec(config: dict[str, Any], select_layer: int, where: str) -> VisionSpec:
    layers = int(_field(config, "num_hidden_layers", where))
    # hidden_states[0] is the embeddings' output, so hidden_states[k] needs k layers; -1 is hidden_states[layers].
    used = select_layer if select_layer >= 0 else layers + 1 + select_layer
    if not 0 < used <= layers:
        raise CheckpointError(f"{where}: feature layer {select_layer} of a tower with {layers} layers")
    _only(config, "hidden_act", ("quick_gelu", "gelu"), where)
    spec = VisionSpec(
        image_size=int(_field(config, "image_size", where)),
        patch_size=int(_field(config, "patch_size", where)),
        width=int(_field(config, "hidden_size", where)),
        heads=int(_field(config, "num_attention_heads", where)),
        layers=layers,
        feature_layers=used,
        mlp=int(_field(config, "intermediate_size", where)),
        activation=config.get("hidden_act", "quick_gelu"),
        eps=float(config.get("layer_norm_eps", 1e-5)),
    )
    if spec.image_size % spec.patch_size or spec.width % spec.heads:
        raise CheckpointError(
            f"{where}: image {spec.image_size} / patch {spec.patch_size} or width {spec.width} / "
            f"heads {spec.heads} does not divide"
        )
    return spec


def published_spec(config: dict[str, Any], path: Path) -> ModelSpec:
    """`llava_llama`: one flat config; the tower's own config is known by name, or lies beside the weights."""
    where = str(path / "config.json")
    _only(config, "mm_vision_select_feature", ("patch",), where)
    _only(config, "mm_use_im_start_end", (False, None), where)
    _only(config, "mm_use_im_patch_token", (False, None), where)
    kind = str(config.get("mm_projector_type", "linear"))
    match = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if kind != "linear" and not match:
        raise CheckpointError(f"{where}: mm_projector_type {kind!r} is not supported, only linear and mlpNx_gelu")
    tower = str(config.get("mm_vision_tower", config.get("vision_tower", "")))
    beside = path / "vision_config.json"
    vision: dict[str, Any] | None = read_json(beside) if beside.exists() else KNOWN_TOWERS.get(tower)
    if vision is None:
        raise CheckpointError(
            f"{where}: vision tower {tower!r} is not one of {', '.join(KNOWN_TOWERS)}; "
            "put its config as vision_config.json beside the weights"
        )
    side = _vision_spec(vision.get("vision_config", vision), int(config.get("mm_vision_select_layer", -2)), where)
    aspect = config.get("image_aspect_ratio") or "square"
    grids = config.get("image_grid_pinpoints") or []
    image = _image_spec(path, where, side.image_size, aspect, grids, config.get("mm_patch_merge_type") or "flat")
    return ModelSpec(side, int(match[1]) if match else 1, _text_spec(config, path, where), image, _prompt_spec(path))


def hf_spec(config: dict[str, Any], path: Path) -> ModelSpec:
    """The Hugging Face conversions: nested configs; grids as (height, width)."""
    where = str(path / "config.json")
    _only(config, "vision_feature_select_strategy", ("default",), where)
    _only(config, "projector_hidden_act", ("gelu",), where)
    _only(config, "multimodal_projector_bias", (True,), where)
    text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
    _only(text, "model_type", ("llama",), f"{where} text_config")
    _only(vision, "model_type", ("clip_vision_model",), f"{where} vision_config")
    text = {
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "intermediate_size": 11008,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
        "vocab_size": 32000,
    } | text  # LlamaConfig's defaults
    side = _vision_spec(CLIP_L_336 | vision, int(config.get("vision_feature_layer", -2)), f"{where} vision_config")
    following = config["architectures"][0] == "LlavaNextForConditionalGeneration"
    grids = [(w, h) for h, w in config.get("image_grid_pinpoints") or []] if following else []
    preprocessor = path / "preprocessor_config.json"
    processing = read_json(preprocessor) if preprocessor.exists() else {}
    aspect = "anyres" if following else "pad" if processing.get("do_pad") else "square"
    image = _image_spec(path, where, side.image_size, aspect, grids, "spatial_unpad" if following else "flat")
    return ModelSpec(side, 2, _text_spec(text, path, f"{where} text_config"), image, _prompt_spec(path))


def _image_spec(path: Path, where: str, side: int, aspect: Any, grids: Any, merge: Any) -> ImageSpec:
    if aspect not in ("anyres", "pad", "square"):
        raise CheckpointError(f"{where}: image_aspect_ratio {aspect!r} is not supported, only anyres, pad and square")
    if merge not in ("flat", "spatial_unpad"):
        raise CheckpointError(f"{where}: mm_patch_merge_type {merge!r} is not supported, only flat and spatial_unpad")
    if isinstance(grids, str):  # some configs hold the list as text
        grids = json.loads(grids.replace("(", "[").replace(")", "]"))
    pairs = tuple((int(w), int(h)) for w, h in grids)
    if aspect == "anyres" and (not pairs or any(edge % side for pair in pairs for edge in pair)):
        raise CheckpointError(f"{where}: image_grid_pinpoints {list(pairs)} must be multiples of {side}, and not empty")
    preprocessor = path / "preprocessor_config.json"
    p = read_json(preprocessor) if preprocessor.exists() else {}
    _only(p, "resample", (3,), str(preprocessor))  # PIL's bicubic
    _only(p, "rescale_factor", (1 / 255,), str(preprocessor))
    for flag in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        _only(p, flag, (True,), str(preprocessor))
    mean, std = (tuple(float(x) for x in p.get(k, d)) for k, d in (("image_mean", CLIP_MEAN), ("image_std", CLIP_STD)))
    return ImageSpec(aspect, pairs if aspect == "anyres" else (), mean, std, merge)  # type: ignore[arg-type]


def _prompt_spec(path: Path) -> PromptSpec:
    config = path / "tokenizer_config.json"
    legacy = read_json(config).get("legacy") if config.exists() else None
    return PromptSpec(**VICUNA, legacy=legacy is not False)  # HF's slow tokenizer takes an absent flag as true
