"""Writes pulse-nano in exactly the published LLaVA layout, fp16, and trains its tokenizer."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_nano.model import Nano, Size

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
GRIDS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
NUMBERS = range(
    30, 341
)  # rates and durations are one token each, so that their loss can know what is near


# Where a training starts, fp16: tower, heads, projector and decoder of the one before it.
START = Path(__file__).parent / "start.safetensors"


def _trained(state: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights of STATE's tower.pt and language.pt, and the sizes that each says it has: of the
    files that are there.
    """
    import torch

    weights: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    for name, part in (("tower", "tower"), ("language", "size")):
        if (state / f"{name}.pt").exists():
            had = torch.load(state / f"{name}.pt", weights_only=True)
            sizes[part] = had["header"][part]
            weights |= {k: v for k, v in had["module"].items() if not k.startswith("told.")}
    return weights, sizes


def save_start(saved: Path, size: Size, path: Path = START) -> None:
    """Keep a training of stage B or W as a start.

    Args:
        saved: its joint.pt.
        size: its shapes.
        path: to write.
    """
    import torch
    from safetensors.numpy import save_file

    weights = torch.load(saved, weights_only=True)["module"]
    sizes = {"tower": size.of_tower, "size": size.asdict()}
    save_file(
        {k: v.half().numpy() for k, v in weights.items()},
        path,
        {k: json.dumps(v) for k, v in sizes.items()},
    )


def _start_weights() -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and sizes of `START`."""
    from safetensors import safe_open

    with safe_open(START, "pt") as file:
        sizes = {k: json.loads(v) for k, v in file.metadata().items()}
        weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no dict)
    return weights, sizes


def load_published(folder: Path, size: Size) -> dict[str, Any]:
    """Weights of a published checkpoint by the names of `Nano`: what `save` wrote, but for the
    rounding to fp16.

    Args:
        folder: the checkpoint.
        size: its shapes.
    """
    import torch
    from safetensors import safe_open

    nano = Nano(size)
    names = {name for name, _ in nano.named_parameters() if not name.startswith("heads.")}
    with safe_open(folder / "model.safetensors", "pt") as file:
        out: dict[str, Any] = {
            _own_name(published): file.get_tensor(published).float()
            for published in file.keys()  # noqa: SIM118 (no dict)
        }
    if set(out) != names:
        raise ValueError(f"{folder} has other tensors than pulse-nano: {sorted(set(out) ^ names)}")
    filters = out["tower.patch_embedding.weight"].flatten(1)
    out["tower.patch_embedding.weight"] = filters
    with torch.no_grad():  # the inverse of `Tower.folded_positions`
        out["tower.position_embedding"][1:] += nano.tower.sheet[0, 0] @ filters.T
    return out


def _own_name(published: str) -> str:
    """The name in `Nano` of a published tensor: the inverse of what `tensors` does."""
    vision = "model.vision_tower.vision_tower.vision_model."
    if published.startswith(vision):
        name = published.removeprefix(vision).removeprefix("embeddings.").removeprefix("encoder.")
        name = name.replace("self_attn.", "").replace("mlp.", "")
        if name == "position_embedding.weight":
            name = "position_embedding"
        return f"tower.{name}"
    name = published.removeprefix("model.")
    if name.startswith("mm_projector."):
        return name.replace("mm_projector.", "projector.")
    return "decoder." + name.replace("self_attn.", "").replace("mlp.", "")


def load_start(state: Path, size: Size) -> dict[str, Any]:
    """Weights of tower, heads, projector and decoder, from STATE or else from `START`.

    Raises `ValueError` for another size.
    """
    weights, sizes = _start_weights()
    own, own_sizes = _trained(state)
    weights, sizes = weights | own, sizes | own_sizes
    for had, wanted in ((sizes["tower"], size.of_tower), (sizes["size"], size.asdict())):
        if had != wanted:
            raise ValueError(f"the stages before this one trained {had}, not {wanted}")
    return weights


def train_tokenizer(path: Path, texts: Iterable[str], vocab: int) -> None:
    """SentencePiece BPE with Llama's conventions: byte fallback, dummy prefix, ids 0 unk, 1 bos, 2
    eos.

    Beyond Llama's: the whole numbers of `NUMBERS` are pieces of their own.
    """
    import sentencepiece

    model = io.BytesIO()  # a file's path would be written into it
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=vocab,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.9999,
        normalization_rule_name="identity",
        split_digits=True,
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        user_defined_symbols=[str(n) for n in NUMBERS],
        hard_vocab_limit=True,
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


def config(size: Size) -> dict[str, Any]:
    """config.json, with the fields of llava-v1.6-vicuna-7b."""
    return {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": size.width,
        "intermediate_size": size.ffn,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "max_position_embeddings": size.positions,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "vocab_size": size.vocab,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": GRIDS,
        "mm_patch_merge_type": "flat",
        "mm_hidden_size": size.vision_width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "mm_vision_tower": "pulse-nano-vision",
        "unfreeze_mm_vision_tower": True,
        "use_mm_proj": True,
    }


def vision_config(size: Size) -> dict[str, Any]:
    """vision_config.json: CLIPVisionConfig of the small tower."""
    return {
        "model_type": "clip_vision_model",
        "hidden_size": size.vision_width,
        "intermediate_size": size.vision_mlp,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.vision_heads,
        "num_channels": 3,
        "image_size": size.image,
        "patch_size": size.patch,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": size.vision_width,
    }


def tensors(nano: Nano) -> dict[str, NDArray[np.float16]]:
    """Published names -> float16 arrays."""
    size, tower = nano.size, nano.tower
    p = size.patch
    out: dict[str, Any] = {}
    vision = "model.vision_tower.vision_tower.vision_model."
    out[vision + "embeddings.class_embedding"] = tower.class_embedding
    out[vision + "embeddings.patch_embedding.weight"] = tower.patch_embedding.weight.view(
        size.vision_width, 3, p, p
    )
    out[vision + "embeddings.position_embedding.weight"] = tower.folded_positions()
    for name in ("weight", "bias"):
        out[f"{vision}pre_layrnorm.{name}"] = getattr(tower.pre_layrnorm, name)
    for name, value in tower.layers.named_parameters():
        number, rest = name.split(".", 1)
        part = "self_attn." if "_proj" in rest else "mlp." if rest.startswith("fc") else ""
        out[f"{vision}encoder.layers.{number}.{part}{rest}"] = value
    for name, value in nano.projector.named_parameters():
        out[f"model.mm_projector.{name}"] = value
    for name, value in nano.decoder.named_parameters():
        if name.startswith("layers."):
            _, number, rest = name.split(".", 2)
            attention = rest.split("_")[0] in ("q", "k", "v", "o")
            part = "self_attn." if attention else "mlp." if "_proj" in rest else ""
            name = f"layers.{number}.{part}{rest}"
        out[name if name.startswith("lm_head") else f"model.{name}"] = value
    return {
        name: value.detach().to("cpu").numpy().astype(np.float16) for name, value in out.items()
    }


def save(nano: Nano, folder: Path, tokenizer: Path) -> None:
    """Write config.json, vision_config.json, model.safetensors and tokenizer.model."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (
        ("config.json", config(nano.size)),
        ("vision_config.json", vision_config(nano.size)),
    ):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    save_file(
        {k: np.ascontiguousarray(v) for k, v in tensors(nano).items()}, folder / "model.safetensors"
    )
    (folder / "tokenizer.model").write_bytes(tokenizer.read_bytes())
