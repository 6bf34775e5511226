"""Writes a LLaVA checkpoint with PULSE-7B's names, shapes and dtype, and random weights: speed does
not mind.

    python -m benchmarks.synthetic synthetic-7b               # 14.1 GB in three shards
    python -m benchmarks.synthetic slice --layers 4           # full width, four decoder layers

Its answers are noise. The tokenizer is a small one that knows the template and the benchmark's
questions, so that a prompt has about as many tokens as with Llama's; `--tokenizer` takes a real
one.

A shard's matrices are windows of one pool of random numbers, at random places of it: values repeat
after the pool's length, which speed does not mind, and writing takes as long as the disk does.
Vectors are drawn one by one. No more than two pools for each shard being written are ever in
memory. What is written last is config.json: a run that was interrupted leaves nothing that exports.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pulse_edge.assets import RATE_QUESTION, REPORT_QUESTION

SPREAD = 0.02  # standard deviation: Llama's initializer_range
POOL = 1 << 24  # random numbers of a shard at most, 32 MB as they are stored
# more of them, so that no row's length divides the pool's, and a matrix does not repeat row by row
ODD = 4099
BLOCK = 1 << 20  # random numbers drawn at a time
AT_ONCE = 8  # shards being written: a file takes one writer
SHARD = 5 * 10**9  # bytes: save_pretrained's limit, which gives the published three shards
DTYPES = {"bfloat16": "BF16", "float16": "F16"}  # both take two bytes
TOWER = "model.vision_tower.vision_tower.vision_model"
TEXT = f"""\
A chat between a curious human and an artificial intelligence assistant. The assistant gives \
helpful, detailed, and polite answers to the human's questions. USER: ASSISTANT:
{REPORT_QUESTION} {RATE_QUESTION} Is the rhythm regular? 0123456789"""


@dataclass(frozen=True)
class Sizes:
    """PULSE-7B's. Grids are in units of a view."""

    layers: int = 32
    hidden: int = 4096
    heads: int = 32
    ffn: int = 11008
    vocab: int = 32000
    context: int = 4096
    vision_layers: int = 24
    vision_width: int = 1024
    vision_heads: int = 16
    vision_mlp: int = 4096
    image_size: int = 336
    patch_size: int = 14


GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
Shape = tuple[int, ...]


def tensors(s: Sizes) -> Iterator[tuple[str, Shape]]:
    """Names and shapes, in the order of the modules.

    The tower's last layer and norm are there, though never run.
    """
    yield "model.embed_tokens.weight", (s.vocab, s.hidden)
    for i in range(s.layers):
        for name, shape in (
            *((f"self_attn.{p}_proj", (s.hidden, s.hidden)) for p in "qkvo"),
            *((f"mlp.{p}_proj", (s.ffn, s.hidden)) for p in ("gate", "up")),
            ("mlp.down_proj", (s.hidden, s.ffn)),
            *((f"{p}_layernorm", (s.hidden,)) for p in ("input", "post_attention")),
        ):
            yield f"model.layers.{i}.{name}.weight", shape
    yield "model.norm.weight", (s.hidden,)
    yield "model.image_newline", (s.hidden,)
    yield from _tower(s)
    yield from _affine("model.mm_projector.0", (s.hidden, s.vision_width))
    yield from _affine("model.mm_projector.2", (s.hidden, s.hidden))
    yield "lm_head.weight", (s.vocab, s.hidden)


