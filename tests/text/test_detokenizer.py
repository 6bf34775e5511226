"""Streamed text: nothing is taken back, and nothing waits without need."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pulse_edge.text.detokenizer import TextStream, before_stop
from pulse_edge.text.tokenizer import Tokenizer

from support.tokens import TEXT, TOKENS, byte_tokens, raw


def certain(data: bytes) -> str:
    """What of `data`'s text no further byte can change: what all ways to go on have in common."""
    if (
        data[-2:-1] == b"\xed" and b"\xa0" <= data[-1:] <= b"\xbf"
    ):  # Python refuses a surrogate at its last byte
        data = data[:-2]
    ways = [
        (data + more).decode(errors="replace") for more in (b"A", b"\x80\x80\x80", b"\xbf\xbf\xbf")
    ]
    return next(
        ways[0][:n]
        for n in range(len(ways[0]), -1, -1)
        if all(w.startswith(ways[0][:n]) for w in ways)
    )


def cut(text: str, stop: Sequence[str]) -> str | None:
    """`text` up to the earliest stop string, None where there is none."""
    found = [text.index(s) for s in stop if s in text]
    return text[: min(found)] if found else None


def whole(tokens: Sequence[int], stop: Sequence[str]) -> tuple[str, int | None]:
    """Final text, by decoding everything again after each token, and the number of tokens it took
    to stop.
    """
    for count in range(1, len(tokens) + 1):
        before = cut(certain(raw(tokens[:count])), stop)
        if before is not None:
            return before.strip(), count
    text = raw(tokens).decode(errors="replace")
    before = cut(text, stop)
    return (text if before is None else before).strip(), None


def streamed(tokens: Sequence[int], stop: Sequence[str]) -> tuple[list[str], int | None]:
    stream, pieces, stopped = TextStream(TOKENS, stop), [], None
    for count, token in enumerate(tokens, 1):
        pieces.append(stream.push(token))
        if stream.stopped:
            stopped = count
            break
    return [*pieces, stream.finish()], stopped


SPANS = st.one_of(
    st.lists(st.integers(0, TOKENS.size - 1), max_size=4),
    TEXT.map(TOKENS.encode),
    st.sampled_from(["é", "窦性", "🫀", " \n", "aab", "\u3000"]).map(
        lambda s: byte_tokens(s.encode())
    ),
    st.binary(max_size=4).map(byte_tokens),
    st.text("ab \n", max_size=8).map(lambda s: byte_tokens(s.encode())),
)
SEQUENCES = st.lists(SPANS, max_size=6).map(lambda spans: [t for span in spans for t in span])


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], list[str]]:
    """Tokens, and stop strings of which most occur in their text, whole or in part."""
    tokens = draw(SEQUENCES)
    text = raw(tokens).decode(errors="replace")
    parts = st.tuples(st.integers(0, max(len(text) - 1, 0)), st.integers(1, 6)).map(
        lambda p: text[p[0] : p[0] + p[1]]
    )
    stop = st.one_of(
        parts,
        st.text("ab \n", max_size=4),
        st.tuples(parts, st.text("ab", max_size=2)).map("".join),
    )
    return tokens, draw(st.lists(stop.filter(bool), max_size=3))


@settings(max_examples=500, deadline=None)
@given(cases())
@example((byte_tokens(b"\xed\xa0\x80\xed\xa0"), ["\ufffd"]))
def test_streamed_text_is_the_text_decoded_at_once(case: tuple[list[int], list[str]]) -> None:
    tokens, stop = case
    pieces, stopped = streamed(tokens, stop)
    assert ("".join(pieces), stopped) == whole(tokens, stop)


@settings(max_examples=300, deadline=None)
@given(SEQUENCES)
def test_without_stop_strings_nothing_waits_that_is_certain(tokens: list[int]) -> None:
    stream, got = TextStream(TOKENS), ""
    for count, token in enumerate(tokens, 1):
        got += stream.push(token)
        assert got == certain(raw(tokens[:count])).strip()
    assert got + stream.finish() == raw(tokens).decode(errors="replace").strip()


@pytest.mark.parametrize(
    ("text", "stop", "expected", "tokens_read"),
    [
        ("one two three", ["two"], "one", 7),
        ("one two three", ["wo thr"], "one t", 11),
        ("one two three", ["three", "two"], "one", 7),
        ("one two three", ["tw", "two"], "one", 6),  # a prefix decides earlier
        ("one two three", ["two t", "wo"], "one t", 7),  # the inner one is complete first
        ("aaab", ["aab"], "a", 4),
        ("one\n\ntwo", ["\n\n"], "one", 5),
        (" \n one", ["\n"], "", 2),
        ("one", [" "], "one", None),
        ("窦性心律", ["心"], "窦性", 9),
        ("🫀", ["🫀"], "", 4),
        ("  one  ", [], "one", None),
        ("one two", ["two!"], "one two", None),
    ],
)
def test_stop_strings(text: str, stop: list[str], expected: str, tokens_read: int | None) -> None:
    """Byte by byte, so that every stop string straddles tokens."""
    pieces, stopped = streamed(byte_tokens(text.encode()), stop)
    assert ("".join(pieces), stopped) == (expected, tokens_read)


