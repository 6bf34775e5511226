"""Tiny LLaVA-style checkpoints, made on the fly in every layout that the export reads.

Only numpy and sentencepiece are needed: the weights are seeded noise, scaled so that activations
stay near one; the tokenizer is a small SentencePiece BPE trained on the text below with Llama's
settings; files are written in the safetensors format (eight bytes of header length, a JSON header,
raw tensors).
"""

from __future__ import annotations

import functools
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]
Size = tuple[int, int]

VOCAB = (
    512  # pieces of the tiny tokenizer: 3 control pieces, 256 bytes, the rest characters and merges
)

_TEXT = """\
A chat between a curious human and an artificial intelligence assistant. The assistant gives
helpful, detailed, and polite answers to the human's questions. USER: What does this
electrocardiogram show? ASSISTANT: Sinus rhythm with a rate of 72 beats per minute. USER: Please
write a clinical report based on this ECG image. ASSISTANT: The PR interval is 160 ms, the QRS
duration is 95 ms and the QTc interval is 410 ms. There is left axis deviation with left ventricular
hypertrophy; ST depression in leads V4, V5 and V6, T wave inversion in I and aVL. Atrial
fibrillation, premature complex, right bundle branch block, myocardial infarction (inferior,
anterior), ischemia: no. Normal ECG.
Der Grundrhythmus ist ein Sinusrhythmus. Une onde T négative. 心电图 正常 窦性心律"""


@dataclass(frozen=True)
class Geometry:
    """Sizes of a tiny model.

    `grids` are (width, height) in pixels, as in LLaVA's `image_grid_pinpoints`.
    """

    image_size: int = 56
    patch_size: int = 14
    vision_width: int = 64
    vision_heads: int = 2
    vision_layers: int = 3
    vision_mlp: int = 128
    hidden: int = 64
    heads: int = 4
    layers: int = 2
    ffn: int = 160
    context: int = 512
    rope_theta: float = 10000.0
    rms_eps: float = 1e-5
    select_layer: int = -2
    grids: tuple[Size, ...] = ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168))


@functools.cache
def tokenizer_model(**changes: Any) -> bytes:
    """The serialized SentencePiece model, after Llama's: byte fallback, unk 0, bos 1, eos 2, no
    pad.

    Args:
        **changes: settings of the trainer to change.
    """
    import sentencepiece

    out = io.BytesIO()
    settings: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": VOCAB,
        "byte_fallback": True,
        "unk_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "pad_id": -1,
        "split_digits": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": True,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "character_coverage": 0.99995,
        "num_threads": 1,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXT.splitlines()), model_writer=out, **(settings | changes)
    )
    return out.getvalue()


