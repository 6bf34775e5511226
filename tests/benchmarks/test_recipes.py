"""benchmarks.recipes and what reads it: its arithmetic, its rows, and docs/precision.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("onnx", "1.19", reason="opset 24 is checked by onnx 1.19 and newer")

from benchmarks import accuracy, precision_page, recipe_cost, recipe_rows, recipes
from benchmarks.peers.ggml import GGML_ROWS, format_of, there_and_back, wants_more
from pulse_edge.text.template import IMAGE, PromptBuilder
from pulse_export import reference
from pulse_export.checkpoint import Checkpoint
from pulse_export.quantize.precision import PRECISIONS
from pulse_export.quantize.weights import quantize


def test_rows_of_a_tiny_checkpoint(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_rows, "find_spec", lambda _: None)
    command = [str(checkpoint), "--pages", "1", "--samples", "1", "--json"]
    command += ["--rows", "plain-32,gptq-32,q4_0"]
    done = CliRunner().invoke(recipes.main, command, catch_exceptions=False)
    record = json.loads(done.stdout)
    assert record["left_out"] == {"q4_0": "needs pip install gguf"}
    source = Checkpoint(checkpoint)
    matrices = [n for n in source.names if n.startswith("layers.") and n.endswith("_proj.weight")]
    size = sum(map(source.elements, matrices)) * 5 // 8
    assert {name: row["bytes"] for name, row in record["outcomes"].items()} == {
        "plain-32": size,
        "gptq-32": size,
    }
    assert 0 < record["outcomes"]["gptq-32"]["kl_mean"] < 1
    assert list(record["errors"]) == ["gptq-32"]
    assert {f"{name}.weight" for name in record["errors"]["gptq-32"]} == set(matrices)
    lines = recipes.table(record)
    assert lines[-1][0] == "q4_0: needs pip install gguf"
    assert len(recipes.layer_table(record)) == 1 + len(matrices)


def test_unknown_rows_are_refused(checkpoint: Path) -> None:
    done = CliRunner().invoke(recipes.main, [str(checkpoint), "--rows", "q3"])
    assert done.exit_code == 2
    assert "unknown row 'q3'" in done.stderr


def test_a_passage_is_read_where_its_answers_are_chosen(checkpoint: Path) -> None:
    """The row before each answer token, in the embeddings that the decoder reads."""
    source = Checkpoint(checkpoint)
    (text,) = recipes.passages(source, 1)
    table = source.tensor("embed_tokens.weight")
    assert len(text.rows) == len(text.tokens) > 3
    for row, token in zip(text.rows, text.tokens, strict=True):
        if row + 1 < len(text.embeds):
            np.testing.assert_allclose(text.embeds[row + 1], table[token], rtol=1e-6)
    template = PromptBuilder.of(source.spec, source.path / "tokenizer.model")
    assert IMAGE in template.first_turn("What is the rate?")


def test_the_loss_is_that_of_the_true_tokens() -> None:
    text = recipes.Passage(np.zeros((3, 2), np.float32), (0, 1), (1, 0))
    logits = [np.log(np.array([[0.25, 0.75], [0.5, 0.5]], np.float32))]
    assert recipes.loss(logits, [text]) == pytest.approx(-np.log(0.75 * 0.5) / 2)


def test_a_model_that_is_its_own_has_no_divergence(checkpoint: Path) -> None:
    source = Checkpoint(checkpoint)
    texts = recipes.passages(source, 1)
    expected = recipes.answer_logits(texts, source.spec, source.tensor)
    stored = recipe_rows.Stored({}, 7, 0.0)
    outcome = recipes.outcome(expected, texts, source, stored)
    assert (outcome.kl_mean, outcome.top1, outcome.bytes) == (0, 1, 7)
    np.testing.assert_allclose(
        expected[0][0],
        reference.logits(texts[0].embeds, source.spec, source.tensor, rows=texts[0].rows[:1])[0],
        rtol=1e-4,
        atol=1e-4,
    )


def test_formats_of_q4_k_m() -> None:
    """Of a model of 32 layers: the first and last four, and every third between."""
    row = GGML_ROWS["q4_k_m"]
    more = [i for i in range(32) if wants_more(f"layers.{i}.mlp.down_proj", 32)]
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert format_of(row, "layers.0.mlp.down_proj", 32, 11008) == "Q6_K"
    assert format_of(row, "layers.4.mlp.down_proj", 32, 11008) == "Q4_K"
    assert format_of(row, "layers.0.mlp.up_proj", 32, 4096) == "Q4_K"
    assert format_of(row, "layers.0.self_attn.q_proj", 5, 128) is None
    assert format_of(GGML_ROWS["q4_0"], "layers.0.self_attn.q_proj", 5, 128) == "Q4_0"


def test_q4_0_is_our_plain_rounding_with_float16_scales() -> None:
    pytest.importorskip("gguf", reason="llama.cpp's formats need pip install gguf")
    weight = np.random.default_rng(0).normal(0, 1, (16, 128)).astype(np.float32)
    back, size = there_and_back(weight, "Q4_0", None, None)
    assert size == weight.size * 18 // 32
    np.testing.assert_allclose(back, quantize(weight, 4, 32).dequantize(), atol=0.01)


def test_the_cost_of_the_whole_model_is_that_of_its_layers(checkpoint: Path) -> None:
    spec = Checkpoint(checkpoint).spec
    cost = recipe_cost.measure("rtn", spec, layers=1, tokens=8, block=32)
    assert (cost.layers, cost.tokens) == (1, 0)
    twice = recipe_cost.Cost("gptq", 2, 100, 2, 50.0, 120.0, 1 << 30)
    assert twice.minutes() == 120 / 2 / 2 * 32 / 60
    assert "32 layers on 2 cores 16 minutes" in str(twice)


def test_formats_of_accuracy_are_those_of_recipes(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(recipes, "main", lambda command, **_: seen.append(command))
    command = [str(checkpoint), "--formats", "--logit-pages", "3", "--samples", "2", "--json"]
    CliRunner().invoke(accuracy.main, command, catch_exceptions=False)
    assert seen == [[str(checkpoint), "--pages", "3", "--samples", "2", "--json"]]


# -- docs/precision.md


def test_the_page_is_generated() -> None:
    page = precision_page.PAGE.read_text("utf-8")
    assert precision_page.filled(page) == page, "run python -m benchmarks.precision_page"


def test_the_table_has_every_precision_and_recipe() -> None:
    lines = [" ".join(line) for line in precision_page.rows()]
    for name in PRECISIONS:
        assert any(f"--precision {name}" in line for line in lines)
    assert sum("--recipe auto" in line for line in lines) == 3


def test_sizes_are_those_of_the_weights() -> None:
    """32 layers of 202 million weights, a head of 131 million; fp16 is twice that in bytes."""
    half, step = precision_page.stored_gigabytes(precision_page.Choice("", "fp16"), "cuda")
    assert step == pytest.approx(2 * (32 * 202.4e6 + 131.1e6) / 1e9, rel=1e-3)
    assert half == pytest.approx(14.1, abs=0.1)
    four = precision_page.stored_gigabytes(precision_page.Choice("", "int4", 128), "cuda")[1]
    assert four == pytest.approx(32 * 0.2024 * (0.5 + 2 / 128) + 0.1311 * (1 + 2 / 128), rel=1e-3)
