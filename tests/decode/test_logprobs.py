"""Log-probabilities of tokens: the numbers, and where the decode loop reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pulse_edge
from pulse_edge.arrays import Floats, Numbers
from pulse_edge.decode.logprobs import IMPOSSIBLE, Logprobs, TokenLogprob, log_softmax
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.sampler import Sampler
from pulse_edge.params import GenerationParams

from support.counting import EOS, LETTERS, Run
from support.paths import DOCS
from support.requests import Q1, page
from support.tokens import BYTE, TOKENS

VOCAB = 26
PROMPT = [20, 21, 22]


def naive(logits: Sequence[float]) -> list[float]:
    most = max(logits)
    total = math.fsum(math.exp(x - most) for x in logits)
    return [x - most - math.log(total) for x in logits]


def noise(cache: Sequence[int]) -> Floats:
    """Logits that depend on the last two tokens; the end is unlikely at first."""
    rng = np.random.default_rng([7, *cache[-2:], len(cache) // 9])
    logits = rng.normal(0, 2, VOCAB).astype(np.float32)
    logits[EOS] -= 9 - 0.3 * len(cache)
    return logits


# ---- the numbers ---------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=1, max_size=26), st.integers(0, 20), st.data())
def test_they_are_the_textbook_s(values: list[int], count: int, data: st.DataObject) -> None:
    logits = np.array(values, np.float32) / 4
    token = data.draw(st.integers(0, len(values) - 1))
    record = Logprobs(count, LETTERS)(logits, token)
    expected = naive([x / 4 for x in values])
    assert record.token == token
    assert record.logprob == pytest.approx(expected[token], abs=1e-9)
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    assert [top.token for top in record.top] == order
    assert [top.logprob for top in record.top] == pytest.approx([expected[i] for i in order])


@pytest.mark.parametrize("largest", [0.0, 1e4, -1e4, 3e38, -3e38])
def test_large_logits_do_not_overflow(largest: float) -> None:
    with np.errstate(all="raise", under="ignore"):
        values = log_softmax(np.array([[largest, -np.inf, largest]], np.float32))
    assert values[0].tolist() == pytest.approx([-math.log(2), IMPOSSIBLE, -math.log(2)])


def test_an_impossible_token_has_a_number_that_json_knows() -> None:
    record = Logprobs(2, LETTERS)(np.array([-np.inf, 3], np.float32), 0)
    assert (record.logprob, record.top[1].logprob) == (IMPOSSIBLE, IMPOSSIBLE)
    json.dumps(record.logprob, allow_nan=False)


@pytest.mark.parametrize(
    ("token", "text", "raw"),
    [
        (TOKENS.encode("a")[0], TOKENS.piece(TOKENS.encode("a")[0]).replace("\u2581", " "), None),
        (BYTE + 0x41, "A", b"A"),
        (BYTE + 0xE5, "\ufffd", b"\xe5"),
        (BYTE, "\0", b"\0"),
        (EOS, "", b""),
        (10**6, "", b""),  # a row of the head that pads the vocabulary
    ],
)
def test_a_token_as_text_and_as_bytes(token: int, text: str, raw: bytes | None) -> None:
    logits = np.zeros(token + 1 if token < 10**6 else 8, np.float32)
    row = min(token, len(logits) - 1)
    tokenizer = cast(Any, SimpleNamespace(piece_bytes=lambda _: TOKENS.piece_bytes(token)))
    record = Logprobs(1, tokenizer)(logits, row)
    assert record.text == text
    assert bytes(record.bytes) == (text.encode() if raw is None else raw)
    assert (record.top[0].text, record.top[0].bytes) == (record.text, record.bytes)


def test_bytes_of_one_character_join_to_it() -> None:
    reader = Logprobs(0, TOKENS)
    logits = np.zeros(TOKENS.size, np.float32)
    pieces = [reader(logits, BYTE + byte) for byte in "窦".encode()]
    assert "".join(piece.text for piece in pieces) == "\ufffd" * 3
    assert b"".join(bytes(piece.bytes) for piece in pieces).decode() == "窦"


# ---- the loop ------------------------------------------------------------------------------------


def run(count: int | None, ngrams: Ngrams | None = None, **params: Any) -> Run:
    options = GenerationParams(logprobs=count, **params)
    sampler = Sampler(options, None, Logprobs.of(count, LETTERS))
    return Run(noise, PROMPT, ngrams, options, row_cost=0.001, sampler=sampler).drain()


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"max_new_tokens": 1},
        {"max_new_tokens": 7},
        {"temperature": 1.3, "seed": 4},
        {"temperature": 0.6, "top_k": 3},
        {"temperature": 2.0, "top_p": 0.5, "seed": 9},
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.7, "temperature": 0.9},
        {"stop": ("a", "k")},
    ],
)
@pytest.mark.parametrize("speculate", [False, True])
def test_each_token_has_one_of_the_model_s_own_distribution(
    params: dict[str, Any], speculate: bool
) -> None:
    """Before penalty, temperature, top-k and top-p; the tokens are those without it."""
    ngrams = None
    if speculate:
        ngrams = Ngrams()
        ngrams.begin([*PROMPT, *run(None, **params).out.tokens])
        ngrams.record.saved = 2.0
    plain = run(None, **params)
    answer = run(3, ngrams, **params)
    assert answer.answer == plain.answer
    assert plain.out.logprobs == []
    tokens = answer.out.tokens
    assert [record.token for record in answer.out.logprobs] == tokens
    for at, record in enumerate(answer.out.logprobs):
        expected = naive(noise(PROMPT + tokens[:at]).tolist())
        assert record.logprob == pytest.approx(expected[tokens[at]], abs=1e-6)
        assert [top.logprob for top in record.top] == pytest.approx(sorted(expected)[:-4:-1])


@pytest.mark.parametrize("count", [None, 0, 5])
def test_greedy_decoding_fetches_logits_only_for_them(count: int | None) -> None:
    """What stays off costs nothing: an engine on a GPU keeps its logits there."""
    options = GenerationParams(logprobs=count, max_new_tokens=5)
    sampler = Sampler(options, None, Logprobs.of(count, LETTERS))
    answer = Run(noise, PROMPT, None, options, sampler=sampler)
    chosen: list[int] = []
    choose = answer.engine.choose

    def watched(rows: Numbers) -> Numbers:
        chosen.append(len(rows))
        return choose(rows)

    answer.engine.choose = watched  # type: ignore[method-assign]
    answer.drain()
    assert len(chosen) == (4 if count is None else 0)
    assert len(answer.out.logprobs) == (0 if count is None else 5)


def test_they_come_no_later_than_their_piece_of_text() -> None:
    options = GenerationParams(logprobs=0, max_new_tokens=6)
    answer = Run(noise, PROMPT, None, options, sampler=Sampler(options, None, Logprobs(0, LETTERS)))
    for piece in answer.pieces:
        read = "".join(record.text for record in answer.out.logprobs)
        assert read.endswith(piece)


# ---- a model's answers ---------------------------------------------------------------------------

SCHEMA = json.loads((DOCS / "answer.schema.json").read_text("utf-8"))


@pytest.mark.parametrize("count", [0, 1, 20])
def test_an_answer_has_them_as_json(model: pulse_edge.Model, count: int) -> None:
    plain = model.ask(page(), Q1, max_new_tokens=12)
    answer = model.ask(page(), Q1, max_new_tokens=12, logprobs=count)
    assert plain.logprobs is None
    assert answer.logprobs is not None
    assert answer.token_ids == plain.token_ids == tuple(r.token for r in answer.logprobs)
    raw = b"".join(bytes(record.bytes) for record in answer.logprobs)
    assert raw.decode(errors="replace").strip() == answer.text
    for record in answer.logprobs:
        assert len(record.top) == count
        assert [top.token for top in record.top[:1]] == [record.token][:count]  # greedy
    for each in (plain, answer):
        whole = json.loads(json.dumps(each.to_dict(), allow_nan=False))
        jsonschema.validate(whole["logprobs"], SCHEMA["properties"]["logprobs"] | defs())


def defs() -> dict[str, Any]:
    return {"$defs": SCHEMA["$defs"]}


def test_an_answer_without_tokens_has_an_empty_list(bundle: Path) -> None:
    model = pulse_edge.load(bundle, threads=1)
    stream = model.stream(page(), Q1, logprobs=2)
    next(iter(stream), None)
    stream.close()
    assert isinstance(stream.answer.logprobs, tuple)


def test_a_stream_hands_them_over_while_it_runs(model: pulse_edge.Model) -> None:
    stream = model.stream(page(), Q1, max_new_tokens=12, logprobs=1)
    received: list[TokenLogprob] = []
    text = ""
    for piece in stream:
        text += piece
        received += stream.logprobs(len(received))
        raw = b"".join(bytes(record.bytes) for record in received)
        assert raw.decode(errors="replace").strip().startswith(text.rstrip("\ufffd"))
    received += stream.logprobs(len(received))
    assert tuple(received) == stream.answer.logprobs
    assert model.stream(page(), Q1, max_new_tokens=2).logprobs() == []