def llava_weights(
    geometry: Geometry | None = None,
    *,
    vocab: int = VOCAB,
    kv_heads: int | None = None,
    tied: bool = False,
    projector: str = "mlp2x_gelu",
    newline: bool = True,
    position_ids: bool = False,
    seed: int = 0,
) -> Tensors:
    """Float32 weights under the names of a published LLaVA checkpoint.

    Args:
        geometry: sizes; None means the default ones.
        vocab: rows of the embedding and the head.
        kv_heads: key/value heads of the decoder; None means as many as heads.
        tied: leave `lm_head.weight` out.
        projector: "mlp2x_gelu" or "linear".
        newline: include `model.image_newline`, used or not.
        position_ids: include CLIP's int64 `position_ids` buffer, as old conversions have it.
        seed: of the noise.
    """
    g = geometry or Geometry()
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}

    def linear(name: str, rows: int, columns: int, bias: bool) -> None:
        tensors[f"{name}.weight"] = rng.normal(0, columns**-0.5, (rows, columns))
        if bias:
            tensors[f"{name}.bias"] = rng.normal(0, 0.1, rows)

    def norm(name: str, width: int, bias: bool) -> None:
        tensors[f"{name}.weight"] = rng.normal(1, 0.1, width)
        if bias:
            tensors[f"{name}.bias"] = rng.normal(0, 0.1, width)

    tower, width = "model.vision_tower.vision_tower.vision_model", g.vision_width
    patches = (g.image_size // g.patch_size) ** 2
    fan_in = 3 * g.patch_size**2
    tensors[f"{tower}.embeddings.class_embedding"] = rng.normal(0, 1, width)
    tensors[f"{tower}.embeddings.patch_embedding.weight"] = rng.normal(
        0, fan_in**-0.5, (width, 3, g.patch_size, g.patch_size)
    )
    tensors[f"{tower}.embeddings.position_embedding.weight"] = rng.normal(
        0, 0.3, (patches + 1, width)
    )
    if position_ids:
        tensors[f"{tower}.embeddings.position_ids"] = np.arange(patches + 1)[None]
    norm(f"{tower}.pre_layrnorm", width, bias=True)  # the misspelling is CLIP's
    for i in range(g.vision_layers):
        layer = f"{tower}.encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{layer}.self_attn.{part}", width, width, bias=True)
        linear(f"{layer}.mlp.fc1", g.vision_mlp, width, bias=True)
        linear(f"{layer}.mlp.fc2", width, g.vision_mlp, bias=True)
        norm(f"{layer}.layer_norm1", width, bias=True)
        norm(f"{layer}.layer_norm2", width, bias=True)
    norm(f"{tower}.post_layernorm", width, bias=True)

    if projector == "linear":
        linear("model.mm_projector", g.hidden, width, bias=True)
    elif projector == "mlp2x_gelu":
        linear("model.mm_projector.0", g.hidden, width, bias=True)
        linear("model.mm_projector.2", g.hidden, g.hidden, bias=True)
    else:
        raise ValueError(f"projector {projector!r}: one of mlp2x_gelu, linear")
    if newline:
        tensors["model.image_newline"] = rng.normal(0, 1, g.hidden)

    head_size = g.hidden // g.heads
    kv_rows = (kv_heads or g.heads) * head_size
    spread = (
        0.25 * g.hidden**-0.5 if tied else 1
    )  # a tied head of large rows would repeat its input for ever
    tensors["model.embed_tokens.weight"] = rng.normal(0, spread, (vocab, g.hidden))
    for i in range(g.layers):
        layer = f"model.layers.{i}"
        linear(f"{layer}.self_attn.q_proj", g.hidden, g.hidden, bias=False)
        linear(f"{layer}.self_attn.k_proj", kv_rows, g.hidden, bias=False)
        linear(f"{layer}.self_attn.v_proj", kv_rows, g.hidden, bias=False)
        linear(f"{layer}.self_attn.o_proj", g.hidden, g.hidden, bias=False)
        linear(f"{layer}.mlp.gate_proj", g.ffn, g.hidden, bias=False)
        linear(f"{layer}.mlp.up_proj", g.ffn, g.hidden, bias=False)
        linear(f"{layer}.mlp.down_proj", g.hidden, g.ffn, bias=False)
        norm(f"{layer}.input_layernorm", g.hidden, bias=False)
        norm(f"{layer}.post_attention_layernorm", g.hidden, bias=False)
    norm("model.norm", g.hidden, bias=False)
    if not tied:
        tensors["lm_head.weight"] = 2 * rng.normal(0, g.hidden**-0.5, (vocab, g.hidden))
    return {k: v if v.dtype.kind == "i" else v.astype(np.float32) for k, v in tensors.items()}


