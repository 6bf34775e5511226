"""gpt-fast's way on torch: tinygemm for int4, a static cache, compiled steps in a CUDA graph.

Variants: `int4`, groups of 128 with scale and zero, or `bf16`, both on the first GPU; then, after
colons, `cpu`, and how steps run. Without that the first of these that runs, and agrees with eager
steps, is taken:

    graph        blocks through torch.compile, all of a step in one CUDA graph
    trees        the whole step through torch.compile(mode="reduce-overhead"), as gpt-fast has it
    eager-graph  torch's own kernels in one CUDA graph
    eager        neither; on the CPU the first to be tried, where `compiled` is the other

`graph` leaves out what `trees` costs a step on the host (guards of hundreds of modules, checks of
static inputs), and compiles one block instead of 32. The model is written out here as in gpt-fast's
model.py: q, k and v are one product there, which Hugging Face's modules cannot have. Every product
and the head are quantized from the checkpoint at load; a prompt goes through the same int4 kernel,
eagerly, at once.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers import checkpoint as source
from benchmarks.peers.protocol import serve

GROUP = 128  # weights that share a scale and a zero, as in gpt-fast's int4 GPU recipe
INNER_TILES = 8  # of the CUDA layout; gpt-fast's choice
WARM = 5  # steps before any that is timed
# Largest difference of logits over the largest logit; a wrong mask or place gives about 1.
AGREE = 0.1
FIRST = {"cuda": ("graph", "trees", "eager-graph"), "cpu": ("eager",)}
WAYS = (*FIRST["cuda"], "eager", "compiled")
STORED = {"BF16": torch.bfloat16, "F16": torch.float16}
Step = Callable[[torch.Tensor], torch.Tensor]  # [token, place] int64 -> logits [1, vocab] float32


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Asymmetric, as gpt-fast's quantize.py: weight ~ (code - 8) * scale + zero.

    [n, k] -> codes [n, k] uint8 below 16, scales and zeros [n, k / GROUP] float32.
    """
    rows, columns = weight.shape
    groups = weight.float().reshape(rows, columns // GROUP, GROUP)
    low, high = groups.amin(-1), groups.amax(-1)
    scales = (high - low).clamp(min=1e-6) / 15
    codes = ((groups - low[..., None]) / scales[..., None]).round().clamp(0, 15)
    return codes.to(torch.uint8).reshape(rows, columns), scales, low + 8 * scales


def dequantize(codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> torch.Tensor:
    """-> [n, k], in the type of the scales."""
    groups = codes.reshape(*scales.shape, GROUP).to(scales.dtype) - 8
    return (groups * scales[..., None] + zeros[..., None]).reshape(codes.shape)


class Int4(nn.Module):  # type: ignore[misc, unused-ignore]
    """x [rows, k] -> [rows, n] by torch's kernel for the device; each has its own layout."""

    codes: torch.Tensor
    scales: torch.Tensor

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        codes, scales, zeros = quantize(weight)
        if codes.is_cuda:
            pairs = (codes[:, ::2] << 4 | codes[:, 1::2]).contiguous()
            packed = torch.ops.aten._convert_weight_to_int4pack(pairs, INNER_TILES)
        else:
            packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), INNER_TILES)
        self.register_buffer("codes", packed)
        both = torch.stack([scales, zeros], -1).transpose(0, 1)  # [k / GROUP, n, 2]
        self.register_buffer("scales", both.to(dtype).contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor
        if x.is_cuda:
            y = torch.ops.aten._weight_int4pack_mm(x, self.codes, GROUP, self.scales)
        else:
            y = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.codes, GROUP, self.scales)
        return y


class Plain(nn.Module):  # type: ignore[misc, unused-ignore]
    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", weight.to(dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = functional.linear(x, self.weight)
        return y


class Norm(nn.Module):  # type: ignore[misc, unused-ignore]
    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor, epsilon: float) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        scaled: torch.Tensor = wide.to(x.dtype) * self.weight
        return scaled


