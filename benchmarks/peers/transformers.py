"""Hugging Face transformers on torch. Variants: `fp16` on the first GPU; `bf16` and `fp32` on the CPU.

As the authors' code runs PULSE: eager, scaled dot product attention, a growing cache. With `:compiled` as its guide to
faster generation has it: a static cache, and steps through torch.compile, which replays CUDA graphs.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

from benchmarks.peers import checkpoint as source
from benchmarks.peers import tower
from benchmarks.peers.protocol import serve

VARIANTS = {"fp16": ("cuda", torch.float16), "bf16": ("cpu", torch.bfloat16), "fp32": ("cpu", torch.float32)}


def convert(checkpoint: Path, out: Path, variant: str) -> None:
    """Nothing to convert: what is written is where the checkpoint is."""
    out.mkdir()
    (out / "checkpoint.json").write_text(json.dumps(str(checkpoint)))


class Transformers:
    def __init__(self, checkpoint: Path, variant: str, threads: int, context: int) -> None:
        kind, _, how = variant.partition(":")
        self._device, self._dtype = VARIANTS[kind]
        if self._device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("torch sees no GPU")
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        config = LlamaConfig(**source.config(checkpoint), attn_implementation="sdpa")
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
        weights = {
            name: torch.frombuffer(bytearray(data), dtype=_stored(entry)).reshape(entry["shape"]).to(
                self._device, self._dtype
            )
            for name, entry, data in source.tensors(checkpoint)
        }  # fmt: skip
        model.load_state_dict(weights, assign=True)
        model.model.rotary_emb = type(model.model.rotary_emb)(config).to(self._device)  # its tables are no weights
        self._model = self._step = model.eval()
        self._static: StaticCache | None = None
        if how == "compiled":
            self._static = StaticCache(config=config, max_cache_len=context)
            self._step = torch.compile(model, mode="reduce-overhead", fullgraph=True)
        self._tower = tower.Tower(checkpoint).to(self._device, self._dtype)
        self._side = tower.sizes(checkpoint)["image_size"]
        self._pixels: torch.Tensor | None = None
        self._cache = self._static or DynamicCache()
        self.engine = {
            "engine": "transformers", "engine_version": version("transformers"), "torch": torch.__version__,
            "device": self._device, "weights": str(self._dtype), "cache": str(self._dtype), "attention": "sdpa",
            "how": how or "eager",
        }  # fmt: skip

    def feed(self, tokens: list[int]) -> None:
        ids = torch.tensor([tokens], device=self._device)
        model = self._step if len(tokens) == 1 else self._model
        logits = model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1).logits
        logits[0, -1].float().cpu()  # waits, as a sampler on the host would

    def rewind(self, length: int) -> None:
        if self._static is not None:
            for layer in self._static.layers:
                layer.cumulative_length.fill_(length)
        elif length == 0:
            self._cache = DynamicCache()
        else:
            self._cache.crop(length - self._cache.get_seq_length())  # negative: so many to forget

    def see(self, views: int) -> None:
        if self._pixels is None or len(self._pixels) != views:
            self._pixels = tower.pixels(self._side, views)
        self._tower(self._pixels.to(self._device, self._dtype)).float().cpu()


def _stored(entry: dict[str, Any]) -> torch.dtype:
    return torch.bfloat16 if entry["dtype"] == "BF16" else torch.float16


def load(path: Path, variant: str, threads: int, context: int) -> Transformers:
    return Transformers(Path(json.loads((path / "checkpoint.json").read_text())), variant, threads, context)


if __name__ == "__main__":
    serve(convert, load)
