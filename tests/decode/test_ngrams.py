"""Which tokens the memory of n-grams guesses."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulse_edge.decode.ngrams import FOLLOWERS, MEMORY, ORDERS, Ngrams
from pulse_edge.text.tokenizer import Tokenizer

from support import tiny


def fed(*requests: list[int]) -> Ngrams:
    ngrams = Ngrams()
    for request in requests:
        ngrams.begin(request)
    return ngrams


def found(ngrams: Ngrams, count: int) -> list[int]:
    return [guess.token for guess in itertools.islice(ngrams.guesses(), count)]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.integers(-1, 5), min_size=1, max_size=25), min_size=1, max_size=5),
    st.booleans(),
)
def test_guesses_are_those_of_a_plain_search(requests: list[list[int]], alike: bool) -> None:
    """Through all that was read: places compared token by token, longest first; tokens 4 and 5 are
    numbers.
    """
    numbers = {4, 5} if alike else set()
    ngrams = Ngrams(numbers)
    texts: list[list[int]] = []  # between gaps
    for request in requests:
        ngrams.begin(request)
        texts.append([])
        for token in request:
            if token >= 0:
                texts[-1].append(token)
            else:
                texts.append([])
    last = texts[-1]

    def keys(tokens: list[int]) -> list[int]:
        return [-9 if token in numbers else token for token in tokens]

    for guess in itertools.islice(ngrams.guesses(), 12):
        for n in ORDERS:
            seen = [
                text[i + n]
                for text in texts
                for i in range(len(text) - n)
                if keys(text[i : i + n]) == keys(last[-n:])
            ][-FOLLOWERS:]
            if n <= len(last) and seen:
                break
        assert guess.token in seen
        assert all(
            (seen.count(guess.token), seen[::-1].index(guess.token))
            >= (seen.count(other), -seen[::-1].index(other))
            for other in seen
        )
        assert guess.chance == (seen.count(guess.token) + 0.5) / (len(seen) + 1)
        last = [*last, guess.token]


def test_the_longest_place_and_its_most_frequent_and_latest_follower() -> None:
    text = [11, 12, 13, 14, 50, 51, 9, 13, 14, 60, 61]
    assert found(fed([*text, 13, 14]), 3) == [60, 61, 13]
    assert found(fed([*text, 13, 14, 50, 13, 14]), 2) == [50, 13]
    assert found(fed([*text, 11, 12, 13, 14]), 2) == [50, 51]
    assert next(fed([*text, 13, 14]).guesses()).chance == 1.5 / 3
    assert found(fed([*text, 77]), 3) == []


def test_earlier_requests_are_found_but_no_place_spans_two() -> None:
    assert found(fed([11, 12, 20], [11, 12]), 5) == [20]  # guesses end where the request does
    assert found(fed([11], [12, 20], [10, 11]), 5) == []
    assert found(fed([11, 12, 20], [13]), 5) == []


def test_numbers_are_alike() -> None:
    """What follows a number is found after another one; a number itself is guessed as it stood."""
    text = [11, 12, 70, 13, 14, 15, 80, 16]
    for numbers, expected in ((), []), ({70, 71}, [13, 14, 15, 80, 16]):
        ngrams = Ngrams(numbers)
        ngrams.begin(text)
        ngrams.begin([71])
        assert found(ngrams, 9) == expected


def test_numbers_of_a_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(tiny.tokenizer_model())
    tokenizer = Tokenizer(path, True)
    pieces = {tokenizer.piece_bytes(i).strip() for i in tokenizer.numbers}
    assert {b"0", b"1"} <= pieces
    assert all(piece.isdigit() for piece in pieces)


def test_images_never_match() -> None:
    image = [-7] * 40
    assert found(fed([11, 12, *image, 13, 14], [11, 12]), 5) == []
    assert found(fed([11, 12, 13, *image, 13, 14], [11, 12]), 5) == [13, 14]
    assert found(fed([12, *image, 13, 20], [12, *image, 13]), 5) == [20]
    assert found(fed([12, *image, 13, 20], [12, *image]), 5) == []


def test_token_0_is_a_token() -> None:
    """It separates nothing, other than a page."""
    ngrams = Ngrams()
    ngrams.begin([5, 0, 7])
    ngrams.begin([5])
    assert [guess.token for guess in ngrams.guesses()] == [0, 7]


def test_a_loop_goes_on() -> None:
    assert found(fed([3, 4, 5, 3, 4, 5, 3, 4]), 7) == [5, 3, 4, 5, 3, 4, 5]
    assert found(fed([3, 3, 3]), 4) == [3, 3, 3, 3]


def allocated(requests: list[list[int]]) -> int:
    """The most bytes that Python holds while a memory reads the requests."""
    tracemalloc.start()
    try:
        fed(*requests)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_and_holds_the_latest() -> None:
    rng = random.Random(0)
    requests = [[rng.randrange(1000) for _ in range(1000)] for _ in range(40)]
    full, all_of_them = allocated(requests[: MEMORY // 1000]), allocated(requests)
    assert all_of_them < 1.5 * full
    ngrams = fed(*requests)
    ngrams.begin([7777, 7778, 7779])
    ngrams.begin([rng.randrange(1000) for _ in range(1000)])
    ngrams.begin([7777, 7778])
    assert found(ngrams, 5) == [7779]
    ngrams.forget()
    ngrams.begin([7777, 7778])
    assert found(ngrams, 5) == []


# -- the limits, by their numbers


@pytest.mark.parametrize("length", [8, 4, 2])
def test_a_place_of_this_length_outweighs_shorter_ones(length: int) -> None:
    """It was followed by 60 once. The place without its first token was followed by 50 five times.
    With one token more before it, it was never seen."""
    place = list(range(1, 1 + length))
    often = [token for i in range(5) for token in (100 + i, *place[1:], 50)]
    assert found(fed([*often, 99, *place, 60, 98, *place]), 1) == [60]


@pytest.mark.parametrize("length", [3, 5, 7, 9])
def test_places_of_other_lengths_do_not_count(length: int) -> None:
    """The place was followed by 60 once, as a whole. A part of it, by 50 five times."""
    place = list(range(1, 1 + length))
    part = place[-max(n for n in (1, 2, 4, 8) if n < length) :]
    often = [token for i in range(5) for token in (100 + i, *part, 50)]
    assert found(fed([*often, 99, *place, 60, 98, *place]), 1) == [50]


def test_the_latest_eight_followers_are_remembered() -> None:
    (guess,) = itertools.islice(fed([1, 2] * 20 + [1]).guesses(), 1)
    assert (guess.token, guess.chance) == (2, 8.5 / 9)
    followers = [3] * 5 + [4] * 4 + [5] * 4  # the last eight are 4 and 5, four times each
    text = [token for i, follower in enumerate(followers) for token in (100 + i, 1, follower)]
    (guess,) = itertools.islice(fed([*text, 99, 1]).guesses(), 1)
    assert (guess.token, guess.chance) == (5, 4.5 / 9)


def numbered(count: int) -> list[int]:
    """Tokens that are all different, from 10."""
    return list(range(10, 10 + count))


def test_up_to_8192_tokens_are_remembered_whole() -> None:
    assert found(fed(numbered(8192), [10, 11]), 1) == [12]


@pytest.mark.parametrize("count", [8193, 10_000])
def test_of_more_the_latest_4096_are_remembered(count: int) -> None:
    tokens = numbered(count)
    kept = tokens[-4096:]
    assert found(fed(tokens, [10, 11]), 1) == []
    assert found(fed(tokens, kept[:2]), 1) == [kept[2]]
    assert found(fed(tokens, kept[2000:2002]), 1) == [kept[2002]]
    before = tokens[-4097]  # with the first that is kept
    assert found(fed(tokens, [before]), 1) == []
    assert found(fed(tokens, tokens[-2:]), 1) == []


def test_an_image_still_separates_after_memory_was_halved() -> None:
    tokens = [*numbered(8193), 1, 2, -7, 3, 4]
    assert found(fed(tokens, [1, 2]), 1) == []
    assert found(fed(tokens, [3]), 1) == [4]
