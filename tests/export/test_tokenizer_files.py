"""Tokenizers whose ids would differ, or whose tokens would have no text, are refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("safetensors", reason="exporting needs pulse-edge[export]")

from pulse_edge.text.tokenizer import Tokenizer
from pulse_export.checkpoint import Checkpoint

from support import tiny
from support.damage import edit, refused

CONFIG = "tokenizer_config.json"


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("add_bos_token", False),
        ("add_eos_token", True),
        ("add_prefix_space", False),
        ("sp_model_kwargs", {"enable_sampling": True, "nbest_size": -1, "alpha": 0.1}),
        ("tokenizer_class", "CodeLlamaTokenizer"),
        ("tokenizer_class", "GPT2Tokenizer"),
        ("tokenizer_class", "PreTrainedTokenizerFast"),
        ("tokenizer_class", "Qwen2Tokenizer"),
        ("legacy", "yes"),
        ("add_bos_token", "true"),
        ("add_eos_token", 1),
        ("auto_map", {"AutoTokenizer": ["x.X", None]}),
        ("bos_token", "<|begin_of_text|>"),
        ("eos_token", "<|im_end|>"),
        ("eos_token", {"content": "<|eot_id|>", "special": True}),
        ("eos_token", "<s>"),
        ("additional_special_tokens", ["<|im_start|>", "<|im_end|>"]),
        ("additional_special_tokens", [{"content": "<ecg>"}]),
        ("additional_special_tokens", "<ecg>"),
        ("extra_special_tokens", {"ecg_token": "<ecg>"}),
        ("extra_special_tokens", ["<s>", "<ecg>"]),
        ("added_tokens_decoder", {"512": {"content": "<ecg>"}}),
        ("added_tokens_decoder", {"300": {"content": "ECG"}}),
        ("added_tokens_decoder", {"2": {"content": "<|im_end|>"}}),
        ("added_tokens_decoder", {"x": {"content": "</s>"}}),
        ("added_tokens_decoder", []),
    ],
)
def test_a_setting_that_changes_ids_is_refused_by_name(copy: Path, flag: str, value: Any) -> None:
    edit(copy, CONFIG, **{flag: value})
    message = refused(copy)
    assert CONFIG in message
    assert flag in message or "token '" in message


@pytest.mark.parametrize(
    "settings",
    [
        {"add_bos_token": True, "add_eos_token": False, "add_prefix_space": True},
        {"add_bos_token": ..., "add_eos_token": ..., "add_prefix_space": None},
        {"tokenizer_class": "LlamaTokenizerFast", "backend": "tokenizers"},
        {"tokenizer_class": ...},
        {"clean_up_tokenization_spaces": True, "padding_side": "left"},
        {"model_max_length": 1000000000000000019884624838656},
        {"additional_special_tokens": ["<image>"], "pad_token": "[PAD]"},
        {"extra_special_tokens": ["<s>", "</s>", "<image>"]},
        {"extra_special_tokens": {"image_token": "<image>"}},
        {"bos_token": {"content": "<s>", "lstrip": False}},
        {"sp_model_kwargs": {}, "use_default_system_prompt": True},
    ],
)
def test_settings_that_change_no_ids(copy: Path, checkpoint: Path, settings: Any) -> None:
    edit(copy, CONFIG, **settings)
    assert Checkpoint(copy).spec == Checkpoint(checkpoint).spec


@pytest.mark.parametrize(
    ("tokens", "accepted"),
    [
        ({}, True),
        ({"<image>": 512, "<pad>": 513}, True),
        ({"[PAD]": 512}, True),
        ({"<unk>": 0, "<s>": 1, "</s>": 2}, True),
        ({"<|im_start|>": 512, "<|im_end|>": 513}, False),
        ({"<ecg>": 512}, False),
        ({"<im_patch>": 512}, False),
        ({"<image>": 400}, False),  # an id that means something else
        ({"</s>": 512}, False),
        ({"ECG": 300}, False),
        ({"<image>": "512"}, False),
        ({"<image>": -1}, False),
        ({"<image>": 1.5}, False),
    ],
)
@pytest.mark.parametrize("file", ["added_tokens.json", "tokenizer.json"])
def test_added_tokens(copy: Path, tokens: dict[str, Any], accepted: bool, file: str) -> None:
    entries = [{"content": content, "id": token} for content, token in tokens.items()]
    tiny.write_json(copy / file, tokens if file[0] == "a" else {"added_tokens": entries})
    if accepted:
        Checkpoint(copy)
    else:
        message = refused(copy)
        assert file in message


def vocabulary() -> dict[str, int]:
    tokenizer = Tokenizer(tiny.tokenizer_model(), legacy=True)
    return {tokenizer.piece(i): i for i in range(tokenizer.size)}


def test_a_fast_tokenizer_beside_is_the_same_vocabulary(copy: Path) -> None:
    pieces = vocabulary()
    same: tuple[Any, ...] = (
        {"type": "BPE", "vocab": pieces},
        {"type": "Unigram", "vocab": [[piece, -1.0] for piece in pieces]},
        {},
        None,
    )
    for model in same:
        tiny.write_json(copy / "tokenizer.json", {"model": model})
        Checkpoint(copy)
    swapped = dict(zip(pieces, [*range(300), 301, 300, *range(302, 512)], strict=True))
    for name in ("TokenizersBackend", "PreTrainedTokenizerFast"):
        edit(copy, CONFIG, tokenizer_class=name)
        Checkpoint(copy)
    others: tuple[Any, ...] = (swapped, {"!": 0}, [["<unk>", 0.0]], {})
    for vocab in others:
        tiny.write_json(copy / "tokenizer.json", {"model": {"vocab": vocab}})
        assert "another vocabulary than tokenizer.model" in refused(copy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"add_dummy_prefix": False}, "add_dummy_prefix"),
        ({"treat_whitespace_as_suffix": True}, "add_dummy_prefix"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces"),
        ({"normalization_rule_name": "nfkc"}, "normalization_rule_name"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalization_rule_name"),
        ({"normalization_rule_name": "nmt_nfkc_cf"}, "normalization_rule_name"),
        ({"byte_fallback": False}, "byte_fallback"),
        ({"user_defined_symbols": "\n\n"}, "merges line breaks"),
        ({"bos_id": -1}, "its beginning token is -1"),
        ({"bos_id": 2, "eos_id": 1}, "its beginning token is 2"),
        ({"eos_id": 3}, "its end token is 3"),
        ({"eos_id": -1}, "its end token is -1"),
    ],
)
def test_another_kind_of_sentencepiece_model(
    copy: Path, settings: dict[str, Any], message: str
) -> None:
    (copy / "tokenizer.model").write_bytes(tiny.tokenizer_model(**settings))
    text = refused(copy)
    assert text.startswith(str(copy / "tokenizer.model"))
    assert message in text


@pytest.mark.parametrize(
    "settings",
    [
        {"vocab_size": 400},
        {"vocab_size": 400, "model_type": "unigram"},
        {"user_defined_symbols": "72,160"},
        {"unk_id": 3},
        {"pad_id": 3},
        {"split_digits": False},
    ],
)
def test_kinds_that_keep_the_conventions(copy: Path, settings: dict[str, Any]) -> None:
    (copy / "tokenizer.model").write_bytes(tiny.tokenizer_model(**settings))
    if "unk_id" in settings:  # then no piece is the one that other files call token 0
        edit(copy, CONFIG, added_tokens_decoder={}, unk_token="<unk>")
    Checkpoint(copy)


def test_pieces_that_are_not_utf8(copy: Path) -> None:
    model = tiny.tokenizer_model()
    piece = "▁心".encode()
    assert piece in model
    (copy / "tokenizer.model").write_bytes(model.replace(piece, piece[:-1] + b"\xff"))
    message = refused(copy)
    assert "tokenizer.model: not a SentencePiece model (pieces that are not UTF-8)" in message


def test_special_tokens_map_is_read_too(copy: Path) -> None:
    edit(copy, "special_tokens_map.json", eos_token="<|im_end|>")
    assert "special_tokens_map.json: eos_token is '<|im_end|>', but" in refused(copy)
    edit(copy, "special_tokens_map.json", eos_token={"content": "</s>"})
    assert json.loads((copy / "special_tokens_map.json").read_text())["eos_token"]
    Checkpoint(copy)