def _tower(s: Sizes) -> Iterator[tuple[str, Shape]]:
    width, patches = s.vision_width, (s.image_size // s.patch_size) ** 2
    yield f"{TOWER}.embeddings.class_embedding", (width,)
    yield f"{TOWER}.embeddings.patch_embedding.weight", (width, 3, s.patch_size, s.patch_size)
    yield f"{TOWER}.embeddings.position_embedding.weight", (patches + 1, width)
    yield from _affine(f"{TOWER}.pre_layrnorm", (width,))  # the misspelling is CLIP's
    for i in range(s.vision_layers):
        layer = f"{TOWER}.encoder.layers.{i}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from _affine(f"{layer}.self_attn.{part}", (width, width))
        yield from _affine(f"{layer}.layer_norm1", (width,))
        yield from _affine(f"{layer}.mlp.fc1", (s.vision_mlp, width))
        yield from _affine(f"{layer}.mlp.fc2", (width, s.vision_mlp))
        yield from _affine(f"{layer}.layer_norm2", (width,))
    yield from _affine(f"{TOWER}.post_layernorm", (width,))


def _affine(name: str, shape: Shape) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def config(s: Sizes, dtype: str) -> dict[str, Any]:
    """config.json, with the fields of llava-v1.6-vicuna-7b."""
    return {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": s.hidden,
        "intermediate_size": s.ffn,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.heads,
        "max_position_embeddings": s.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "vocab_size": s.vocab,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": [[s.image_size * w, s.image_size * h] for w, h in GRIDS],
        "mm_hidden_size": s.vision_width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "use_mm_proj": True,
    }


def vision_config(s: Sizes) -> dict[str, Any]:
    """vision_config.json, which PULSE-7B does not have; needed where the tower is not its own."""
    return {
        "model_type": "clip_vision_model",
        "hidden_size": s.vision_width,
        "intermediate_size": s.vision_mlp,
        "num_hidden_layers": s.vision_layers,
        "num_attention_heads": s.vision_heads,
        "num_channels": 3,
        "image_size": s.image_size,
        "patch_size": s.patch_size,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }


def tokenizer() -> bytes:
    """A SentencePiece model with Llama's settings and ids, trained on `TEXT`."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=out,
        model_type="bpe",
        vocab_size=512,
        hard_vocab_limit=False,
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        split_digits=True,
        normalization_rule_name="identity",
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
    )
    return out.getvalue()


def write(
    path: Path, sizes: Sizes, dtype: str = "bfloat16", seed: int = 0, shard: int = SHARD,
    tokenizer_model: bytes | None = None, progress: Callable[[int], object] = lambda _: None,
) -> None:  # fmt: skip
    """Write the checkpoint directory.

    progress: called with the bytes written since the last call.
    """
    path.mkdir(parents=True, exist_ok=True)
    shards = list(split_shards(sizes, shard))
    names = [
        f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    weight_map = {tensor: name for name, part in zip(names, shards, strict=True) for tensor in part}
    lock, stopped = threading.Lock(), threading.Event()

    def written(count: int) -> None:
        if stopped.is_set():
            raise InterruptedError("another shard could not be written")
        with lock:
            progress(count)

    def work(number: int) -> None:
        # A generator of its own: the values are the same, whichever shard is written first.
        rng = np.random.default_rng((seed, number))
        _write_shard(path / names[number], shards[number], DTYPES[dtype], rng, written)

    with ThreadPoolExecutor(AT_ONCE) as executor:
        try:
            for future in as_completed(
                [executor.submit(work, number) for number in range(len(shards))]
            ):
                future.result()
        except BaseException:  # an interruption too: nobody waits for the other shards then
            stopped.set()
            raise
    index = {"metadata": {"total_size": size(sizes)}, "weight_map": weight_map}
    _json(path / "model.safetensors.index.json", index)
    (path / "tokenizer.model").write_bytes(tokenizer_model or tokenizer())
    if vision_config(sizes) != vision_config(Sizes()):
        _json(path / "vision_config.json", vision_config(sizes))
    _json(path / "config.json", config(sizes, dtype))


def size(sizes: Sizes) -> int:
    """Bytes of all tensors."""
    return sum(map(_bytes, dict(tensors(sizes)).values()))


def _bytes(shape: Shape) -> int:
    return 2 * math.prod(shape)


def split_shards(sizes: Sizes, limit: int) -> Iterator[dict[str, Shape]]:
    """Consecutive tensors of together at most `limit` bytes, at least one."""
    part: dict[str, Shape] = {}
    for name, shape in tensors(sizes):
        if part and sum(map(_bytes, part.values())) + _bytes(shape) > limit:
            yield part
            part = {}
        part[name] = shape
    yield part


def _write_shard(
    path: Path,
    part: dict[str, Shape],
    code: str,
    rng: np.random.Generator,
    progress: Callable[[int], object],
) -> None:
    """The safetensors format: length of the header, header, tensors one after the other."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in part.items():
        start, end = end, end + _bytes(shape)
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    pool = _pool(min(POOL, max(map(math.prod, part.values()))) + ODD, code, rng)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in part.items():
            left = math.prod(shape)
            if len(shape) == 1:
                centre = 1 if name.endswith(".weight") else 0  # norms
                progress(file.write(_drawn(left, centre, code, rng).data))
                continue
            at = int(rng.integers(pool.size))
            while left:
                values = pool[at : at + left]
                progress(file.write(values.data))
                left, at = left - values.size, 0


def _pool(size: int, code: str, rng: np.random.Generator) -> NDArray[Any]:
    """Random numbers around zero, as they are stored."""
    return np.concatenate(
        [_drawn(min(BLOCK, size - at), 0, code, rng) for at in range(0, size, BLOCK)]
    )


def _drawn(count: int, centre: int, code: str, rng: np.random.Generator) -> NDArray[Any]:
    block = rng.standard_normal(count, np.float32)
    block *= SPREAD
    block += centre
    return _stored(block, code)


def _stored(block: NDArray[np.float32], code: str) -> NDArray[Any]:
    """float32 as float16, or as bfloat16's bits: the upper half of each, which rounds
    towards zero.
    """
    return (
        block.astype("<f2")
        if code == "F16"
        else (block.view(np.uint32) >> np.uint32(16)).astype("<u2")
    )


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def size_options(**defaults: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """One option for each field of `Sizes`; `defaults` are other ones than its own."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for field in reversed(dataclasses.fields(Sizes)):
            name, default = field.name, defaults.get(field.name, field.default)
            option = click.option("--" + name.replace("_", "-"), default=default, show_default=True)
            command = option(command)
        return command

    return add


@click.command(context_settings={"show_default": True})
@click.argument("out", type=click.Path(path_type=Path))
@size_options()
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="bfloat16")
@click.option("--seed", default=0)
@click.option("--shard-size", default=SHARD, help="Bytes a file holds at most.")
@click.option(
    "--tokenizer",
    "own",
    type=click.Path(path_type=Path, exists=True),
    help="A tokenizer.model to copy.",
)
def main(out: Path, dtype: str, seed: int, shard_size: int, own: Path | None, **sizes: int) -> None:
    """Write the checkpoint directory OUT."""
    wanted = Sizes(**sizes)
    total = size(wanted)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise click.UsageError(f"{out} exists; choose another name, or delete it")
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if free < total:
        raise click.ClickException(
            f"{total / 1e9:.1f} GB are needed at {out}, {free / 1e9:.1f} GB are free"
        )
    with click.progressbar(length=total, label="writing", file=sys.stderr) as bar:
        write(out, wanted, dtype, seed, shard_size, own.read_bytes() if own else None, bar.update)
    click.echo(
        f"{out}: {total / 2e6:,.1f} M parameters, {total / 1e9:.2f} GB, {dtype}, RANDOM weights"
    )


if __name__ == "__main__":
    main()