# How Hugging Face's conversions name the same tensors: as published (old), and as the modules are
# called since transformers 4.52 (new). Longest prefix first.
HF_NAMES: dict[str, dict[str, str]] = {
    "old": {
        "model.vision_tower.vision_tower.vision_model.": "vision_tower.vision_model.",
        "model.mm_projector.0.": "multi_modal_projector.linear_1.",
        "model.mm_projector.2.": "multi_modal_projector.linear_2.",
        "model.image_newline": "image_newline",
        "lm_head.": "language_model.lm_head.",
        "model.": "language_model.model.",
    },
    "new": {
        "model.vision_tower.vision_tower.vision_model.": "model.vision_tower.vision_model.",
        "model.mm_projector.0.": "model.multi_modal_projector.linear_1.",
        "model.mm_projector.2.": "model.multi_modal_projector.linear_2.",
        "model.image_newline": "model.image_newline",
        "lm_head.": "lm_head.",
        "model.": "model.language_model.",
    },
}


def rename(name: str, table: dict[str, str]) -> str:
    """`name` with the first matching prefix of `table` replaced."""
    for old, new in table.items():
        if name.startswith(old):
            return new + name[len(old) :]
    raise KeyError(name)


def write_safetensors(path: Path, tensors: Tensors, dtype: str = "float32") -> None:
    """Writes `tensors` with floats stored as float32, float16 or bfloat16 (rounded to nearest
    even).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    offset = 0
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "i":
            code, blob = "I64", tensor.astype("<i8").tobytes()
        elif dtype == "float32":
            code, blob = "F32", tensor.astype("<f4").tobytes()
        elif dtype == "float16":
            code, blob = "F16", tensor.astype("<f2").tobytes()
        elif dtype == "bfloat16":
            bits = np.ascontiguousarray(tensor, "<f4").view("<u4")
            rounded = (
                bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
            ) >> np.uint32(16)
            code, blob = "BF16", rounded.astype("<u2").tobytes()
        else:
            raise ValueError(f"dtype {dtype!r}: one of float32, float16, bfloat16")
        span = [offset, offset + len(blob)]
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": span}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def write_weights(path: Path, tensors: Tensors, dtype: str = "float32", shards: int = 1) -> None:
    """`model.safetensors`, or `shards` files of consecutive tensors with
    `model.safetensors.index.json`.
    """
    if shards == 1:
        write_safetensors(path / "model.safetensors", tensors, dtype)
        return
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for k, part in enumerate(np.array_split(np.arange(len(names)), shards)):
        file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        chosen = {names[i]: tensors[names[i]] for i in part}
        write_safetensors(path / file, chosen, dtype)
        weight_map |= dict.fromkeys(chosen, file)
    width = 4 if dtype == "float32" else 2
    total = sum(t.size * (8 if t.dtype.kind == "i" else width) for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(path / "model.safetensors.index.json", index)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


# The constant part of the configuration files, as the published checkpoints carry them.
_TEXT_CONFIG = """{"attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "initializer_range": 0.02, "pad_token_id": 0,
    "pretraining_tp": 1, "rope_scaling": null, "use_cache": true}"""
_VISION_CONFIG = """{"attention_dropout": 0.0, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-05,
    "model_type": "clip_vision_model", "num_channels": 3}"""
_LLAVA_CONFIG = """{"architectures": ["LlavaLlamaForCausalLM"], "freeze_mm_mlp_adapter": false,
    "freeze_mm_vision_resampler": false, "mm_projector_lr": null, "mm_use_im_patch_token": false,
    "mm_use_im_start_end": false, "mm_vision_select_feature": "patch",
    "mm_vision_tower": "openai/clip-vit-large-patch14-336", "model_type": "llava_llama",
    "tokenizer_padding_side": "right", "transformers_version": "4.37.2",
    "tune_mm_mlp_adapter": false, "use_mm_proj": true}"""
_ANYRES_CONFIG = """{"image_crop_resolution": 224, "image_split_resolution": 224,
    "mm_resampler_type": null, "mm_vision_tower_lr": 2e-06, "unfreeze_mm_vision_tower": true}"""
_PREPROCESSOR_CONFIG = """{"do_center_crop": true, "do_convert_rgb": true, "do_normalize": true,
    "do_rescale": true, "do_resize": true, "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3,
    "rescale_factor": 0.00392156862745098}"""
_TOKENIZER_CONFIG = """{"add_bos_token": true, "add_eos_token": false,
    "clean_up_tokenization_spaces": false, "model_max_length": 4096, "padding_side": "right",
    "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer",
    "use_default_system_prompt": false}"""
_SPECIAL_TOKENS = (
    """{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>"}"""
)


