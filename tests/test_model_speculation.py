"""Speculation on real tiny models: answers, chats and cache are those of plain decoding."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import pulse_edge
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.decode import verifier
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.sampler import Sampler
from pulse_edge.delivery import Delivery
from pulse_edge.engines.onnxruntime_providers import PROVIDERS
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine

from support.fixture_types import Bundles
from support.paths import DOCS
from support.requests import Q1, Q2, fresh, page, usable

SCHEMA = json.loads((DOCS / "answer.schema.json").read_text())
SAMPLED = {"temperature": 1.0, "top_p": 0.9, "seed": 5, "repetition_penalty": 1.05}
HIDDEN = 64


@pytest.fixture(autouse=True)
def cheap_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, so that drafts are long from the beginning."""
    monkeypatch.setitem(
        PROVIDERS,
        "cpu",
        dataclasses.replace(PROVIDERS["cpu"], row_cost=0.03),
    )


def tidy(model: pulse_edge.Model, answer: pulse_edge.Answer) -> bool:
    """The cache holds the prompt and the answer, without or with its last token."""
    known = answer.usage.prompt_tokens + answer.usage.new_tokens
    return model.engine.length in (known - 1, known)


# --- the same answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_answers_are_those_of_plain_decoding(bundle: Path, params: dict[str, Any]) -> None:
    model = pulse_edge.load(bundle, threads=1)
    drafted = accepted = 0
    for image, question in [(page(i), q) for i in (0, 1, 0) for q in (Q1, Q2, Q1)] + [
        (None, Q1)
    ] * 2:
        plain = fresh(bundle, image, question, max_new_tokens=60, **params)
        fast = model.ask(image, question, max_new_tokens=60, speculate=True, **params)
        assert (fast.token_ids, fast.text, fast.finish_reason) == (
            plain.token_ids,
            plain.text,
            plain.finish_reason,
        )
        assert len(fast.timings.decode_steps) == 59 - fast.usage.accepted_tokens
        assert tidy(model, fast)
        drafted, accepted = (
            drafted + fast.usage.drafted_tokens,
            accepted + fast.usage.accepted_tokens,
        )
    assert 200 < accepted < drafted
    assert fast.usage.accepted_tokens > 40  # the same question for the second time
    assert (plain.usage.drafted_tokens, plain.usage.accepted_tokens) == (0, 0)
    jsonschema.validate(json.loads(json.dumps(fast.to_dict())), SCHEMA)
    assert usable(model, bundle)


