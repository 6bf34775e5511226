"""The decoder's fields -> `TextSpec`."""

from __future__ import annotations

from pathlib import Path

from pulse_edge.bundle.spec import TextSpec
from pulse_edge.errors import CheckpointError
from pulse_export.families import DecoderFamily
from pulse_export.fields import Fields
from pulse_export.rope_config import rope_scaling, rope_theta
from pulse_export.strict_json import read_json


def text_spec(config: Fields, path: Path, family: DecoderFamily) -> TextSpec:
    """The decoder.

    Args:
        config: its fields.
        path: the checkpoint's directory.
        family: of the decoder.

    Raises:
        CheckpointError: a field is missing, or has no legal value. The message names it.
    """
    hidden = config.whole("hidden_size")
    heads = config.whole("num_attention_heads")
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
        rope_theta=rope_theta(config),
        context=config.whole("max_position_embeddings"),
        bos=config.whole("bos_token_id", family.bos or 0, least=0, most=vocab - 1),
        eos=_end_tokens(config, path, vocab, family),
        rope=rope_scaling(config),
        qkv_bias=family.qkv_bias or None,
    )


def _end_tokens(config: Fields, path: Path, vocab: int, family: DecoderFamily) -> tuple[int, ...]:
    """The ids that end an answer. transformers generates with those of generation_config.json."""
    own = _ends(config, vocab)
    file = path / "generation_config.json"
    generation = Fields(read_json(file) if file.exists() else {}, str(file))
    ends = _ends(generation, vocab)
    if ends and not set(own) <= set(ends):
        raise CheckpointError(
            f"{file}: eos_token_id is {ends}, but {config.where} says {own}; make the two agree"
        )
    bos, stated = generation.get("bos_token_id"), config.get("bos_token_id", family.bos)
    if None not in (bos, stated) and bos != stated:
        raise CheckpointError(
            f"{file}: bos_token_id is {bos!r:.60}, but {config.where} says "
            f"{stated!r:.60}; make the two agree"
        )
    return tuple(dict.fromkeys(ends or own or family.ends))


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
