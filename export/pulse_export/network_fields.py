"""Which fields of a config change the network, and which do not.

Real configs hold many fields. A field of `NEUTRAL` is refused unless it has a value that changes
nothing. A field that is neither read, nor neutral, nor known to be harmless is refused if a word of
its name speaks of the network's structure: it probably says something that this export would drop.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pulse_edge.errors import CheckpointError
from pulse_export.fields import Fields
from pulse_export.weight_files import UNQUANTIZED

OWN_CODE = "the network is the repository's own code, which is not run"
NONE: tuple[Any, ...] = (None,)
OFF: tuple[Any, ...] = (False, None)
ONE: tuple[Any, ...] = (1, 1.0, None)
NO_EXPERTS: tuple[Any, ...] = (None, 0, 1)

# Field -> values that leave the network as it is, and what to do about others.
Rules = dict[str, tuple[tuple[Any, ...], str]]
COMMON: Rules = {
    "quantization_config": (NONE, UNQUANTIZED),
    "compression_config": (NONE, UNQUANTIZED),
    "auto_map": ((None, {}), OWN_CODE),
    "is_encoder_decoder": (OFF, ""),
    "add_cross_attention": (OFF, ""),
    "pruned_heads": ((None, {}), ""),
}
TEXT: Rules = {
    "hidden_act": (("silu",), ""),
    "hidden_activation": (("silu", None), ""),
    "attention_bias": (OFF, ""),
    "mlp_bias": (OFF, ""),
    "pretraining_tp": ((1, None), ""),
    "sliding_window": (NONE, "attention here sees the whole prompt"),
    "use_sliding_window": (OFF, "attention here sees the whole prompt"),
    "partial_rotary_factor": (ONE, ""),
    "rotary_pct": (ONE, ""),
    "attention_multiplier": (NONE, ""),
    "embedding_multiplier": (ONE, ""),
    "residual_multiplier": (ONE, ""),
    "logits_scaling": (ONE, ""),
    "logit_scale": (ONE, ""),
    "num_experts": (NO_EXPERTS, "mixtures of experts are not supported"),
    "num_local_experts": (NO_EXPERTS, "mixtures of experts are not supported"),
    "n_routed_experts": (NO_EXPERTS, "mixtures of experts are not supported"),
}
CLIP_TOWER = "clip_vision_model"  # the `model_type` of the tower that `network.vision` writes
OTHER_TOWER = "export other towers with --network optimum"
VISION: Rules = {
    "model_type": ((CLIP_TOWER, None), OTHER_TOWER),
    "hidden_act": (("quick_gelu", "gelu"), OTHER_TOWER),
    "num_channels": ((3, None), ""),
}
CLIP_ONLY = "only image tokens of one CLIP tower are supported"
PUBLISHED: Rules = {
    "mm_vision_select_feature": (("patch",), ""),
    "mm_use_im_start_end": (OFF, "it adds tokens around the image"),
    "mm_use_im_patch_token": (OFF, "it adds tokens to the image"),
    "mm_resampler_type": (NONE, "resamplers of image tokens are not supported"),
    "mm_ecg_tower": ((None, False, ""), CLIP_ONLY),
    "s2": (OFF, CLIP_ONLY),
    "text_config": (NONE, "the published layout has one flat config"),
    "vision_config": (NONE, "put it beside the weights as vision_config.json"),
    "use_mm_proj": ((True, None), ""),
}
CONVERSION: Rules = {
    "vision_feature_select_strategy": (("default",), ""),
    "projector_hidden_act": (("gelu",), ""),
    "multimodal_projector_bias": ((True,), ""),
    "use_image_newline_parameter": ((True, None), ""),
}
# Over `CONVERSION`: a tower without a class token keeps all of its tokens.
ANY_TOWER: Rules = {
    "vision_feature_select_strategy": (("default", "full"), ""),
}

# Read by `config.py`, or without effect on the network.
_HARMLESS_NAMES = """
    hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads
    head_dim rms_norm_eps rope_theta rope_scaling rope_parameters max_position_embeddings
    vocab_size tie_word_embeddings layer_types text_config vision_config image_grid_pinpoints
    image_aspect_ratio image_size patch_size layer_norm_eps projection_dim mm_projector_type
    mm_vision_tower vision_tower mm_vision_select_layer mm_patch_merge_type vision_feature_layer
    mm_hidden_size image_token_index image_token_id image_seq_length image_crop_resolution
    image_split_resolution mm_spatial_pool_stride mm_spatial_pool_mode
    mm_spatial_pool_out_channels mm_newline_position s2_scales num_labels output_attentions
    attn_implementation _attn_implementation _attn_implementation_internal
    _attn_implementation_autoset _flash_attn_2_enabled cross_attention_hidden_size