def rows(bundle: Path, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of 17 positions: as 17 steps, as one, and as one whose rows after the first are other
    ones.
    """
    engine = open_engine(open_bundle(bundle), EngineOptions(threads=1))
    x = np.random.default_rng(seed).normal(size=(57, HIDDEN)).astype(np.float32)
    engine.prefill(x[:40])
    single = np.concatenate([engine.step(row[None]).copy() for row in x[40:]])
    engine.rewind(40)
    together = engine.step(x[40:]).copy()
    engine.rewind(40)
    x[41:] *= 30
    return single, together, engine.step(x[40:]).copy()


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-5), ("int8", 0.03), ("int4", 0.03)]
)
def test_verified_rows_are_single_steps_but_for_rounding(
    bundles: Bundles, precision: str, tolerance: float
) -> None:
    """With int8 activations a sum's last bit may move an activation to the next of its
    255 levels.
    """
    for seed in range(3):
        single, together, other = rows(bundles(precision), seed)
        assert np.abs(single - together).max() <= tolerance * np.abs(single).max()
        assert np.array_equal(
            together[0], other[0]
        )  # what is drafted does not reach the rows before it
        assert not np.array_equal(together[1], other[1])


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_answers_differ_only_at_ties(
    bundles: Bundles, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    margins: list[float] = []  # of each plain token: best less second, of the best

    class Watching(Sampler):
        def __call__(self, logits: np.ndarray) -> int:
            second, best = np.sort(logits)[-2:]
            margins.append(float((best - second) / np.abs(logits).max()))
            return super().__call__(logits)

    bundle = bundles(precision)
    model, accepted, same = pulse_edge.load(bundle, threads=1), 0, 0
    for seed in range(4):
        for question in (Q1, Q2, Q1):
            with monkeypatch.context() as patch:
                patch.setattr(verifier, "Sampler", Watching)
                margins.clear()
                plain = fresh(bundle, page(seed), question, max_new_tokens=60).token_ids
            fast = model.ask(page(seed), question, max_new_tokens=60, speculate=True)
            accepted += fast.usage.accepted_tokens
            at = next(
                (
                    i
                    for i, pair in enumerate(zip(plain, fast.token_ids, strict=True))
                    if len({*pair}) == 2
                ),
                None,
            )
            assert at is None or margins[at] < 0.03
            same += at is None
    assert accepted > 200
    assert same >= 8


def test_stop_strings_across_the_borders_of_drafts(bundle: Path) -> None:
    model = pulse_edge.load(bundle, threads=1)
    whole = model.ask(page(), Q1, max_new_tokens=40, speculate=True)
    for start, length in [(s, n) for s in range(0, len(whole.text) - 8, 7) for n in (1, 3, 8)]:
        stop = whole.text[start : start + length]
        if not stop.strip():
            continue
        answer = model.ask(page(), Q1, max_new_tokens=40, stop=["never", stop], speculate=True)
        assert (answer.finish_reason, answer.text) == (
            "stop",
            whole.text[: whole.text.index(stop)].strip(),
        )
        assert tidy(model, answer)
    assert usable(model, bundle)


@pytest.mark.parametrize("room", [1, 2, 3, 9, 30])
def test_the_end_of_the_context(bundle: Path, room: int) -> None:
    known = fresh(bundle, page(), Q1)
    model = pulse_edge.load(bundle, threads=1, context=known.usage.prompt_tokens + room)
    for _ in range(3):
        answer = model.ask(page(), Q1, speculate=True)
        assert (answer.finish_reason, answer.token_ids) == ("context", known.token_ids[: room + 1])
        assert tidy(model, answer)
    assert answer.usage.accepted_tokens >= min(room - 3, 20)


def test_the_end_token(bundle: Path) -> None:
    """As test_model's, by another end token: one that the answer is known to have further on."""
    known = fresh(bundle, page(), Q1).token_ids
    at = next(i for i, token in enumerate(known) if i >= 20 and token not in known[:i])
    opened = open_bundle(bundle)
    spec = opened.manifest.model
    ending = dataclasses.replace(spec, text=dataclasses.replace(spec.text, eos=(known[at],)))
    opened = Bundle(opened.path, dataclasses.replace(opened.manifest, model=ending))
    model = pulse_edge.Model(opened, open_engine(opened, EngineOptions(threads=1)))
    for _ in range(3):
        answer = model.ask(page(), Q1, speculate=True)
        assert (answer.finish_reason, answer.token_ids) == ("eos", known[:at])
        assert tidy(model, answer)
    assert len(answer.timings.decode_steps) < at / 2


# --- what it leaves behind ------------------------------------------------------------------------


def test_cancelling_in_the_middle_of_an_accepted_run(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many pieces as the worker hands over, when it may be far ahead of the
    sampled token.
    """
    model = pulse_edge.load(bundle, threads=1)
    whole = model.ask(page(), Q1, max_new_tokens=60, speculate=True)
    put = Delivery.put
    ahead = 0
    for count in range(1, 40, 2):
        pieces: list[str] = []

        def put_and_cancel(
            delivery: Delivery, piece: str, pieces: list[str] = pieces, count: int = count
        ) -> None:
            nonlocal ahead
            put(delivery, piece)
            pieces.append(piece)
            if len(pieces) == count:
                known = whole.usage.prompt_tokens + len(delivery.out.tokens)
                ahead += model.engine.length > known
                delivery.cancel()

        with monkeypatch.context() as patch:
            patch.setattr(Delivery, "put", put_and_cancel)
            answer = model.stream(page(), Q1, max_new_tokens=60, speculate=True).answer
        assert answer.finish_reason == "cancelled"
        assert answer.text == "".join(pieces)
        assert answer.token_ids == whole.token_ids[: len(answer.token_ids)]
        assert tidy(model, answer)
        known = whole.usage.prompt_tokens + len(answer.token_ids)
        assert model.engine.length in (known - 1, known)
        again = model.ask(
            page(), Q1, max_new_tokens=60
        )  # from what the cancelled one left in the cache
        assert again.token_ids == whole.token_ids
    assert ahead > 5
    assert usable(model, bundle)


def turns(model: pulse_edge.Model, speculate: bool) -> Iterator[pulse_edge.Answer]:
    chat = model.chat(page())
    for question in (Q1, Q2, Q1, Q2):
        yield chat.ask(question, max_new_tokens=25, speculate=speculate)


def test_chats(bundle: Path) -> None:
    """The whole conversation stays in the cache, as without; the turn before is drafted from."""
    model = pulse_edge.load(bundle, threads=1)
    list(turns(model, True))
    model.ask(None, Q2, max_new_tokens=1)  # the cache forgets the conversation
    accepted = before = 0
    for plain, fast in zip(
        turns(pulse_edge.load(bundle, threads=1), False), turns(model, True), strict=True
    ):
        assert fast.token_ids == plain.token_ids
        assert fast.provenance["prompt"] == plain.provenance["prompt"]
        assert fast.usage.cached_tokens in (before + 24, before + 25) if before else True
        before, accepted = fast.usage.prompt_tokens, accepted + fast.usage.accepted_tokens
        assert tidy(model, fast)
    assert accepted > 60


def test_what_is_remembered(bundle: Path) -> None:
    """Answers of requests that ask for it; `forget` forgets them."""
    model = pulse_edge.load(bundle, threads=1)
    model.ask(page(), Q1, max_new_tokens=40)
    first = model.ask(page(), Q1, max_new_tokens=40, speculate=True)
    again = model.ask(page(), Q1, max_new_tokens=40, speculate=True)
    assert again.usage.accepted_tokens > first.usage.accepted_tokens + 20
    model.forget()
    cold = model.ask(page(), Q1, max_new_tokens=40, speculate=True)
    drafts = [(a.usage.drafted_tokens, a.usage.accepted_tokens) for a in (first, cold)]
    assert drafts[0] == drafts[1]


def test_prompts_are_drafted_from_too(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[int]] = []
    monkeypatch.setattr(Ngrams, "begin", lambda _, prompt: begun.append(list(prompt)))
    model.ask(page(), Q1, max_new_tokens=2)
    assert begun == []
    usage = model.ask(page(), Q1, max_new_tokens=2, speculate=True).usage
    (keys,) = begun
    assert (len(keys), sum(key < 0 for key in keys)) == (usage.prompt_tokens, usage.image_tokens)