class Block(nn.Module):  # type: ignore[misc, unused-ignore]
    """A decoder layer and its part of the cache, [heads, context, size] each of keys and values."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(
        self,
        parts: dict[str, nn.Module],
        heads: int,
        size: int,
        context: int,
        like: torch.Tensor,
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.heads, self.size = heads, size
        for name in ("keys", "values"):
            empty = torch.zeros(heads, context, size, dtype=like.dtype, device=like.device)
            self.register_buffer(name, empty)

    def forward(
        self,
        x: torch.Tensor,
        more: torch.Tensor,
        turns: torch.Tensor,
        places: torch.Tensor,
        visible: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One layer; its last addition is left to the next one, whose norm it fuses with.

        Args:
            x: the residual stream [rows, hidden], without `more`.
            more: what the layer before adds to it, [rows, hidden].
            turns: cosine and sine of the rows' rotations [2, rows, size].
            places: where the rows go in the cache [rows] int64.
            visible: which places a row sees [rows, context]; None: a prompt into an empty cache.

        Returns: x and more for the next layer.
        """
        parts = self.parts
        x = x + more
        mixed = parts["qkv"](parts["input_norm"](x)).view(len(x), 3, self.heads, self.size)
        q, k, v = mixed.transpose(0, 2).unbind(1)
        q, k = turned(q, turns), turned(k, turns)
        self.keys.index_copy_(1, places, k)
        self.values.index_copy_(1, places, v)
        keys, values = (k, v) if visible is None else (self.keys, self.values)
        mixed = attend(q, keys, values, visible)
        x = x + parts["out"](mixed.transpose(0, 1).reshape(len(x), -1))
        h = parts["norm"](x)
        return x, parts["down"](functional.silu(parts["gate"](h)) * parts["up"](h))


def turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of x [heads, rows, size], in the halves of Hugging Face's checkpoints."""
    left, right = x.float().chunk(2, -1)
    rotated: torch.Tensor = x.float() * turns[0] + torch.cat((-right, left), -1) * turns[1]
    return rotated.to(x.dtype)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visible: torch.Tensor | None
) -> torch.Tensor:
    """[heads, rows, size]; visible: None is causal."""
    if len(q[0]) == 1 and visible is not None and torch.compiler.is_compiling():
        # Products and sums, which Inductor fuses: torch's own kernels have one thread block a head
        # for a single row. gpt-fast asks for the same with SDPBackend.MATH.
        scores = (q.float() * k.float()).sum(-1) * q.shape[-1] ** -0.5
        shares = scores.masked_fill(~visible, float("-inf")).softmax(-1)
        summed: torch.Tensor = (shares[..., None] * v.float()).sum(1, keepdim=True)
        return summed.to(q.dtype)
    mixed: torch.Tensor = functional.scaled_dot_product_attention(
        q[None], k[None], v[None], attn_mask=visible, is_causal=visible is None
    )
    return mixed[0]


def run_block(block: Block, *inputs: Any) -> Any:
    """A function of its own, so that torch.compile compiles it once for all blocks."""
    return block(*inputs)


class Model(nn.Module):  # type: ignore[misc, unused-ignore]
    """The decoder; its cache holds `context` tokens."""

    places: torch.Tensor
    turns: torch.Tensor

    def __init__(
        self,
        checkpoint: Path,
        linear: type[nn.Module],
        device: str,
        dtype: torch.dtype,
        context: int,
    ) -> None:
        super().__init__()
        config = source.config(checkpoint)
        heads, size = config["num_attention_heads"], config["head_dim"]
        if config["num_key_value_heads"] != heads:
            raise ValueError("grouped queries are not written out here")
        made = _modules(checkpoint, linear, device, dtype, config["rms_norm_eps"])
        self.embed: torch.Tensor = made.pop("model.embed_tokens")
        self.norm = made.pop("model.norm")
        self.head = made.pop("lm_head", None) or linear(self.embed, dtype)
        self.blocks = nn.ModuleList()
        for i in range(config["num_hidden_layers"]):
            prefix = f"model.layers.{i}."
            parts = {
                PARTS[name.removeprefix(prefix)]: module
                for name, module in made.items()
                if name.startswith(prefix)
            }
            self.blocks.append(Block(parts, heads, size, context, self.embed))
        places = torch.arange(context, device=device)
        exponents = torch.arange(0, size, 2, device=device) / size
        angles = places[:, None] / config["rope_theta"] ** exponents
        angles = torch.cat((angles, angles), -1)
        self.register_buffer("places", places)
        # [2, context, size] float32
        self.register_buffer("turns", torch.stack((angles.cos(), angles.sin())))

    def step(self, inputs: torch.Tensor, block: Callable[..., Any] = run_block) -> torch.Tensor:
        """A row at a place that the device knows: [token, place] -> logits [1, vocab]."""
        place = inputs[1:]
        return self._run(inputs[:1], place, (self.places <= place)[None], block)

    def prompt(self, tokens: torch.Tensor, start: int) -> torch.Tensor:
        """-> the last row's logits [1, vocab]"""
        places = self.places[start : start + len(tokens)]
        visible = None if start == 0 else self.places[None] <= places[:, None]
        return self._run(tokens, places, visible, run_block)

    def _run(
        self,
        tokens: torch.Tensor,
        places: torch.Tensor,
        visible: torch.Tensor | None,
        block: Callable[..., Any],
    ) -> torch.Tensor:
        x, turns = self.embed[tokens], self.turns[:, places]
        more = torch.zeros_like(x)
        for layer in self.blocks:
            x, more = block(layer, x, more, turns, places, visible)
        logits: torch.Tensor = self.head(self.norm((x + more)[-1:])).float()
        return logits


