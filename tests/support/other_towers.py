"""Tiny LLaVA checkpoints whose vision tower is not CLIP's, made with transformers' own classes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from support import tiny

SIDE = 60  # pixels; not a multiple of a patch, as SigLIP's 384 is none of 14
PATCH = 14
GRIDS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]  # (height, width)
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}
SIGLIP = {"model_type": "siglip_vision_model"} | SIZES
WITHOUT_CLASS_TOKEN = ("siglip_vision_model",)


def processor_config(name: str) -> dict[str, Any]:
    """preprocessor_config.json with SigLIP's values, for this image processor."""
    config: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5] * 3,
        "image_processor_type": f"{name}ImageProcessor",
        "image_std": [0.5] * 3,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": SIDE, "width": SIDE},
    }
    if name == "LlavaNext":
        config["crop_size"] = config["size"]
        config["image_grid_pinpoints"] = GRIDS
    return config


def make_checkpoint(
    path: Path,
    vision: dict[str, Any] | None = None,
    *,
    following: bool = True,
    processor: str | None = None,
    **changes: Any,
) -> Any:
    """Write a checkpoint of random weights.

    Args:
        path: directory to make.
        vision: the tower's config; None is SigLIP's.
        following: LLaVA-NeXT's class, or LLaVA's.
        processor: image processor's name; None is LLaVA-NeXT's, or SigLIP's for LLaVA.
        **changes: fields of config.json.

    Returns:
        transformers' model, in eval mode.
    """
    import torch
    import transformers

    vision = SIGLIP if vision is None else vision
    tower = {name: value for name, value in vision.items() if name != "model_type"}
    family = vision["model_type"]
    strategy = "full" if family in WITHOUT_CLASS_TOKEN else "default"
    name = "LlavaNext" if following else "Llava"
    fields = {"vision_feature_select_strategy": strategy, "tie_word_embeddings": False} | changes
    if following:
        fields["image_grid_pinpoints"] = GRIDS
    vocabulary = (tiny.VOCAB + 64) // 64 * 64
    text = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=vocabulary, max_position_embeddings=512,
        rms_norm_eps=1e-5,
    )  # fmt: skip
    config = getattr(transformers, f"{name}Config")(
        vision_config=transformers.CONFIG_MAPPING[family](**tower),
        text_config=text,
        image_token_index=tiny.VOCAB,
        **fields,
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    _randomize(model, torch)
    model.save_pretrained(path)
    base = tiny.make_checkpoint(path.with_name(f"{path.name}-tokenizer"), layout="hf_next")
    for file in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(base / file, path)
    shutil.rmtree(base)
    own = processor or ("LlavaNext" if following else "Siglip")
    tiny.write_json(path / "preprocessor_config.json", processor_config(own))
    return model


def _randomize(model: Any, torch: Any) -> None:
    """Weights that keep activations near one; transformers' own would make all tokens alike."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or "newline" in name:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.normal_(1, 0.1)
            else:
                parameter.normal_(0, 0.1)
