"""Checkpoints whose tokenizer is tokenizer.json: what is read, copied, and refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("safetensors", reason="exporting needs pulse-edge[export]")
pytest.importorskip("tokenizers", reason="byte-level tokenizers need pulse-edge[tokenizers]")

import pulse_edge
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cli import cli
from pulse_edge.errors import BundleError
from pulse_edge.text.json_tokenizer import JsonTokenizer
from pulse_export.checkpoint import Checkpoint
from pulse_export.pipeline import export

from support import families, tiny
from support.damage import edit, refused

JSON, CONFIG = "tokenizer.json", "tokenizer_config.json"


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.make_qwen(tmp_path_factory.mktemp("qwen") / "checkpoint")


@pytest.fixture(scope="module")
def bundle(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen") / "bundle"
    export(qwen, path, precision="fp32", self_test=True)
    return path


@pytest.fixture
def copy(qwen: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen, tmp_path / "copy"))


def test_the_bundle_holds_the_file_and_seals_it(qwen: Path, bundle: Path, tmp_path: Path) -> None:
    manifest = open_bundle(bundle).manifest
    assert (bundle / JSON).read_bytes() == (qwen / JSON).read_bytes()
    assert manifest.tokenizer == JSON
    assert JSON in {file.path for file in manifest.files}
    damaged = Path(shutil.copytree(bundle, tmp_path / "damaged"))
    content = bytearray((damaged / JSON).read_bytes())
    content[100] ^= 1
    (damaged / JSON).write_bytes(content)
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        open_bundle(damaged)
    (damaged / JSON).unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json: missing"):
        open_bundle(damaged)


def test_a_bundle_answers_chats_and_verifies(qwen: Path, bundle: Path) -> None:
    from click.testing import CliRunner

    page = tiny_page()
    with pulse_edge.load(bundle, threads=1) as model:
        assert isinstance(model.tokenizer, JsonTokenizer)
        first = model.ask(page, "What is <|im_end|> this?", max_new_tokens=4)
        chat = model.chat(page)
        assert chat.ask("What is <|im_end|> this?", max_new_tokens=4).text == first.text
        chat.ask("And now?", max_new_tokens=4)
    run = CliRunner().invoke(cli, ["verify", str(bundle), "--against", str(qwen), "--tokens", "2"])
    assert run.exit_code == 0, run.output
    assert "PASSED" in run.output


def tiny_page() -> Any:
    from PIL import Image

    return Image.new("RGB", (150, 110), "white")


def test_a_sentencepiece_model_beside_it_wins(checkpoint: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    other = json.loads(families.byte_level_tokenizer()) | {"added_tokens": []}
    tiny.write_json(path / JSON, other)
    edit(path, CONFIG, tokenizer_class="PreTrainedTokenizerFast")
    assert "another vocabulary than tokenizer.model" in refused(path)
    tiny.write_json(path / JSON, {"model": {}})
    assert Checkpoint(path).tokenizer == "tokenizer.model"


def test_marks_need_a_tokenizer_json(checkpoint: Path, qwen: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(qwen, tmp_path / "copy"))
    shutil.copyfile(checkpoint / "tokenizer.model", path / "tokenizer.model")
    assert "tokenizer.model has no tokens for the turns of qwen_1_5" in refused(path)


def test_the_identity_holds_the_tokenizer(copy: Path) -> None:
    before = Checkpoint(copy).info().sha256
    stored = json.loads((copy / JSON).read_text())
    (copy / JSON).write_text(json.dumps(stored, indent=1))
    assert Checkpoint(copy).info().sha256 != before


FLAGS: list[tuple[dict[str, Any], str]] = [
    ({"tokenizer_class": "GPT2Tokenizer"}, "tokenizer_class is 'GPT2Tokenizer'"),
    ({"tokenizer_class": "BertTokenizerFast"}, "tokenizer_class is 'BertTokenizerFast'"),
    ({"add_bos_token": True}, "add_bos_token is True"),
    ({"add_eos_token": True}, "add_eos_token is True"),
    ({"add_prefix_space": True}, "add_prefix_space is True"),
    ({"auto_map": {"AutoTokenizer": "x.Y"}}, "auto_map"),
    ({"chat_template": "{{ '[INST] ' + m + ' [/INST]' }}"}, "--template mistral_instruct"),
    ({"additional_special_tokens": ["<ecg>"]}, "'<ecg>' is no token of tokenizer.json"),
    ({"added_tokens_decoder": {"5": {"content": "<ecg>"}}}, "'<ecg>' is no token"),
    ({"added_tokens_decoder": {"5": {"content": "<|im_end|>"}}}, "'<|im_end|>' is no token"),
    ({"added_tokens_decoder": {"490": {"content": "<ecg>"}}}, "'<ecg>' is no token"),
]


@pytest.mark.parametrize(("fields", "reason"), FLAGS, ids=lambda value: str(value)[:40])
def test_settings_that_change_ids_are_refused_by_name(
    copy: Path, fields: dict[str, Any], reason: str
) -> None:
    edit(copy, CONFIG, **fields)
    assert reason in refused(copy)


def test_tokens_that_conversions_add_are_let_pass(copy: Path) -> None:
    edit(copy, CONFIG, added_tokens_decoder={"505": {"content": "<image>"}})
    edit(copy, CONFIG, additional_special_tokens=["<|im_start|>", "<|im_end|>", "<image>"])
    Checkpoint(copy)


def change(path: Path, **fields: Any) -> None:
    edit(path, JSON, **fields)


def test_a_tokenizer_of_another_model(copy: Path) -> None:
    stored = json.loads((copy / JSON).read_text())
    marks = stored["added_tokens"]
    for at, mark in enumerate(("<|im_start|>", "<|im_end|>"), 1):
        renamed = [dict(entry) for entry in marks]
        renamed[at]["content"] = "<|other|>"
        change(copy, added_tokens=renamed)
        assert f"no special token {mark!r}"[:24] in refused(copy) or mark in refused(copy)
    plain = [dict(entry, special=False) for entry in marks]
    change(copy, added_tokens=plain)
    assert "no special token" in refused(copy)
    swallowing = [dict(entry, rstrip=True) for entry in marks]
    change(copy, added_tokens=swallowing)
    assert "swallows the white space around it" in refused(copy)
    change(copy, added_tokens=marks)
    edit(copy, vocab_size=300)
    assert refused(copy)


def test_a_tokenizer_that_frames_a_text(copy: Path) -> None:
    token = families.token("<|endoftext|>")
    special = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    marks = {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [token], "tokens": ["<|endoftext|>"]}}
    for single, where in (([special, text], "before"), ([text, special], "behind")):
        template = {"type": "TemplateProcessing", "single": single, "pair": single}
        change(copy, post_processor=template | {"special_tokens": marks})
        message = refused(copy)
        assert "but prompts of qwen_1_5 begin with [] and end with []" in message
        assert f"{[token]}" in message, where


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"{", b"\xff\xfe", b'{"model": 1}'])
def test_files_that_are_no_tokenizer_are_named(copy: Path, content: bytes) -> None:
    (copy / JSON).write_bytes(content)
    assert str(copy / JSON) in refused(copy)


def test_a_key_that_stands_twice(copy: Path) -> None:
    text = (copy / JSON).read_text().rstrip()
    (copy / JSON).write_text(text[:-1] + ', "normalizer": null}')
    assert "stands twice" in refused(copy)
