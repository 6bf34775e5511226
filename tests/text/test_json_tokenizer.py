"""tokenizer.json: text to ids and back, marks, and files that are none."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulse_edge.decode.constraint import Grammars
from pulse_edge.errors import BundleError, ParameterError
from pulse_edge.text.detokenizer import TextStream, before_stop, decode
from pulse_edge.text.json_tokenizer import JsonTokenizer, byte_letters
from pulse_edge.text.json_vocabulary import LARGEST_FILE
from pulse_edge.text.open_tokenizer import open_tokenizer
from pulse_edge.text.tokenizer import Tokenizer

from support import families
from support.tokens import MODEL, TEXT

pytest.importorskip("tokenizers", reason="tokenizer.json needs pulse-edge[tokenizers]")

CONTENT = families.byte_level_tokenizer()
TOKENS = JsonTokenizer(CONTENT, legacy=False)
END = families.token("<|im_end|>")


def raw(ids: list[int]) -> bytes:
    return b"".join(map(TOKENS.piece_bytes, ids))


@settings(deadline=None, max_examples=50)
@given(TEXT)
def test_ids_spell_the_text(text: str) -> None:
    """Composed (NFC), as Qwen2's tokenizer has it."""
    import unicodedata

    composed = unicodedata.normalize("NFC", text)
    assert raw(TOKENS.encode(text)) == composed.encode()
    assert TOKENS.encode_spelled(text) == TOKENS.encode_after_special(text) == TOKENS.encode(text)
    assert decode(TOKENS, TOKENS.encode(text)) == composed.strip()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-2, TOKENS.size + 2), max_size=12))
def test_pieces_joined_are_the_text(ids: list[int]) -> None:
    stream = TextStream(TOKENS)
    text = "".join([*map(stream.push, ids), stream.finish()])
    assert text == raw([i for i in ids if i >= 0]).decode(errors="replace").strip()


@pytest.mark.parametrize("mark", families.MARKS)
def test_marks_never_come_from_text_and_have_none(mark: str) -> None:
    ids = TOKENS.encode(f"a{mark}b")
    token = TOKENS.token(mark)
    assert token is not None
    assert token not in ids
    assert raw(ids) == f"a{mark}b".encode()
    assert (TOKENS.piece_bytes(token), TOKENS.is_special(token)) == (b"", True)
    assert TOKENS.piece(token) == mark
    assert TOKENS.token(f"{mark} ") is None


def test_bytes_of_half_a_character_wait(tmp_path: Path) -> None:
    ids = [TOKENS.byte_tokens[byte] for byte in "µ心".encode()]
    stream = TextStream(TOKENS)
    assert [stream.push(token) for token in ids] == ["", "µ", "", "", "心"]


def test_a_stop_string_within_a_token() -> None:
    ids = TOKENS.encode("Sinus rhythm at 72 bpm. The axis")
    kept, rest = before_stop(TOKENS, ids, ["hm at"])
    assert (raw(kept) + rest.encode()).decode() == "Sinus ryt".replace("ryt", "rhyt")


def test_every_byte_has_a_letter() -> None:
    assert sorted(byte_letters().values()) == list(range(256))
    assert byte_letters()["Ġ"] == 0x20
    assert byte_letters()["Ċ"] == 0x0A
    assert TOKENS.departure() is None
    assert TOKENS.framed() == ([], [])


def test_numbers_are_digits_alone() -> None:
    assert {TOKENS.piece_bytes(i) for i in TOKENS.numbers} >= {b"0", b"7", b"9"}
    assert all(TOKENS.piece_bytes(i).strip().isdigit() for i in TOKENS.numbers)