def text_config(
    g: Geometry, vocab: int, kv_heads: int | None, tied: bool, dtype: str
) -> dict[str, Any]:
    """The Llama part of a config.json."""
    sizes = {
        "hidden_size": g.hidden,
        "intermediate_size": g.ffn,
        "max_position_embeddings": g.context,
        "num_attention_heads": g.heads,
        "num_hidden_layers": g.layers,
        "num_key_value_heads": kv_heads or g.heads,
        "rms_norm_eps": g.rms_eps,
        "rope_theta": g.rope_theta,
        "vocab_size": vocab,
    }
    config: dict[str, Any] = json.loads(_TEXT_CONFIG)
    return config | sizes | {"tie_word_embeddings": tied, "torch_dtype": dtype}


def vision_config(g: Geometry) -> dict[str, Any]:
    """CLIPVisionConfig's form."""
    sizes = {
        "hidden_size": g.vision_width,
        "image_size": g.image_size,
        "intermediate_size": g.vision_mlp,
        "num_attention_heads": g.vision_heads,
        "num_hidden_layers": g.vision_layers,
        "patch_size": g.patch_size,
        "projection_dim": g.vision_width,
    }
    config: dict[str, Any] = json.loads(_VISION_CONFIG)
    return config | sizes


def preprocessor_config(g: Geometry, processor: str = "CLIPImageProcessor") -> dict[str, Any]:
    """CLIPImageProcessor's form; LlavaNextImageProcessor's adds the grids as (height, width)."""
    config: dict[str, Any] = json.loads(_PREPROCESSOR_CONFIG) | {
        "crop_size": {"height": g.image_size, "width": g.image_size},
        "image_processor_type": processor,
        "size": {"shortest_edge": g.image_size},
    }
    if processor == "LlavaNextImageProcessor":
        config |= {"do_pad": True, "image_grid_pinpoints": [[h, w] for w, h in g.grids]}
    return config


def llava_config(
    g: Geometry, text: dict[str, Any], merge: str, aspect: str, projector: str
) -> dict[str, Any]:
    """config.json as PULSE-7B and llava-v1.6-vicuna-7b have it; LLaVA-1.5's (pad) names no merge
    type.
    """
    config: dict[str, Any] = text | json.loads(_LLAVA_CONFIG)
    config |= {
        "image_aspect_ratio": aspect,
        "mm_hidden_size": g.vision_width,
        "mm_projector_type": projector,
        "mm_vision_select_layer": g.select_layer,
        "tokenizer_model_max_length": g.context,
    }
    if aspect == "anyres":
        config |= json.loads(_ANYRES_CONFIG)
        config["image_grid_pinpoints"] = [list(size) for size in g.grids]
    if aspect == "anyres" or merge != "flat":
        config["mm_patch_merge_type"] = merge
    return config


