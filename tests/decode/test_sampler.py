"""Parameters and the choice of a token, against a plain transcription of Hugging Face's logits
processors.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pulse_edge.decode.sampler import Sampler
from pulse_edge.errors import EngineError
from pulse_edge.params import GenerationParams


def distribution(
    logits: np.ndarray,
    seen: list[int],
    temperature: float,
    top_k: int,
    top_p: float,
    penalty: float,
) -> dict[int, float]:
    """Token -> probability, one plain loop per step of transformers 4.37.2 (RepetitionPenalty,
    Temperature, TopK, TopP; the last in its own direction: from the least likely, drop while the
    mass is at most 1 - top_p).
    """
    scores = {i: float(x) for i, x in enumerate(logits)}
    for token in set(seen):
        scores[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
    scores = {i: x / temperature for i, x in scores.items()}
    if top_k:
        kept = sorted(scores, key=lambda i: -scores[i])[:top_k]
        scores = {i: scores[i] for i in kept}
    total = math.fsum(math.exp(x) for x in scores.values())
    mass, dropped = 0.0, []
    for token in sorted(scores, key=lambda i: scores[i])[:-1]:  # one is always kept
        mass += math.exp(scores[token]) / total
        if mass <= 1 - top_p:
            dropped.append(token)
    scores = {i: x for i, x in scores.items() if i not in dropped}
    total = math.fsum(math.exp(x) for x in scores.values())
    return {i: math.exp(x) / total for i, x in scores.items()}


def draws(logits: np.ndarray, seen: list[int], count: int, **params: Any) -> np.ndarray:
    """How often each token was chosen as the next one after `seen`, by samplers of many seeds."""
    counts = np.zeros(len(logits), int)
    for seed in range(count):
        sampler = Sampler(GenerationParams(**params, seed=seed))
        for token in seen:
            certain = np.zeros_like(logits)
            certain[token] = 1e6
            assert sampler(certain) == token
        counts[sampler(logits)] += 1
    return counts


LOGITS = np.array([1.5, -0.5, 0.3, 2.0, -3.0, 0.9, -1.2, 1.1], np.float32)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "penalty"),
    [
        (1.0, 0, 1.0, 1.0),
        (0.5, 0, 1.0, 1.0),
        (3.0, 0, 1.0, 1.0),
        (1.0, 3, 1.0, 1.0),
        (1.0, 100, 1.0, 1.0),
        (1.0, 0, 0.8, 1.0),
        (0.7, 5, 0.9, 1.0),  # top-p of what top-k left, after the temperature
        (1.0, 0, 1.0, 1.8),
        (1.3, 4, 0.7, 1.4),  # the penalty reorders what top-k sees
        (2.0, 6, 0.85, 0.5),
    ],
)
def test_draws_follow_hugging_faces_distribution(
    temperature: float, top_k: int, top_p: float, penalty: float
) -> None:
    seen = [3, 4, 7]
    params: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    expected = distribution(LOGITS, seen, penalty=penalty, **params)
    count = 4000
    counts = draws(LOGITS, seen, count, repetition_penalty=penalty, **params)
    drawn = set(np.flatnonzero(counts))
    assert {i for i, p in expected.items() if p * count > 10} <= drawn <= expected.keys()
    chi_square = sum((counts[i] - p * count) ** 2 / (p * count) for i, p in expected.items())
    degrees = len(expected) - 1
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees) + 1e-9


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-30, 30), min_size=1, max_size=12, unique=True),
    st.floats(0.1, 5),
    st.integers(0, 14),
    st.floats(0.01, 1),
    st.floats(0.2, 5),
)
@example([4, 0, 1, 20, 2], 1.0, 0, 0.25, 0.2)  # 1 / 0.2 is as large as 5, in float32
def test_only_tokens_that_hugging_face_keeps(
    values: list[int], temperature: float, top_k: int, top_p: float, penalty: float
) -> None:
    logits, seen = np.array(values, np.float32) / 4, [0, len(values) - 1]
    params: dict[str, Any] = {"temperature": temperature, "top_k": top_k}
    # Sums and penalties are rounded differently. What is kept at a slightly larger top_p may be
    # kept, and in the place
    # of a token another one that is as likely: [5, 1 / 0.2] is a tie in float32, and not in
    # float64.
    kept = distribution(logits, seen, top_p=min(top_p + 1e-9, 1), penalty=penalty, **params)
    every = distribution(logits, seen, top_p=1.0, penalty=penalty, temperature=temperature, top_k=0)
    legal = {
        i for i, p in every.items() if any(math.isclose(p, every[k], rel_tol=1e-5) for k in kept)
    }
    counts = draws(logits, seen, 20, top_p=top_p, repetition_penalty=penalty, **params)
    assert set(np.flatnonzero(counts)) <= legal


def test_greedy_takes_the_first_of_the_best() -> None:
    assert Sampler(GenerationParams())(np.array([0, 3, 1, 3], np.float32)) == 1


@pytest.mark.parametrize(
    ("logits", "chosen"), [([2, 1.5, 0], [0, 1, 0, 0]), ([-1, -1.5, -9], [0, 1, 0, 0])]
)
def test_greedy_with_a_penalty(logits: list[float], chosen: list[int]) -> None:
    """Seen tokens are penalised once, however often they were seen, and the logits are left as they
    were.
    """
    sampler, array = Sampler(GenerationParams(repetition_penalty=1.6)), np.array(logits, np.float32)
    assert [sampler(array) for _ in chosen] == chosen
    assert array.tolist() == logits


def test_small_temperatures_approach_greedy() -> None:
    for temperature in (1e-3, 1e-30, 5e-324):
        assert draws(LOGITS, [], 20, temperature=temperature)[3] == 20


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([3e38, -3e38, 3e38, -np.inf], np.float32)
    counts = draws(logits, [], 100, temperature=0.01)
    assert counts[[0, 2]].min() > 20
    assert counts.sum() == counts[[0, 2]].sum()


def test_a_small_top_p_keeps_the_best() -> None:
    assert draws(LOGITS, [], 30, temperature=5.0, top_p=1e-12)[3] == 30


def test_seeds() -> None:
    def sequence(seed: int) -> list[int]:
        sampler = Sampler(GenerationParams(temperature=2.0, seed=seed))
        return [sampler(LOGITS) for _ in range(40)]

    assert sequence(5) == sequence(5)
    assert len({tuple(sequence(seed)) for seed in (0, 1, 2, 10**30)}) == 4


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_an_error_and_no_token(
    bad: float, temperature: float
) -> None:
    logits = LOGITS.copy()
    logits[2] = bad
    with pytest.raises(EngineError, match="not finite"):
        Sampler(GenerationParams(temperature=temperature))(logits)


@pytest.mark.parametrize(("penalty", "expected"), [(2.0, 1), (1.9, 0), (1.0, 0), (0.5, 0)])
def test_a_penalty_counts_from_the_second_token(penalty: float, expected: int) -> None:
    """4.0 / 2 is below 2.05; 4.0 / 1.9 is not."""
    sampler = Sampler(GenerationParams(repetition_penalty=penalty))
    logits = np.array([4.0, 2.05, 0.0], np.float32)
    assert [sampler(logits), sampler(logits)] == [0, expected]
