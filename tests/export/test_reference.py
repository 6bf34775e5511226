"""The numpy reference against naive formulas, and against itself by another way."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_export import reference
from pulse_export.checkpoint import Checkpoint

from support import tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tiny.make_checkpoint(
        tmp_path_factory.mktemp("checkpoint"), kv_heads=2, merge="spatial_unpad"
    )
    return Checkpoint(path)


def embeddings(checkpoint: Checkpoint, count: int, dtype: type = np.float32) -> reference.Array:
    rng = np.random.default_rng(1)
    return rng.normal(0, 1, (count, checkpoint.spec.text.hidden)).astype(dtype)


def test_erf_is_exact_and_keeps_shape_and_type() -> None:
    x = np.linspace(-6, 6, 1200).reshape(3, -1)
    assert np.abs(reference.erf(x) - np.vectorize(math.erf)(x)).max() == 0
    assert reference.erf(x[:, ::2].astype(np.float32)).dtype == np.float32
    assert reference.gelu(np.array([1.0]))[0] == pytest.approx(0.8413447460685429, abs=1e-15)


def test_sigmoid_does_not_overflow() -> None:
    x = np.array([-1e4, -88, 0, 88, 1e4], np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert reference.sigmoid(x).tolist() == [0, pytest.approx(math.exp(-88)), 0.5, 1, 1]


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_the_textbook_formula(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(5, 4, 8)), rng.normal(size=(9, 2, 8)), rng.normal(size=(9, 2, 8))
    expected = np.zeros((5, 4, 8))
    for row in range(5):
        last = 4 + row if causal else 8
        for head in range(4):
            weight = np.array(
                [math.exp(q[row, head] @ k[j, head // 2] / math.sqrt(8)) for j in range(last + 1)]
            )
            expected[row, head] = weight @ v[: last + 1, head // 2] / weight.sum()
    for block in (256, 2):
        monkeypatch.setattr(reference, "ROW_BLOCK", block)
        got = reference.dense_attention(q, k, v, causal)
        np.testing.assert_allclose(got, expected.reshape(5, -1), rtol=1e-12)


def test_rotation_depends_on_distance_only_and_pairs_halves() -> None:
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(1, 1, 16)), rng.normal(size=(1, 1, 16))

    def score(at: int, to: int) -> float:
        turned = [
            reference.rotate(x, np.array([p]), 10000.0).ravel() for x, p in ((q, at), (k, to))
        ]
        return float(turned[0] @ turned[1])

    assert score(7, 3) == pytest.approx(score(104, 100), rel=1e-12)
    unit = np.zeros((1, 1, 16))
    unit[..., 1] = 1
    turned = reference.rotate(unit, np.array([5]), 10000.0).ravel()
    angle = 5 * 10000.0 ** (-2 / 16)
    assert (turned[1], turned[9]) == (
        pytest.approx(math.cos(angle)),
        pytest.approx(math.sin(angle)),
    )


def test_cache_and_row_blocks_change_nothing(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeds = embeddings(checkpoint, 40, np.float64)
    whole = reference.logits(embeds, checkpoint.spec, checkpoint.tensor)
    cache = reference.Cache()
    monkeypatch.setattr(reference, "ROW_BLOCK", 7)
    parts = [embeds[:25], embeds[25:39], embeds[39:]]
    pieces = [reference.logits(p, checkpoint.spec, checkpoint.tensor, cache=cache) for p in parts]
    assert cache.length == 40
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-12)


def test_greedy_is_the_argmax_of_everything_recomputed(checkpoint: Checkpoint) -> None:
    embeds = embeddings(checkpoint, 12)
    chosen = reference.greedy(embeds, checkpoint.spec, checkpoint.tensor, 8, stop=False)
    for token, margin in zip(chosen.tokens, chosen.margins, strict=True):
        row = reference.logits(embeds, checkpoint.spec, checkpoint.tensor, rows=[-1])[0]
        best = np.sort(row)[::-1]
        assert token == row.argmax()
        assert margin == pytest.approx(best[0] - best[1], abs=1e-4)
        embeds = np.concatenate([embeds, checkpoint.tensor("embed_tokens.weight")[token][None]])


def test_float32_is_close_to_float64(checkpoint: Checkpoint) -> None:
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (90, 130, 3), np.uint8))
    pixels = reference.pixels(image, checkpoint.spec)
    single, double = (
        reference.vision_features(pixels.astype(t), checkpoint.spec, checkpoint.tensor)
        for t in (np.float32, np.float64)
    )
    assert [single.dtype.name, double.dtype.name] == ["float32", "float64"]
    assert np.abs(single - double).max() < 3e-6 * np.abs(double).max()


def test_one_tensor_is_held_at_a_time(checkpoint: Checkpoint) -> None:
    """A 7B checkpoint must go through: nothing may keep the weights that it was given."""
    import gc
    import weakref

    alive: list[weakref.ref[np.ndarray]] = []

    def tensor(name: str) -> reference.Array:
        array = np.array(checkpoint.tensor(name))
        alive.append(weakref.ref(array))
        gc.collect()
        assert sum(ref() is not None for ref in alive) <= 2, name
        return array

    reference.logits(embeddings(checkpoint, 3), checkpoint.spec, tensor, rows=[-1])
    reference.vision_features(np.zeros((1, 3, 56, 56), np.float32), checkpoint.spec, tensor)


def test_splice_puts_the_image_in_its_slot(checkpoint: Checkpoint) -> None:
    table = checkpoint.tensor("embed_tokens.weight")
    image = embeddings(checkpoint, 4)
    got = reference.splice([1, 5, -200, 7], image, checkpoint.tensor)
    np.testing.assert_array_equal(got, np.concatenate([table[[1, 5]], image, table[[7]]]))
    with pytest.raises(ValueError, match="slot"):
        reference.splice([1, -200], None, checkpoint.tensor)


def test_every_stored_layout_gives_the_same_numbers(tmp_path: Path) -> None:
    """The same seed written as LLaVA publishes it and as Hugging Face converts it is the same
    network.
    """
    llava = Checkpoint(tiny.make_checkpoint(tmp_path / "llava", merge="spatial_unpad", shards=2))
    others = [
        Checkpoint(tiny.make_checkpoint(tmp_path / names, layout="hf_next", names=names))
        for names in ("old", "new")
    ]
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (90, 130, 3), np.uint8))
    features = [
        reference.vision_features(reference.pixels(image, c.spec), c.spec, c.tensor)
        for c in (llava, *others)
    ]
    np.testing.assert_array_equal(features[0], features[1])
    np.testing.assert_array_equal(features[1], features[2])