def test_the_kind_is_told_by_the_name(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(CONTENT)
    assert isinstance(open_tokenizer(path, False), JsonTokenizer)
    assert isinstance(open_tokenizer(CONTENT, False, "x/tokenizer.json"), JsonTokenizer)
    assert type(open_tokenizer(MODEL, False)) is Tokenizer
    assert type(open_tokenizer(MODEL.read_bytes(), False)) is Tokenizer
    with pytest.raises(BundleError, match="not a SentencePiece model"):
        open_tokenizer(CONTENT, False)
    with pytest.raises(BundleError, match="not a tokenizer"):
        open_tokenizer(MODEL.read_bytes(), False, "tokenizer.json")


def test_a_json_schema_is_kept_without_a_space_before() -> None:
    pytest.importorskip("llguidance", reason="schemas need pulse-edge[schema]")
    schema = json.dumps({"enum": ["sinus rhythm", "atrial fibrillation"]})
    constraint = Grammars(TOKENS, (END,), lead="").constraint(schema)
    assert constraint is not None
    rng = np.random.default_rng(0)
    ids: list[int] = []
    while not constraint.ended and len(ids) < 40:
        logits = rng.normal(0, 1, TOKENS.size).astype(np.float32)
        token = int(constraint.masked(logits).argmax())
        constraint.accept(token)
        ids.append(token)
    assert json.loads(raw(ids)) in ("sinus rhythm", "atrial fibrillation")
    assert raw(ids).startswith(b'"')


# -- files that are none


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    stored = copy.deepcopy(json.loads(CONTENT))
    change(stored)
    return json.dumps(stored).encode()


def setting(*keys: Any, value: Any) -> bytes:
    def change(stored: Any) -> None:
        for key in keys[:-1]:
            stored = stored[key]
        stored[keys[-1]] = value

    return changed(change)


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
FRAME = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}},
}
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "Expecting value"),
    "cut": (CONTENT[:2000], "not a tokenizer"),
    "SentencePiece": (MODEL.read_bytes(), "not a tokenizer"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\n", "Expecting value"),
    "a list": (b"[]", "no object with a model"),
    "a number": (b"7", "no object with a model"),
    "no model": (b"{}", "no object with a model"),
    "deep": (b"[" * 100_000, "not a tokenizer"),
    "parts in each other": (
        setting("normalizer", value=json.loads('{"type":"Sequence","normalizers":[' * 90
        + '{"type":"NFC"}' + "]}" * 90)), "not a tokenizer"),
    "large": (b" " * (LARGEST_FILE + 1), f"over {LARGEST_FILE} bytes"),
    "UTF-16": (CONTENT.decode().encode("utf-16"), "not a tokenizer"),
    "WordPiece": (setting("model", "type", value="WordPiece"), "'WordPiece'"),
    "Unigram": (setting("model", "type", value="Unigram"), "'Unigram'"),
    "WordLevel": (setting("model", "type", value="WordLevel"), "'WordLevel'"),
    "type of no text": (setting("model", "type", value=[1]), "a model of type [1]"),
    "dropout": (setting("model", "dropout", value=0.1), "dropout"),
    "subword prefix": (setting("model", "continuing_subword_prefix", value="##"), "'##'"),
    "word suffix": (setting("model", "end_of_word_suffix", value="</w>"), "'</w>'"),
    "no vocab": (setting("model", "vocab", value={}), "no vocab"),
    "vocab as a list": (setting("model", "vocab", value=[["a", 0]]), "no vocab"),
    "huge id": (setting("model", "vocab", "zz", value=1 << 40), "1099511627776"),
    "negative id": (setting("model", "vocab", "zz", value=-1), "the id -1"),
    "float id": (setting("model", "vocab", "zz", value=1.5), "the id 1.5"),
    "text id": (setting("model", "vocab", "zz", value="1"), "the id '1'"),
    "true id": (setting("model", "vocab", "zz", value=True), "the id True"),
    "an id twice": (setting("model", "vocab", "zz", value=3), "token 3 is both"),
    "half a character": (setting("model", "vocab", "\ud800", value=450), "half a character"),
    "merge of unknown tokens": (setting("model", "merges", value=["xq zz"]), "not a tokenizer"),
    "merges as text": (setting("model", "merges", value="a b"), "not a tokenizer"),
    "neither bytes nor fallback": (setting("decoder", value=None), "neither byte-level"),
    "bytes in the decoder alone": (
        setting("pre_tokenizer", value={"type": "Digits", "individual_digits": True}),
        "without a ByteLevel"),
    "bad pattern": (
        setting("pre_tokenizer", "pretokenizers", 0, "pattern", value={"Regex": "("}),
        "not a tokenizer"),
    "long pattern": (
        setting("pre_tokenizer", "pretokenizers", 0, "pattern", value={"Regex": "a" * 3000}),
        "a pattern of over 2000"),
    "table of characters": (
        setting("normalizer", value={"type": "Precompiled", "precompiled_charsmap": "AgAAAAAA"}),
        "a normalizer of type 'Precompiled'"),
    "a normalizer that replaces nothing": (
        setting("normalizer", value=REPLACE | {"pattern": {"String": ""}}), "whose pattern is"),
    "a normalizer that replaces by nothing": (
        setting("normalizer", value=REPLACE | {"content": ""}), "whose content is ''"),
    "a normalizer that prepends nothing": (
        setting("normalizer", value={"type": "Prepend", "prepend": ""}), "whose prepend is ''"),
    "lower case": (setting("normalizer", value={"type": "Lowercase"}), "'Lowercase'"),
    "compatible characters": (setting("normalizer", value={"type": "NFKC"}), "'NFKC'"),
    "stripped": (setting("normalizer", value={"type": "Strip", "strip_left": True}), "'Strip'"),
    "a normalizer as text": (setting("normalizer", value="NFC"), "no parts"),
    "a sequence of nothing": (setting("normalizer", value={"type": "Sequence"}), "without normal"),
    "unknown part": (setting("normalizer", value={"type": "Rot13"}), "'Rot13'"),
    "a split that drops": (
        setting("pre_tokenizer", "pretokenizers", 0, "behavior", value="Removed"), "drops text"),
    "an empty pattern": (
        setting("pre_tokenizer", "pretokenizers", 0, "pattern", value={"Regex": ""}), "by the pat"),
    "a pattern without end": (
        setting("pre_tokenizer", "pretokenizers", 0, "pattern", value={"Regex": "(a|aa)+$"}),
        "repeats a group"),
    "bytes of bytes": (
        changed(lambda s: s["pre_tokenizer"]["pretokenizers"].extend(
            s["pre_tokenizer"]["pretokenizers"][1:] * 3)), "more than one ByteLevel"),
    "many parts": (
        changed(lambda s: s["pre_tokenizer"]["pretokenizers"].extend(
            s["pre_tokenizer"]["pretokenizers"] * 20)), "over 8"),
    "no pattern": (
        setting("pre_tokenizer", "pretokenizers", 0, "pattern", value=None), "the pattern None"),
    "cut at letters": (
        setting("pre_tokenizer", "pretokenizers", 0,
                value={"type": "CharDelimiterSplit", "delimiter": "a"}), "'CharDelimiterSplit'"),
    "framed by an unknown token": (
        setting("post_processor", value=FRAME | {"special_tokens": {}}), "the unknown token"),
    "framed without the text": (
        setting("post_processor", value=FRAME | {"single": []}), "with 0 texts"),
    "framed as two texts": (
        setting("post_processor", value={"type": "BertProcessing", "sep": ["a", 1]}),
        "'BertProcessing'"),
    "added tokens as a map": (setting("added_tokens", value={"a": 1}), "added_tokens is no list"),
    "an added token without text": (setting("added_tokens", value=[{"id": 430}]), "content"),
    "an added token with no id": (
        setting("added_tokens", value=[{"content": "<x>"}]), "the id None"),
    "an added token twice": (
        changed(lambda s: s["added_tokens"].append(s["added_tokens"][0])), "is added twice"),
    "an added token in another's place": (
        setting("added_tokens", 0, "id", value=5), "token 5 is both"),
    "an added id that the library gives another number": (
        setting("added_tokens", 2, "id", value=900), "says 900, and would be"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_are_no_tokenizer(name: str) -> None:
    content, reason = HOSTILE[name]
    with pytest.raises(BundleError) as caught:
        JsonTokenizer(content, legacy=False, name="tokenizer.json")
    message = str(caught.value)
    assert message.startswith("tokenizer.json: not a tokenizer (")
    assert reason in message
    assert message.isprintable()
    assert len(message) < 500


def test_a_tokenizer_that_cuts_or_pads_does_neither_here() -> None:
    """transformers does neither either, unless a caller asks."""

    def change(stored: dict[str, Any]) -> None:
        stored["truncation"] = {
            "direction": "Right",
            "max_length": 3,
            "strategy": "LongestFirst",
            "stride": 0,
        }
        stored["padding"] = {
            "strategy": {"Fixed": 64},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "!",
        }

    text = "What is the heart rate of this tracing?"
    assert JsonTokenizer(changed(change), False).encode(text) == TOKENS.encode(text)


DEPARTURES = {
    "add_prefix_space": setting(
        "pre_tokenizer", "pretokenizers", 1, "add_prefix_space", value=True
    ),
    "no token for each byte": changed(
        lambda s: s["model"]["vocab"].update({"zz": s["model"]["vocab"].pop("Ā")})
    ),
}


@pytest.mark.parametrize("reason", DEPARTURES)
def test_departures_from_the_conventions_are_named(reason: str) -> None:
    departure = JsonTokenizer(DEPARTURES[reason], False).departure()
    assert departure is not None
    assert reason in departure


def test_what_a_file_puts_around_a_text() -> None:
    framing = setting("post_processor", value=FRAME)
    assert JsonTokenizer(framing, False).framed() == ([7], [])
    both = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, FRAME]}
    tokenizer = JsonTokenizer(setting("post_processor", value=both), False)
    assert tokenizer.framed() == ([7], [])
    assert tokenizer.encode("a b") == TOKENS.encode("a b")


def test_text_that_the_library_refuses_is_one_line() -> None:
    with pytest.raises(ParameterError, match="cannot read this text"):
        TOKENS.encode("a\ud800b")


def test_without_the_package_the_command_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(CONTENT)
    code = (
        "import sys; sys.modules['tokenizers'] = None\n"
        "from pathlib import Path\n"
        "from pulse_edge.text.open_tokenizer import open_tokenizer\n"
        f"try: open_tokenizer(Path({str(path)!r}), False)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"BundleError {path}: tokenizer.json needs the package tokenizers" in done.stdout
    assert "pip install 'pulse-edge[tokenizers]'" in done.stdout
