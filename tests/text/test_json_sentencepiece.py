"""SentencePiece's tokens in a tokenizer.json: spaces, bytes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from pulse_edge.errors import BundleError
from pulse_edge.text.detokenizer import TextStream, decode
from pulse_edge.text.json_tokenizer import JsonTokenizer
from pulse_edge.text.json_vocabulary import LARGEST_FILE
from pulse_edge.text.open_tokenizer import open_tokenizer
from pulse_edge.text.tokenizer import SPACE, Tokenizer

from support.tokens import MODEL, TEXT

pytest.importorskip("tokenizers", reason="tokenizer.json needs pulse-edge[tokenizers]")

WORDS = [SPACE, "a", "b", "\n", "7", "2", f"{SPACE}a", f"{SPACE}ab", "ab"]
MERGES = [[SPACE, "a"], [f"{SPACE}a", "b"], ["a", "b"]]


def stored() -> dict[str, Any]:
    """A file as transformers 4 writes Llama's."""
    marks = ["<unk>", "<s>", "</s>"]
    pieces = [*marks, *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": at, "content": mark, "special": True, **flags} for at, mark in enumerate(marks)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": SPACE}, spaces],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: at for at, piece in enumerate(pieces)},
            "merges": MERGES,
        },
    }


def opened(content: dict[str, Any] | None = None, legacy: bool = False) -> JsonTokenizer:
    return JsonTokenizer(json.dumps(content or stored()).encode(), legacy)


TOKENS = opened()
BYTES = 3  # id of <0x00>
FIRST = BYTES + 256  # id of the first word


def test_a_text_begins_with_a_dummy_space_and_merges() -> None:
    assert TOKENS.encode("ab") == [FIRST + WORDS.index(f"{SPACE}ab")]
    assert TOKENS.encode("b") == [FIRST, FIRST + WORDS.index("b")]
    assert TOKENS.encode_spelled("b") == [FIRST + WORDS.index("b")]


def test_other_characters_are_their_bytes() -> None:
    assert TOKENS.encode("µ") == [FIRST, *(BYTES + byte for byte in "µ".encode())]
    assert TOKENS.byte_tokens == [BYTES + byte for byte in range(256)]
    assert [TOKENS.piece_bytes(BYTES + 0xB5), TOKENS.piece_bytes(FIRST)] == [b"\xb5", b" "]
    assert TOKENS.piece_bytes(TOKENS.size) == TOKENS.piece_bytes(-1) == b""


def test_special_tokens_have_no_text_and_never_come_from_one() -> None:
    assert [TOKENS.is_special(token) for token in (0, 1, 2, BYTES)] == [True, True, True, False]
    assert [TOKENS.piece_bytes(token) for token in range(3)] == [b"", b"", b""]
    assert 2 not in TOKENS.encode("a</s>b")
    assert (TOKENS.token("</s>"), TOKENS.piece(2)) == (2, "</s>")
    assert (TOKENS.bos, TOKENS.eos) == (-1, -1)  # the checkpoint says them


@settings(deadline=None, max_examples=40)
@given(TEXT)
def test_ids_spell_the_text(text: str) -> None:
    spelled = TOKENS.encode_spelled(text)
    assert b"".join(map(TOKENS.piece_bytes, spelled)) == text.encode()
    stream = TextStream(TOKENS)
    ids = TOKENS.encode(text)
    assert "".join([*map(stream.push, ids), stream.finish()]) == decode(TOKENS, ids) == text.strip()


@pytest.mark.parametrize("legacy", [True, False])
def test_text_behind_a_special_token(legacy: bool) -> None:
    """Llama's old behaviour puts a dummy space there, too."""
    tokens = opened(legacy=legacy)
    ids = tokens.encode_after_special("b")
    assert b"".join(map(tokens.piece_bytes, ids)) == (b" b" if legacy else b"b")


def test_numbers_are_tokens_of_digits() -> None:
    digits = {FIRST + WORDS.index(digit) for digit in "72"}
    assert TOKENS.numbers == digits | {BYTES + byte for byte in b"0123456789"}


def _without(piece: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        vocab = content["model"]["vocab"]
        vocab[f"x{piece}"] = vocab.pop(piece)

    return change


def _no_dummy(content: dict[str, Any]) -> None:
    content["normalizer"] = content["normalizer"]["normalizers"][1]


def _composing(content: dict[str, Any]) -> None:
    content["normalizer"]["normalizers"].append({"type": "NFC"})


def _merged_break(content: dict[str, Any]) -> None:
    content["model"]["vocab"]["\na"] = len(content["model"]["vocab"])
    content["model"]["merges"] = [["\n", "a"], *MERGES]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: None, None),
        (_without("<0x41>"), "it has no token for each byte (byte_fallback)"),
        (_no_dummy, "it puts no space before a text (add_prefix_space)"),
        (_merged_break, "it merges line breaks with other text"),
        (_composing, None),  # the same text
    ],
)
def test_departures_from_llama(
    change: Callable[[dict[str, Any]], None], expected: str | None
) -> None:
    content = stored()
    change(content)
    assert opened(content).departure() == expected


def _no_fallback(content: dict[str, Any]) -> None:
    content["model"]["byte_fallback"] = False


def _another_id(content: dict[str, Any]) -> None:
    content["added_tokens"].append(
        {
            **content["added_tokens"][0],
            "content": "<mark>",
            "id": len(content["model"]["vocab"]) + 3,
        }
    )


def _two_texts(content: dict[str, Any]) -> None:
    content["added_tokens"][0]["content"] = "<other>"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_no_fallback, "neither byte-level tokens nor byte_fallback"),
        (_another_id, "added token '<mark>' says"),
        (_two_texts, "token 0 is both '<unk>' and an added one"),
    ],
)
def test_files_that_cannot_be_read_right_are_refused(
    change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    content = stored()
    change(content)
    with pytest.raises(BundleError, match="not a tokenizer") as caught:
        opened(content)
    assert reason in str(caught.value)


def test_the_name_tells_which_kind_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored()))
    assert isinstance(open_tokenizer(tmp_path / "tokenizer.json", legacy=False), JsonTokenizer)
    assert not isinstance(open_tokenizer(MODEL, legacy=False), JsonTokenizer)
    assert isinstance(open_tokenizer(MODEL, legacy=False), Tokenizer)


def test_what_is_no_file_or_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(BundleError, match="No such file"):
        open_tokenizer(path, legacy=False)
    path.mkdir()
    with pytest.raises(BundleError, match="not a file"):
        open_tokenizer(path, legacy=False)
    path.rmdir()
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(BundleError, match=f"over {LARGEST_FILE} bytes"):
        open_tokenizer(path, legacy=False)


def test_what_the_file_puts_around_a_text_and_behind_a_special_token() -> None:
    assert TOKENS.framed() == ([], [])
    assert TOKENS.spaces_after_special(2)  # the normalizer sees each stretch of text
    content = stored()
    first = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    marks = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    template = {"type": "TemplateProcessing", "special_tokens": marks}
    content["post_processor"] = {**template, "single": [first, text], "pair": [first, text]}
    framed = opened(content)
    assert framed.framed() == ([1], [])
    assert framed.encode("ab") == TOKENS.encode("ab")  # the prompt's template says what begins it
