"""The language model of a LLaVA checkpoint, as peers want it: tensors by name, or a Hugging Face
Llama directory.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Header = dict[str, Any]  # a tensor's dtype, shape and data_offsets, as safetensors has them
PREFIXES = ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.")
KEPT = (
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "vocab_size",
    "tie_word_embeddings",
    "torch_dtype",
)


def config(checkpoint: Path) -> dict[str, Any]:
    """config.json of the Llama inside."""
    whole = json.loads((checkpoint / "config.json").read_text())
    head = whole["hidden_size"] // whole["num_attention_heads"]
    kept = {key: whole[key] for key in KEPT}
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "head_dim": head, **kept}


def tensors(
    checkpoint: Path, prefixes: tuple[str, ...] = PREFIXES
) -> Iterator[tuple[str, Header, bytes]]:
    """(name, header, little-endian bytes) of the tensors so called, one at a time; by default the
    language model's.
    """
    for shard in sorted(checkpoint.glob("*.safetensors")):
        with shard.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header: Header = json.loads(file.read(size))
            for name, entry in header.items():
                if name.startswith(prefixes):
                    start, end = entry["data_offsets"]
                    file.seek(8 + size + start)
                    yield name, entry, file.read(end - start)


def write_llama(checkpoint: Path, out: Path, tokenizer: bool = True) -> None:
    """A LlamaForCausalLM directory: config.json, model.safetensors, tokenizer.model (which not
    every peer can read).
    """
    out.mkdir(parents=True, exist_ok=True)
    entries: Header = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, entry, data in tensors(checkpoint):
        assert len(data) == 2 * math.prod(entry["shape"]), (
            "synthetic checkpoints take two bytes a number"
        )
        start, end = end, end + len(data)
        entries[name] = entry | {"data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    with (out / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, _, data in tensors(checkpoint):
            file.write(data)
    if tokenizer:
        shutil.copy(checkpoint / "tokenizer.model", out)
    (out / "config.json").write_text(json.dumps(config(checkpoint), indent=2))
