"""The families of decoders that are read, one row each.

Llama's decoder with grouped heads is the network that is written. The others are the same network
but for what their row says. Sources: transformers' configuration_llama.py, configuration_mistral.py
and configuration_qwen2.py; for the published classes LLaVA's llava/model/language_model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pulse_edge.errors import CheckpointError
from pulse_export.chat_template import MISTRAL, QWEN, VICUNA
from pulse_export.fields import Fields
from pulse_export.network_fields import OFF, Rules

_LLAMA: dict[str, Any] = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "intermediate_size": 11008,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "vocab_size": 32000,
}
_WINDOW = 4096  # transformers' default of `sliding_window` where a family has one


@dataclass(frozen=True)
class DecoderFamily:
    """A family of decoders.

    Attributes:
        name: transformers' `model_type`.
        published: the class of checkpoints as LLaVA's authors publish them.
        types: `model_type` of those; None stands for null.
        template: the conversation format of LLaVA's models with this decoder.
        defaults: what transformers takes for sizes that a conversion leaves out.
        bos: the beginning token that transformers takes where a config names none.
        ends: the end tokens.
        rules: over those of `TEXT`.
        read: fields that `decoder_config` reads and `TEXT` has rules for.
        qkv_bias: whether q, k and v have biases.
    """

    name: str
    published: str
    types: tuple[str | None, ...]
    template: str
    defaults: dict[str, Any]
    bos: int | None = 1
    ends: tuple[int, ...] = (2,)
    rules: Rules = field(default_factory=dict)
    read: frozenset[str] = frozenset()
    qkv_bias: bool = False


LLAMA = DecoderFamily(
    name="llama",
    published="LlavaLlamaForCausalLM",
    types=("llava_llama", "llava", None),
    template=VICUNA["name"],
    defaults=_LLAMA,
)
FAMILIES = (
    LLAMA,
    DecoderFamily(
        name="mistral",
        published="LlavaMistralForCausalLM",
        types=("llava_mistral", None),
        template=MISTRAL["name"],
        defaults=_LLAMA
        | {
            "intermediate_size": 14336,
            "num_key_value_heads": 8,
            "max_position_embeddings": 4096 * 32,
        },
        read=frozenset({"sliding_window"}),
    ),
    DecoderFamily(
        name="qwen2",
        published="LlavaQwenForCausalLM",
        types=("llava_qwen", None),
        template=QWEN["name"],
        defaults=_LLAMA
        | {
            "intermediate_size": 22016,
            "num_key_value_heads": 32,
            "max_position_embeddings": 32768,
            "vocab_size": 151936,
        },
        bos=None,
        ends=(),
        # The class has its biases whatever `attention_bias` says.
        rules={"attention_bias": ((True, False, None), ""), "use_mrope": (OFF, "")},
        read=frozenset(
            {"sliding_window", "use_sliding_window", "max_window_layers", "layer_types"}
        ),
        qkv_bias=True,
    ),
)
PUBLISHED_FAMILIES = {family.published: family for family in FAMILIES}


def converted_family(text: Fields) -> DecoderFamily:
    """The family of a conversion's `text_config`.

    Raises:
        CheckpointError: it is none of `FAMILIES`. The message names it.
    """
    names = {family.name: family for family in FAMILIES}
    text.only("model_type", *names)
    return names[text.values.get("model_type", LLAMA.name)]


def attention_window(text: Fields, family: DecoderFamily) -> int | None:
    """How many positions a layer sees at most; None for all.

    Args:
        text: the decoder's fields.
        family: of the decoder.

    Raises:
        CheckpointError: a field has no legal value, or two contradict each other.
    """
    if "sliding_window" not in family.read:
        return None
    window = None
    if text.values.get("sliding_window", _WINDOW) is not None:
        window = text.whole("sliding_window", _WINDOW)
    if "use_sliding_window" not in family.read:
        return window
    text.only("use_sliding_window", True, False, None)
    used = text.get("use_sliding_window") is True
    kinds = text.get("layer_types", [])
    legal = ("full_attention", "sliding_attention") if used else ("full_attention",)
    if not isinstance(kinds, list) or any(kind not in legal for kind in kinds):
        raise CheckpointError(
            f"{text.where}: layer_types is {kinds!r:.60}, supported is "
            f"{' and '.join(map(repr, legal))} only; use_sliding_window is {used}"
        )
    return window if used else None


def check_window(where: str, window: int | None, context: int) -> None:
    """Refuse a window that hides a part of the context.

    Args:
        where: the config, for messages.
        window: see `attention_window`.
        context: of the bundle, in tokens.

    Raises:
        CheckpointError: it does.
    """
    if window is not None and window < context:
        raise CheckpointError(
            f"{where}: sliding_window is {window}, below the bundle's context of {context}, and "
            f"attention here sees the whole prompt; export with --context {window} or less"
        )
