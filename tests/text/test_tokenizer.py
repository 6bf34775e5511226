"""Text to token ids and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given

from pulse_edge.errors import BundleError
from pulse_edge.text.detokenizer import decode
from pulse_edge.text.template import IMAGE
from pulse_edge.text.tokenizer import Tokenizer

from support import tiny
from support.tokens import BOS, EOS, LEGACY, MODEL, TEXT, TOKENS, raw


@given(TEXT)
@example("心电图 🫀 é e\u0301 ½ ﬁ \u00a0 \u3000 \u200b \0 \r\n\t")
def test_text_survives_the_tokenizer(text: str) -> None:
    for tokens in (TOKENS, LEGACY):
        assert raw(tokens.encode(text)) == (" " + text if text else "").encode()
        assert decode(tokens, tokens.encode(text)) == text.strip()


@given(TEXT)
def test_after_a_special_token_only_legacy_adds_a_space(text: str) -> None:
    assert raw(TOKENS.encode_after_special(text)) == text.encode()
    assert LEGACY.encode_after_special(text) == LEGACY.encode(text)


def test_tokens_without_text() -> None:
    assert [TOKENS.piece_bytes(t) for t in (0, BOS, EOS, -1, IMAGE, TOKENS.size, 10**6)] == [
        b""
    ] * 7
    assert decode(TOKENS, [BOS, *TOKENS.encode("ECG"), 0, TOKENS.size, EOS]) == "ECG"


def test_a_model_is_read_from_its_bytes_too() -> None:
    from_bytes = Tokenizer(MODEL.read_bytes(), legacy=False)
    assert from_bytes.encode("Sinus rhythm, 72/min") == TOKENS.encode("Sinus rhythm, 72/min")
    assert (from_bytes.size, from_bytes.bos, from_bytes.eos) == (TOKENS.size, BOS, EOS)
    assert from_bytes.departure() is None


NO_MODELS = {
    "empty": b"",
    "text": b"not a model",
    "cut": MODEL.read_bytes()[:1000],
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "zeros": bytes(100),
    "no pieces": b"\n\x00",
    "bytes that are no character": MODEL.read_bytes().replace(
        "\u2581and".encode(), b"\xff\x81\x81and"
    ),
    "half a character": MODEL.read_bytes().replace("\u5fc3".encode(), b"\xe5\xbf\xe5"),
    "a surrogate": MODEL.read_bytes().replace("\u5fc3".encode(), b"\xed\xa0\x80"),
    "a piece twice": MODEL.read_bytes().replace(b"rhy", b"ion"),
}


@pytest.mark.parametrize("content", NO_MODELS.values(), ids=NO_MODELS)
def test_bytes_that_are_no_tokenizer(tmp_path: Path, content: bytes) -> None:
    """Refused when it is opened: a piece that is no text would fail in the midst of an answer."""
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    for model, name in ((path, str(path)), (content, "tokenizer.model")):
        with pytest.raises(BundleError) as caught:
            Tokenizer(model, legacy=False)
        assert str(caught.value).startswith(f"{name}: not a SentencePiece model (")
        assert str(caught.value).isprintable()


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    (tmp_path / "large").open("wb").truncate(1 << 40)
    for path, reason in (
        (tmp_path, "not a file"),
        (tmp_path / "pipe", "not a file"),
        (tmp_path / "absent", "No such file"),
        (tmp_path / "large", "over 67108864 bytes"),
    ):
        with pytest.raises(BundleError, match=f"not a SentencePiece model .{reason}"):
            Tokenizer(path, legacy=False)
    with pytest.raises(BundleError, match=r"^model of x: not a"):
        Tokenizer(b"", legacy=False, name="model of x")


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ({"add_dummy_prefix": False}, "add_dummy_prefix"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalization_rule_name"),
        ({"byte_fallback": False}, "byte_fallback"),
        ({"user_defined_symbols": "\n\n"}, "line breaks"),
    ],
)
def test_departures_from_llamas_conventions(setting: dict[str, Any], word: str) -> None:
    departure = Tokenizer(tiny.tokenizer_model(**setting), legacy=False).departure()
    assert departure
    assert word in departure


def test_numbers_may_begin_with_a_space() -> None:
    """Of a model whose pieces hold whole numbers, as the tiny one's do not."""
    import io

    import sentencepiece

    out = io.BytesIO()
    lines = [f"rate {n} and {n}th of {n * 7}" for n in range(60, 99)] * 4
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        split_digits=False,
        split_by_number=False,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    tokenizer = Tokenizer(out.getvalue(), False)
    numbers = {tokenizer.piece_bytes(i) for i in tokenizer.numbers}
    assert {piece for piece in numbers if piece.startswith(b" ")}
    assert all(piece.strip().isdigit() for piece in numbers)
    every = {tokenizer.piece_bytes(i) for i in range(tokenizer.size)}
    assert {piece for piece in every if piece.strip().isdigit()} <= numbers
