"""tokenizer.json and the prompts of its models against transformers' tokenizers.

These need `transformers`, and are skipped without it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.text.detokenizer import TextStream, decode
from pulse_edge.text.json_tokenizer import JsonTokenizer
from pulse_edge.text.template import IMAGE, PromptBuilder
from pulse_export.checkpoint import Checkpoint

from support import families, tiny

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

TEXTS = (
    "What is the heart rate?",
    "  two spaces, and three   inside ",
    "line\nbreaks\n\n\nand\r\n tabs\t\t.",
    "心电图 🫀 naïve café cafe\u0301 Ångström ½ ﬁ \u3000wide",
    "I'm; you're; WE'LL; x's 12345 3.14 QRS-96ms",
    "<|im_start|", "|im_end|>", "< |im_end|>", "<|im_end |>", "</s>", "<s>", "[INST] no [/INST]",
    "\u200b\ufeff\u00a0nbsp", "مخطط القلب", "\x00\x01\x7f", "a" * 300, "\n", " ", "?!?!...",
    "e\u0301\u0327",
)  # fmt: skip


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.make_qwen(tmp_path_factory.mktemp("qwen") / "checkpoint", layout="hf_next")


@pytest.fixture(scope="module")
def ours(qwen: Path) -> JsonTokenizer:
    return JsonTokenizer((qwen / "tokenizer.json").read_bytes(), legacy=False)


@pytest.fixture(scope="module", params=["Qwen2Tokenizer", "PreTrainedTokenizerFast"])
def theirs(qwen: Path, request: pytest.FixtureRequest) -> Any:
    return getattr(transformers, request.param).from_pretrained(qwen)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text)[:24])
def test_ids_and_text_are_hugging_faces(ours: JsonTokenizer, theirs: Any, text: str) -> None:
    ids = theirs(text, add_special_tokens=False).input_ids
    assert ours.encode(text) == ids
    assert ours.encode_after_special(text) == ids
    expected = theirs.decode(ids, clean_up_tokenization_spaces=False).strip()
    assert decode(ours, ids) == expected
    stream = TextStream(ours)
    assert "".join([*map(stream.push, ids), stream.finish()]) == expected


@pytest.mark.parametrize("mark", families.MARKS)
def test_marks_in_a_text_stay_text(ours: JsonTokenizer, theirs: Any, mark: str) -> None:
    """As transformers has it with `split_special_tokens`: nobody ends a turn from within one."""
    text = f"a{mark}b {mark}\n{mark}"
    ids = ours.encode(text)
    assert ids == theirs(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert ours.token(mark) not in ids
    assert decode(ours, ids) == text


QUESTIONS = ("What is the rate?", "Is it sinus rhythm?\nAnd the axis?", " Ärzte: 心电图? ")


@pytest.mark.parametrize("image", [True, False])
def test_a_conversation_is_llava_next_s(qwen: Path, theirs: Any, image: bool) -> None:
    """As `conv_qwen` of LLaVA-NeXT's conversation.py writes it, cut at the image by mm_utils.py."""
    prompts = PromptBuilder.of(Checkpoint(qwen).spec, qwen / "tokenizer.json")
    ids: list[int] = []
    text = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    for number, question in enumerate(QUESTIONS):
        slot = "<image>\n" if image and number == 0 else ""
        ids += prompts.next_turn(question) if number else prompts.first_turn(question, image)
        text += f"<|im_start|>user\n{slot}{question}<|im_end|>\n<|im_start|>assistant\n"
        chunks = [theirs(chunk).input_ids for chunk in text.split("<image>")]
        expected = [*chunks[0], *(token for chunk in chunks[1:] for token in (IMAGE, *chunk))]
        assert ids == expected
        ids += prompts.given_answer(f"Answer {number}.")
        text += f"Answer {number}.<|im_end|>\n"


LLAMA_TEXTS = [text for text in TEXTS if "\x00" not in text and not text.startswith("<s>")]


@pytest.mark.parametrize("legacy", [True, False])
def test_a_llama_tokenizer_in_json_makes_the_sentencepiece_model_s_ids(
    tmp_path: Path, legacy: bool
) -> None:
    """transformers' conversion of the tiny tokenizer.model, in chunks and behind `</s>`.

    Its conversions put no dummy space before a text that begins with a space.
    """
    path = tiny.make_checkpoint(tmp_path / "checkpoint", layout="hf_next", legacy=legacy)
    fast = transformers.LlamaTokenizerFast.from_pretrained(path, legacy=legacy)
    prompts = {}
    for name in ("tokenizer.model", "tokenizer.json"):
        if name == "tokenizer.json":
            fast.save_pretrained(tmp_path / "fast")
            (path / name).write_bytes((tmp_path / "fast" / name).read_bytes())
            (path / "tokenizer.model").unlink()
        prompts[name] = PromptBuilder.of(Checkpoint(path).spec, path / name)
    model, json_ = (builder.tokenizer for builder in prompts.values())
    for text in LLAMA_TEXTS:
        plain = {"add_special_tokens": False, "split_special_tokens": True}
        expected = fast(text, **plain).input_ids if text[0] == " " else model.encode(text)
        assert json_.encode(text) == expected, repr(text)
        assert json_.encode_spelled(text) == model.encode_spelled(text), repr(text)
        assert decode(json_, json_.encode(text)) == decode(model, model.encode(text))
    first, second = (b.first_turn("What is </s> it?") for b in prompts.values())
    assert first == second


def test_a_llama_tokenizer_of_transformers_4(tmp_path: Path) -> None:
    """Its spaces are spelled by a normalizer, which puts one before every stretch of text."""
    path = tiny.make_checkpoint(tmp_path / "checkpoint", layout="hf_next", legacy=True)
    model = PromptBuilder.of(Checkpoint(path).spec, path / "tokenizer.model")
    transformers.LlamaTokenizerFast.from_pretrained(path).save_pretrained(tmp_path / "fast")
    stored = json.loads((tmp_path / "fast" / "tokenizer.json").read_text())
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    parts = [{"type": "Prepend", "prepend": "\u2581"}, spaces]
    stored |= {"pre_tokenizer": None, "normalizer": {"type": "Sequence", "normalizers": parts}}
    (path / "tokenizer.json").write_text(json.dumps(stored))
    (path / "tokenizer.model").unlink()
    fast = PromptBuilder.of(Checkpoint(path).spec, path / "tokenizer.json")
    for text in LLAMA_TEXTS:
        assert fast.tokenizer.encode(text) == model.tokenizer.encode(text), repr(text)
    for ours, theirs in ((fast.first_turn, model.first_turn), (fast.next_turn, model.next_turn)):
        assert ours("What is it?") == theirs("What is it?")