def test_what_may_begin_a_stop_string_waits_and_the_rest_does_not() -> None:
    stream = TextStream(TOKENS, ["abc", "bd"])
    assert [stream.push(t) for t in byte_tokens(b"xababd!")] == ["x", "", "", "ab", "", "a", ""]
    assert (stream.stopped, stream.finish()) == (True, "")


@pytest.mark.parametrize(
    ("data", "pieces"),
    [
        (b"\xf0\x9f\xab\x80a", ["", "", "", "🫀", "a", ""]),
        (b"\xe2\x82a", ["", "", "\ufffda", ""]),
        (b"\xe2\x82", ["", "", "\ufffd"]),
        (b"\x80a\xff", ["\ufffd", "a", "\ufffd", ""]),
        (b"\xed\xa0\x80", ["", "", "\ufffd\ufffd\ufffd", ""]),  # a surrogate
    ],
)
def test_bytes_wait_for_their_character(data: bytes, pieces: list[str]) -> None:
    assert streamed(byte_tokens(data), [])[0] == pieces


def test_white_space_waits_for_what_follows() -> None:
    assert streamed(byte_tokens(b" a \n b "), [])[0] == ["", "a", "", "", "", " \n b", "", ""]


# --- tokens up to a stop string -------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(cases())
@example((byte_tokens("ab心".encode()), ["心"]))
@example((byte_tokens(b"ab\xe5"), ["\ufffd"]))
def test_tokens_before_a_stop_string_spell_the_streamed_text(
    case: tuple[list[int], list[str]],
) -> None:
    tokens, stop = case
    count = whole(tokens, stop)[1]
    tokens = tokens if count is None else tokens[:count]
    kept, rest = before_stop(TOKENS, tokens, stop)
    assert kept == tokens[: len(kept)]
    text = raw(kept).decode(errors="replace") + rest
    assert text.strip() == "".join(streamed(tokens, stop)[0])
    if kept != tokens:
        assert text == text.rstrip()


@pytest.mark.parametrize(
    ("text", "stop", "kept", "rest"),
    [
        ("one two", [], 7, ""),
        ("one two", ["x"], 7, ""),
        ("one two", ["two"], 3, ""),  # the space before it goes, too
        ("one two", ["wo"], 5, ""),
        ("one two", ["one"], 0, ""),
        ("one  \n two", ["two", " "], 3, ""),
        ("aXbX", ["X"], 1, ""),
        ("心律心", ["律"], 3, ""),
        ("one \xe5", ["\xe5"], 3, ""),
    ],
)
def test_tokens_before_a_stop_string(text: str, stop: list[str], kept: int, rest: str) -> None:
    tokens = byte_tokens(text.encode())
    assert before_stop(TOKENS, tokens, stop) == (tokens[:kept], rest)


@pytest.mark.parametrize("stop", ["thm", "hm", "m", "ythm", "rhythm", "y"])
def test_a_stop_string_that_begins_within_a_token(stop: str) -> None:
    tokens = TOKENS.encode("Sinus rhythm")
    kept, rest = before_stop(TOKENS, tokens, [stop])
    at = "Sinus rhythm".index(stop)
    assert raw(kept).decode() + rest == (" " + "Sinus rhythm"[:at]).rstrip()
    assert len(rest) < max(len(raw([token])) for token in tokens)


def test_a_stop_string_twice_in_one_token() -> None:
    """The first one counts."""
    token = next(
        i
        for i in range(TOKENS.size)
        if (piece := raw([i])).isascii() and any(piece.count(bytes([c])) == 2 for c in piece)
    )
    text = raw([token]).decode()
    letter = next(c for c in text if text.count(c) == 2)
    before = text[: text.index(letter)]
    tokens = [*byte_tokens(b"go:"), token, *byte_tokens(b"on")]
    pieces, stopped = streamed(tokens, [letter])
    assert ("".join(pieces), stopped) == (("go:" + before).strip(), 4)
    assert before_stop(TOKENS, tokens[:4], [letter]) == (
        tokens[:3],
        before.rstrip(),
    )


def pieces_of(*texts: bytes) -> Tokenizer:
    """A tokenizer whose token i has the i-th text."""
    return cast(Tokenizer, SimpleNamespace(piece_bytes=lambda token: texts[token]))


@pytest.mark.parametrize(
    ("piece", "stop", "before"),
    [
        (b"one##two##three", ("##",), "one"),
        (b"one####", ("##",), "one"),
        (b"##one##", ("##",), ""),
        (b"one ## two ##", ("##",), "one"),
        (b"one<b>two<a>", ("<a>", "<b>"), "one"),
        (b"one<a>two<b>", ("<a>", "<b>"), "one"),
        (b"oneaaa", ("aa", "aaa"), "one"),
        (b"one##two##", ("two##", "##two"), "one"),
    ],
)
def test_a_token_that_holds_a_stop_string_twice(
    piece: bytes, stop: tuple[str, ...], before: str
) -> None:
    tokenizer = pieces_of(b"zero ", piece, b"late")
    stream = TextStream(tokenizer, stop)
    text = "".join([stream.push(0), stream.push(1), stream.push(2)]) + stream.finish()
    assert stream.stopped
    assert text == f"zero {before}".strip()
    assert before_stop(tokenizer, [0, 1], stop) == ([0], before) or before == ""