PARTS = {
    "self_attn.qkv": "qkv", "self_attn.o_proj": "out", "mlp.gate_proj": "gate", "mlp.up_proj": "up",
    "mlp.down_proj": "down", "input_layernorm": "input_norm", "post_attention_layernorm": "norm",
}  # fmt: skip


def _modules(
    checkpoint: Path, linear: type[nn.Module], device: str, dtype: torch.dtype, epsilon: float
) -> dict[str, Any]:
    """By the names of the checkpoint; the table of embeddings stays a tensor.

    One weight at a time is on the device as it is stored.
    """
    made: dict[str, Any] = {}
    for name, weight in _joined(checkpoint):
        here = weight.to(device)
        if "embed_tokens" in name:
            made[name] = here.to(dtype)
        else:
            norm = "norm" in name
            made[name] = Norm(here.to(dtype), epsilon) if norm else linear(here, dtype)
    return made


def _joined(checkpoint: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights by name, without `.weight`; q, k and v of a layer as one."""
    waiting: dict[str, dict[str, torch.Tensor]] = {}
    for full, entry, data in source.tensors(checkpoint):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that bytes are read only; nothing writes to them
            weight = torch.frombuffer(data, dtype=STORED[entry["dtype"]]).reshape(entry["shape"])
        name = full.removesuffix(".weight")
        stem, _, part = name.rpartition(".")
        if part in ("q_proj", "k_proj", "v_proj"):
            found = waiting.setdefault(stem, {})
            found[part] = weight
            if len(found) == 3:
                yield f"{stem}.qkv", torch.cat([found[p] for p in ("q_proj", "k_proj", "v_proj")])
                del waiting[stem]
        else:
            yield name, weight


class TorchInt4:
    """See protocol.Peer; there is no vision tower."""

    def __init__(self, checkpoint: Path, variant: str, threads: int, context: int) -> None:
        kind, *more = variant.split(":")
        device = "cpu" if "cpu" in more else "cuda"
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("torch sees no GPU")
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        dtype = (
            torch.bfloat16 if device == "cuda" else torch.float32
        )  # tinygemm takes bfloat16 only
        linear = {"int4": Int4, "bf16": Plain}[kind]
        self._model = Model(checkpoint, linear, device, dtype, context).eval()
        self._inputs = torch.zeros(2, dtype=torch.int64, device=device)
        self._length = 0
        self._device = device
        if kind == "int4":
            _check_kernel(device, dtype)
        way = next((part for part in more if part in WAYS), None)
        steps = min(WARM, context // 4)
        how, self._step = self._first_that_runs((way,) if way else FIRST[device], steps)
        self.rewind(0)
        int4 = f"int4 in groups of {GROUP}, quantized from the checkpoint"
        self.engine: dict[str, Any] = {
            "engine": "torch",
            "engine_version": torch.__version__,
            "device": device,
            "how": how,
            "weights": int4 if kind == "int4" else str(dtype),
            "head": kind,
            "activations": str(dtype),
            "cache": f"static, {context} tokens of {dtype}",
            "attention": "over the whole cache in each step",
        }

    def feed(self, tokens: list[int]) -> None:
        self.logits(tokens)

    def logits(self, tokens: list[int]) -> torch.Tensor:
        """The last token's [vocab] float32 on the host; waits for them, as a sampler would."""
        if self._length + len(tokens) > len(self._model.places):
            raise ValueError(f"the cache holds {len(self._model.places)} tokens")
        if len(tokens) == 1:
            found = self._at(self._step, tokens[0])
        else:
            found = self._model.prompt(torch.tensor(tokens, device=self._device), self._length)
        self._length += len(tokens)
        return found[0].cpu()

    def rewind(self, length: int) -> None:
        self._length = length  # what lies behind is masked, and overwritten

    def _at(self, step: Step, token: int) -> torch.Tensor:
        self._inputs.copy_(torch.tensor([token, self._length]))
        return step(self._inputs)

    def _first_that_runs(self, ways: tuple[str, ...], steps: int) -> tuple[str, Step]:
        """Compile, capture and warm up; stderr says which ways failed or are not as eager steps."""
        tokens = list(range(3, 3 + 2 * steps))
        self.feed_eagerly(tokens)
        expected = [self._eager_step(5).clone() for _ in range(steps)]
        problems = []
        for way in ways:
            self._length = len(tokens)
            try:
                step = self._made(way)
                worst = 0.0
                for wanted in expected:
                    got = self._at(step, 5).clone()
                    self._length += 1
                    worst = max(worst, float((got - wanted).abs().max() / wanted.abs().max()))
                if not worst < AGREE:
                    raise RuntimeError(
                        f"logits differ from eager ones by {worst:.2g} of the largest"
                    )
                return way, step
            except Exception as error:  # of compilers, drivers, or of this check
                first_line = (str(error).strip().splitlines() or [""])[0]
                problems.append(f"{way}: {type(error).__name__}: {first_line[:200]}")
                print(f"torch-int4: {problems[-1]}", file=sys.stderr, flush=True)
        raise RuntimeError("; ".join(problems))

    def feed_eagerly(self, tokens: list[int]) -> None:
        """A prompt of several tokens into an empty cache."""
        self._length = 0
        self._model.prompt(torch.tensor(tokens, device=self._device), 0)
        self._length = len(tokens)

    def _eager_step(self, token: int) -> torch.Tensor:
        found = self._at(self._model.step, token)
        self._length += 1
        return found

    def _made(self, way: str) -> Step:
        model = self._model
        if way == "eager":
            eager: Step = model.step
            return eager
        if way == "eager-graph":
            return self._captured(model.step)
        if way == "trees":
            whole = torch.compile(model.step, mode="reduce-overhead", fullgraph=True, dynamic=False)
            return _trees(whole)
        block = torch.compile(run_block, fullgraph=True, dynamic=False)

        def step(inputs: torch.Tensor) -> torch.Tensor:
            return model.step(inputs, block)

        return step if way == "compiled" else self._captured(step)

    def _captured(self, step: Step) -> Step:
        """One CUDA graph, which reads `_inputs` at each replay."""
        self._inputs.copy_(torch.tensor([5, self._length]))
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call, unused-ignore]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # compiles, and makes what libraries put off until they run
                step(self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = step(self._inputs)

        def replay(_: torch.Tensor) -> torch.Tensor:
            graph.replay()
            return logits

        return replay


def _trees(step: Step) -> Step:
    """Calls count as iterations of their own: the logits of the one before may be overwritten."""

    def run(inputs: torch.Tensor) -> torch.Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call, unused-ignore]
        return step(inputs)

    return run


def _check_kernel(device: str, dtype: torch.dtype) -> None:
    """The kernel against its codes. Raises RuntimeError: torch has changed the layout once."""
    weight = torch.randn(64, 1024, device=device) * 0.02
    x = torch.randn(3, 1024, device=device).to(dtype)
    codes, scales, zeros = quantize(weight)
    stored = dequantize(codes, scales.to(dtype).double(), zeros.to(dtype).double())
    expected = x.double() @ stored.T
    worst = float((Int4(weight, dtype)(x).double() - expected).abs().max() / expected.abs().max())
    if not worst < 0.02:
        raise RuntimeError(f"torch's int4 product is off by {worst:.2g}: another layout of codes?")


def convert(checkpoint: Path, out: Path, variant: str) -> None:
    """Nothing to convert: what is written is where the checkpoint is."""
    out.mkdir()
    (out / "checkpoint.json").write_text(json.dumps(str(checkpoint)))


def load(path: Path, variant: str, threads: int, context: int) -> TorchInt4:
    checkpoint = Path(json.loads((path / "checkpoint.json").read_text()))
    return TorchInt4(checkpoint, variant, threads, context)


if __name__ == "__main__":
    serve(convert, load)