def hf_config(g: Geometry, text: dict[str, Any], layout: str, image_token: int) -> dict[str, Any]:
    """config.json of Hugging Face's conversions; there `image_grid_pinpoints` are
    (height, width).
    """
    class_name, model_type = {
        "hf_next": ("LlavaNextForConditionalGeneration", "llava_next"),
        "hf_llava": ("LlavaForConditionalGeneration", "llava"),
    }[layout]
    config: dict[str, Any] = {
        "architectures": [class_name],
        "ignore_index": -100,
        "image_seq_length": (g.image_size // g.patch_size) ** 2,
        "image_token_index": image_token,
        "model_type": model_type,
        "projector_hidden_act": "gelu",
        "text_config": text | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
        "tie_word_embeddings": text["tie_word_embeddings"],
        "torch_dtype": text["torch_dtype"],
        "vision_config": vision_config(g),
        "vision_feature_layer": g.select_layer,
        "vision_feature_select_strategy": "default",
    }
    if layout == "hf_next":
        config |= {
            "image_grid_pinpoints": [[h, w] for w, h in g.grids],
            "use_image_newline_parameter": True,
        }
    return config


def tokenizer_config(legacy: bool | None) -> dict[str, Any]:
    """tokenizer_config.json as Vicuna has it; `legacy` None leaves the key out, which
    means true.
    """
    flags = dict.fromkeys(["lstrip", "normalized", "rstrip", "single_word"], False) | {
        "special": True
    }
    added = {str(i): {"content": text} | flags for i, text in enumerate(["<unk>", "<s>", "</s>"])}
    config: dict[str, Any] = json.loads(_TOKENIZER_CONFIG) | json.loads(_SPECIAL_TOKENS)
    config["added_tokens_decoder"] = added
    return config if legacy is None else config | {"legacy": legacy}


def make_checkpoint(
    path: Path | str,
    *,
    layout: str = "llava",
    merge: str = "flat",
    aspect: str = "anyres",
    dtype: str = "float32",
    shards: int = 1,
    kv_heads: int | None = None,
    tied: bool = False,
    projector: str = "mlp2x_gelu",
    newline: bool = True,
    position_ids: bool = False,
    names: str = "old",
    legacy: bool | None = False,
    seed: int = 0,
    **geometry: Any,
) -> Path:
    """Writes a checkpoint directory and returns its path.

    Args:
        path: directory to make (it may exist).
        layout: "llava" (as PULSE-7B is published), "hf_next" or "hf_llava" (Hugging Face's
        conversions).
        merge: `mm_patch_merge_type`, "flat" or "spatial_unpad"; Hugging Face's layouts do not store
        it.
        aspect: `image_aspect_ratio`, "anyres", "pad" or "square"; "llava" layout only.
        dtype: stored float type: "float32", "float16" or "bfloat16".
        shards: number of weight files; more than one come with an index.
        kv_heads, tied, projector, newline, position_ids, seed: see `llava_weights`.
        names: "old" or "new" tensor names of Hugging Face's layouts.
        legacy: the tokenizer's `legacy` setting; None leaves it out.
        geometry: fields of `Geometry` to change.
    """
    g = Geometry(**geometry)
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    hugging_face = {"llava": False, "hf_next": True, "hf_llava": True}[layout]
    vocab = VOCAB
    if hugging_face:  # the conversion adds <image> and <pad>, and rounds up to a multiple of 64
        vocab = (VOCAB + 2 + 63) // 64 * 64
    tensors = llava_weights(
        g,
        vocab=vocab,
        kv_heads=kv_heads,
        tied=tied,
        projector=projector,
        newline=newline and layout != "hf_llava",
        position_ids=position_ids,
        seed=seed,
    )
    text = text_config(g, vocab, kv_heads, tied, dtype)
    if hugging_face:
        tensors = {rename(name, HF_NAMES[names]): tensor for name, tensor in tensors.items()}
        config = hf_config(g, text, layout, image_token=VOCAB)
        processor = "LlavaNextImageProcessor" if layout == "hf_next" else "CLIPImageProcessor"
        write_json(path / "preprocessor_config.json", preprocessor_config(g, processor))
    else:
        config = llava_config(g, text, merge, aspect, projector)
        write_json(path / "vision_config.json", vision_config(g))
    write_json(path / "config.json", config)
    write_json(
        path / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    )
    write_json(path / "tokenizer_config.json", tokenizer_config(legacy))
    write_json(path / "special_tokens_map.json", json.loads(_SPECIAL_TOKENS))
    (path / "tokenizer.model").write_bytes(tokenizer_model())
    write_weights(path, tensors, dtype, shards)
    return path
