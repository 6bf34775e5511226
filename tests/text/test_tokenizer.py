"""Text to token ids and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given

from pulse_edge.errors import BundleError
from pulse_edge.text.detokenizer import decode
from pulse_edge.text.template import IMAGE
from pulse_edge.text.tokenizer import Tokenizer

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


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    for content in (None, b"", b"not a model", MODEL.read_bytes()[:1000]):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BundleError, match=r"tokenizer\.model: not a SentencePiece model"):
            Tokenizer(path, legacy=False)
