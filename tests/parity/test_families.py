"""Mistral and Qwen2 decoders and stretched RoPE against Hugging Face's models, in float32.

These need `torch` and `transformers`, and are skipped without them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.page import views as images
from pulse_edge.page.tokens import merge
from pulse_edge.text.template import IMAGE, PromptBuilder
from pulse_export import reference
from pulse_export.checkpoint import Checkpoint
from pulse_export.pipeline import export
from pulse_export.targets.target import rope_tables

from goldens import cases
from support import families, tiny
from support.numbers import relative, relative_norm

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4  # relative to the largest value
CACHE_COST = 0.03  # of an int8 cache: the bar that Llama's has in test_quantize_cache.py
NEW_TOKENS = 24
SIZE = (150, 110)


def make_linear(path: Path, **options: Any) -> Path:
    path = tiny.make_checkpoint(path, **options)
    families.change_decoder(path, "Llama", rope_scaling=families.LINEAR)
    return path


def make_llama3(path: Path, **options: Any) -> Path:
    """With the fields where transformers 5 has them."""
    path = tiny.make_checkpoint(path, kv_heads=2, **options)
    scaling = families.LLAMA3 | {"rope_theta": 5e5}
    families.change_decoder(path, "Llama", rope_theta=None, rope_parameters=scaling)
    return path


def make_tied_qwen(path: Path, **options: Any) -> Path:
    return families.make_qwen(path, tied=True, **options)


def make_wide_window(path: Path, **options: Any) -> Path:
    """A sliding window that is as long as the context."""
    path = families.make_mistral(path, **options)
    families.change_decoder(path, "Mistral", sliding_window=512)
    return path


MAKERS: dict[str, Callable[..., Path]] = {
    "mistral": families.make_mistral,
    "mistral, window": make_wide_window,
    "qwen2": families.make_qwen,
    "qwen2, tied": make_tied_qwen,
    "linear": make_linear,
    "llama3": make_llama3,
}


def chosen(engine: Engine, embeds: Any, table: Any) -> list[int]:
    """Greedy tokens of an exported bundle."""
    logits = engine.prefill(embeds)
    picked: list[int] = []
    while len(picked) < NEW_TOKENS:
        picked.append(int(logits.argmax()))
        logits = engine.step(table[picked[-1:]])[0]
    return picked


def check_equal(tokens: Sequence[int], expected: Sequence[int], margins: Sequence[float]) -> None:
    """Equal, or equal up to a tie of the reference's best two."""
    at = next((i for i, (a, b) in enumerate(zip(tokens, expected, strict=True)) if a != b), None)
    assert at is None or margins[at] < 1e-4, f"token {at} differs with a margin of {margins[at]}"


@pytest.mark.parametrize("name", MAKERS)
def test_a_page_and_a_question_are_answered_as_hugging_face_does(tmp_path: Path, name: str) -> None:
    """Reference and bundle, with the family's own prompt; then with an int8 cache."""
    path = MAKERS[name](tmp_path / "checkpoint", layout="hf_next")
    model = transformers.LlavaNextForConditionalGeneration.from_pretrained(
        path, dtype=torch.float32
    ).eval()
    source = Checkpoint(path)
    spec, tensor, page = source.spec, source.tensor, cases.page(*SIZE, seed=3)
    pixels = reference.pixels(page, spec)
    tokens = reference.merge_features(
        reference.vision_features(pixels, spec, tensor), SIZE, spec, tensor("image_newline")
    )
    prompt = PromptBuilder.of(spec, path / source.tokenizer).first_turn("What is the heart rate?")
    embeds = reference.splice(prompt, tokens, tensor)
    rows = [part for token in prompt for part in ([token] * (len(tokens) if token == IMAGE else 1))]
    ids = torch.tensor([[tiny.VOCAB if token == IMAGE else token for token in rows]])
    arguments: dict[str, Any] = {
        "pixel_values": torch.tensor(pixels)[None],
        "attention_mask": torch.ones_like(ids),
        "image_sizes": torch.tensor([[SIZE[1], SIZE[0]]]),
    }
    with torch.inference_mode():
        expected = model(input_ids=ids, **arguments).logits[0].numpy()
        generated = model.generate(
            input_ids=ids,
            **arguments,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            eos_token_id=None,
            pad_token_id=0,
        )[0, ids.shape[1] :].tolist()
    assert relative(reference.logits(embeds, spec, tensor), expected) < TOLERANCE
    judge = reference.greedy(embeds, spec, tensor, NEW_TOKENS, stop=False)
    check_equal(judge.tokens, generated, judge.margins)

    export(path, tmp_path / "bundle", precision="fp32")
    engine = open_engine(open_bundle(tmp_path / "bundle"), EngineOptions(threads=1))
    ours = merge(engine.encode(images.preprocess(page, spec)), SIZE, spec, tensor("image_newline"))
    mine = reference.splice(prompt, ours, tensor)
    check_equal(chosen(engine, mine, tensor("embed_tokens.weight")), generated, judge.margins)
    export(path, tmp_path / "small", precision="fp32", cache="int8")
    small = open_engine(open_bundle(tmp_path / "small"), EngineOptions(threads=1))
    assert relative_norm(small.step(mine.astype(np.float32)), expected) < CACHE_COST


TABLES: list[tuple[dict[str, Any], float, int]] = [
    ({"rope_type": "linear", "factor": factor}, theta, size)
    for factor, theta, size in ((2.0, 1e4, 128), (4.0, 1e6, 64), (1.5, 5e5, 16), (8.0, 1e4, 96))
] + [
    (families.LLAMA3 | fields, theta, size)
    for fields, theta, size in (
        ({"original_max_position_embeddings": 8192}, 5e5, 128),
        ({"original_max_position_embeddings": 8192, "factor": 32.0}, 5e5, 64),
        ({"original_max_position_embeddings": 4096, "low_freq_factor": 2.0}, 1e4, 128),
        ({"original_max_position_embeddings": 256, "high_freq_factor": 16.0}, 1e6, 96),
    )
]


@pytest.mark.parametrize(("scaling", "theta", "size"), TABLES, ids=str)
def test_rope_tables_are_hugging_faces(
    tmp_path: Path, scaling: dict[str, Any], theta: float, size: int
) -> None:
    """Cosines and sines to float32's rounding: numpy and torch round powers apart, by one digit."""
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding
    path = tiny.make_checkpoint(tmp_path / "checkpoint", hidden=4 * size, context=2048, layers=1)
    families.change_decoder(path, "Llama", rope_scaling=scaling, rope_theta=theta)
    text = Checkpoint(path).spec.text
    fields = json.loads((path / "config.json").read_text())
    config = transformers.LlamaConfig(
        hidden_size=fields["hidden_size"],
        num_attention_heads=fields["num_attention_heads"],
        max_position_embeddings=2048,
        rope_parameters=scaling | {"rope_theta": theta},
    )
    cos, sin = rotary(config)(torch.zeros(1), torch.arange(2048)[None])
    for got, expected in zip(rope_tables(text), (cos, sin), strict=True):
        half = expected[0, :, : size // 2].numpy()
        np.testing.assert_allclose(got, half, rtol=0, atol=2048 * 1.2e-7)
    # The sine at position 1 is the frequency itself, down to the lowest.
    np.testing.assert_allclose(rope_tables(text)[1][1], sin[0, 1, : size // 2], rtol=1e-6)