"""
HARMLESS = frozenset(_HARMLESS_NAMES.split())
_TRAINING_NAMES = """
    lr dropout pdrop drop loss freeze unfreeze tune tunable pretrained checkpointing
"""
TRAINING = frozenset(_TRAINING_NAMES.split())
_STRUCTURE_NAMES = """
    mm vision image video patch projector resampler perceiver qformer tower ecg s2 spatial pool
    pooling rope rotary attention attn sliding window alibi position qk norm layernorm act
    activation bias heads layers kv quant quantization quantized bits lora adapter peft moe
    expert experts router scale scaling multiplier softcap softcapping embedding embeddings
"""
STRUCTURE = frozenset(_STRUCTURE_NAMES.split())


def check_fields(fields: Fields, *tables: Rules, read: frozenset[str] = frozenset()) -> None:
    """Refuse a config whose network is not the one that is written here.

    Args:
        fields: the config, or a part of it.
        *tables: of the above, those that hold for this part besides `COMMON`; later ones win.
        read: fields that somebody else reads and checks.

    Raises:
        CheckpointError: a field says so. The message names it, and what to do.
    """
    every = {key: rule for table in (COMMON, *tables) for key, rule in table.items()}
    neutral = {key: rule for key, rule in every.items() if key not in read}
    for key, (allowed, advice) in neutral.items():
        fields.only(key, *allowed, advice=advice)
    kinds = fields.get("layer_types", [])
    full = isinstance(kinds, list) and all(kind == "full_attention" for kind in kinds)
    if not full and "layer_types" not in read:
        raise CheckpointError(
            f"{fields.where}: layer_types is {kinds!r:.60}, supported is 'full_attention' only"
        )
    for key in unknown_fields(fields.values, neutral | dict.fromkeys(read)):
        value = fields.values[key]
        raise CheckpointError(
            f"{fields.where}: {key!r:.60} is {value!r:.60}, which this export does not know; "
            "remove the field if the network is the same without it"
        )


def used_layers(where: str, select: int, layers: int) -> int:
    """How many of a tower's layers run for the hidden state that a config selects.

    Args:
        where: the config, for messages.
        select: the hidden state, from the end if negative. State 0 is the embeddings' output, so
            state k needs k layers, and -1 all.
        layers: of the tower.

    Raises:
        CheckpointError: there is no such state, or it is the embeddings'.
    """
    used = select if select >= 0 else layers + 1 + select
    if not 0 < used <= layers:
        raise CheckpointError(f"{where}: feature layer {select} of a tower with {layers} layers")
    return used


def unknown_fields(values: dict[str, Any] | Any, known: Iterable[str]) -> list[str]:
    """Names of the fields that seem to say something about the network that nobody reads."""
    read = HARMLESS | set(known)
    return [
        key
        for key, value in values.items()
        if key not in read
        and value is not None
        and value is not False
        and not TRAINING & _words(key)
        and STRUCTURE & _words(key)
    ]


def _words(key: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", key.lower()))
