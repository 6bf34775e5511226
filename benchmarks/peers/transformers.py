"""Hugging Face transformers on torch. Variants: `fp16` on the first GPU; `bf16`, `fp32` on the CPU.

As the authors' code runs PULSE: eager, scaled dot product attention, a growing cache. With
`:compiled` as its guide to faster generation has it: a static cache, and steps through
torch.compile, which replays CUDA graphs; a prompt runs eagerly into that cache, as in its
`generate`. `:static` is the same without the compiler, for tests.

A static cache counts its tokens itself, in a tensor on the device that each forward adds to;
positions and the mask come from there (cache_utils.py and masking_utils.py of 5.17 and 5.24).
Nothing takes a `cache_position`, and 5.17 has no `StaticLayer.crop`: to rewind is to set that
tensor, in place, since compiled steps know its address.
"""

from __future__ import annotations

import inspect
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

from benchmarks.peers import checkpoint as source
from benchmarks.peers import tower
from benchmarks.peers.protocol import serve

# The cache's name in forward: 5.24 has a new one, and would warn of the old one while it is traced.
NAMES = inspect.signature(LlamaForCausalLM.forward).parameters
CACHE = "cache" if "cache" in NAMES else "past_key_values"
WARM = 6  # steps before any that is timed: CUDA graphs are captured by the second or third
# Largest difference of logits over the largest logit; a wrong mask or place gives about 1.
AGREE = 0.1
VARIANTS = {
    "fp16": ("cuda", torch.float16),
    "bf16": ("cpu", torch.bfloat16),
    "fp32": ("cpu", torch.float32),
}


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
            name: torch.frombuffer(bytearray(data), dtype=_stored(entry))
            .reshape(entry["shape"])
            .to(self._device, self._dtype)
            for name, entry, data in source.tensors(checkpoint)
        }
        model.load_state_dict(weights, assign=True)
        model.model.rotary_emb = type(model.model.rotary_emb)(config).to(
            self._device
        )  # its tables are no weights
        self._model = self._step = model.eval()
        self._static: StaticCache | None = None
        if how not in ("", "static", "compiled"):
            raise ValueError(f"{how!r} is not compiled or static")
        if how:
            self._static = StaticCache(config=config, max_cache_len=context)
        if how == "compiled":
            self._step = torch.compile(model, mode="reduce-overhead", fullgraph=True)
        self._tower = tower.Tower(checkpoint).to(self._device, self._dtype)
        self._side = tower.sizes(checkpoint)["image_size"]
        self._pixels: torch.Tensor | None = None
        self._cache = self._static or DynamicCache()
        self.engine = {
            "engine": "transformers",
            "engine_version": version("transformers"),
            "torch": torch.__version__,
            "device": self._device,
            "weights": str(self._dtype),
            "cache": str(self._dtype),
            "attention": "sdpa",
            "how": how or "eager",
        }
        if self._static is not None:
            self._warm_up(list(range(3, 3 + min(16, context // 2))))

    def feed(self, tokens: list[int]) -> None:
        self.logits(tokens)

    def logits(self, tokens: list[int]) -> torch.Tensor:
        """The last token's [vocab] float32 on the host; waits for them, as a sampler would."""
        return self._run(self._step if len(tokens) == 1 else self._model, tokens)

    def _run(self, model: Any, tokens: list[int]) -> torch.Tensor:
        ids = torch.tensor([tokens], device=self._device)
        if model is not self._model:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call, unused-ignore]
        found = model(input_ids=ids, **{CACHE: self._cache}, use_cache=True, logits_to_keep=1)
        logits: torch.Tensor = found.logits[0, -1].float().cpu()
        return logits

    def _warm_up(self, prompt: list[int]) -> None:
        """Allocate the cache, by an eager prompt; then compile and capture, before a step is timed.

        Raises: RuntimeError, where the logits of steps are not those of an eager one.
        """
        self.rewind(0)
        self._run(self._model, prompt)
        expected = self._run(self._model, [5])
        for _ in range(WARM):
            self.rewind(len(prompt))
            worst = float((self.logits([5]) - expected).abs().max() / expected.abs().max())
            if not worst < AGREE:
                raise RuntimeError(
                    f"steps differ from eager ones: {worst:.2g} of the largest logit"
                )
        self.rewind(0)

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
        self._tower(self._pixels.to(self._device, self._dtype))
        if self._device == "cuda":
            torch.cuda.synchronize()  # the features stay there, where the decoder wants them


def _stored(entry: dict[str, Any]) -> torch.dtype:
    return torch.bfloat16 if entry["dtype"] == "BF16" else torch.float16


def load(path: Path, variant: str, threads: int, context: int) -> Transformers:
    return Transformers(
        Path(json.loads((path / "checkpoint.json").read_text())), variant, threads, context
    )


if __name__ == "__main__":
    serve(convert, load)
