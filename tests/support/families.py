"""Tiny checkpoints with decoders of other families than Llama's, and their tokenizers."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import tiny

MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PIECES = 500  # of the byte-level tokenizer, its marks among them
# Of Qwen2 (transformers' tokenization_qwen2.py).
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
LINES = (
    "The ECG shows sinus rhythm at 72 beats per minute with a normal axis.",
    "Is there atrial fibrillation? What is the PR interval of this tracing?",
    "You are a helpful assistant. Write a clinical report based on this ECG image.",
    "QRS duration 96 ms, QTc 410 ms; no ST elevation.\n\nÄrzte: Vorhofflimmern, 心电图.",
)
LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@functools.cache
def byte_level_tokenizer() -> bytes:
    """A tokenizer.json after Qwen2's: byte-level pairs, NFC, three special marks behind them."""
    reason = "byte-level tokenizers need pulse-edge[tokenizers]"
    library = pytest.importorskip("tokenizers", reason=reason)
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.normalizer = library.normalizers.NFC()
    split = library.pre_tokenizers.Split(library.Regex(PATTERN), "isolated")
    letters = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence([split, letters])
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=PIECES - len(MARKS),
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES * 8, trainer)
    tokenizer.add_special_tokens([library.AddedToken(mark, special=True) for mark in MARKS])
    return str(tokenizer.to_str()).encode()


def token(mark: str) -> int:
    """Id of a mark of `byte_level_tokenizer`."""
    added = json.loads(byte_level_tokenizer())["added_tokens"]
    return int(next(entry["id"] for entry in added if entry["content"] == mark))


def make_mistral(path: Path, **options: Any) -> Path:
    """A Mistral decoder, with grouped heads and a window of None."""
    path = tiny.make_checkpoint(path, **{"kv_heads": 2} | options)
    change_decoder(path, "Mistral", sliding_window=None, rope_theta=1e6)
    return path


def make_qwen(path: Path, **options: Any) -> Path:
    """A Qwen2 decoder, with biases and the tokenizer above."""
    seed = options.get("seed", 0)
    path = tiny.make_checkpoint(path, **{"kv_heads": 2} | options)
    ends = {"bos_token_id": token("<|endoftext|>"), "eos_token_id": token("<|im_end|>")}
    change_decoder(path, "Qwen2", rope_theta=1e6, use_sliding_window=False, **ends)
    tiny.write_json(path / "generation_config.json", ends)
    add_biases(path, seed)
    use_byte_level(path)
    return path


def use_byte_level(path: Path) -> None:
    """Put the byte-level tokenizer in the place of the SentencePiece model."""
    for name in ("tokenizer.model", "special_tokens_map.json"):
        (path / name).unlink(missing_ok=True)
    (path / "tokenizer.json").write_bytes(byte_level_tokenizer())
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
    }
    tiny.write_json(path / "tokenizer_config.json", config)


def change_decoder(path: Path, name: str, **fields: Any) -> None:
    """Give a checkpoint another decoder's class and fields."""
    config = json.loads((path / "config.json").read_text())
    if "text_config" in config:
        inner = {"architectures": [f"{name}ForCausalLM"], "model_type": name.lower()}
        config["text_config"] |= inner | fields
    else:
        kind = {"Llama": "llama", "Mistral": "mistral", "Qwen2": "qwen"}[name]
        published = f"Llava{kind.capitalize()}ForCausalLM"
        config |= {"architectures": [published], "model_type": f"llava_{kind}"} | fields
    tiny.write_json(path / "config.json", config)


def add_biases(path: Path, seed: int = 0) -> None:
    """Biases of q, k and v, those of the keys large, as Qwen2's are."""
    from safetensors.numpy import load_file

    rng = np.random.default_rng([seed, 1])
    tensors = load_file(path / "model.safetensors")
    for name, tensor in list(tensors.items()):
        for part, size in (("q", 1.0), ("k", 5.0), ("v", 1.0)):
            layers = "layers." in name and "vision" not in name
            if layers and name.endswith(f"self_attn.{part}_proj.weight"):
                bias = rng.normal(0, size, len(tensor)).astype(np.float32)
                tensors[name.replace(".weight", ".bias")] = bias
    tiny.write_safetensors(path / "model.safetensors", tensors)
