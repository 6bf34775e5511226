"""The arena's later turns, as upstream's script sends them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulse_edge.assets import EMBEDDED
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.manifest import TOKENIZER
from pulse_edge.evaluate.ecgbench.conversation import shifted_prompt
from pulse_edge.text.template import IMAGE
from pulse_edge.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def bundle() -> tuple[object, Tokenizer]:
    opened = open_bundle(EMBEDDED)
    spec = opened.manifest.model
    return spec, Tokenizer(opened.read(TOKENIZER), spec.prompt.legacy)


@pytest.mark.parametrize(
    ("turns", "question", "tail"),
    [
        ([("Q1", "R1")], "Q2", "Q1 ASSISTANT:ASSISTANT: R1 USER: Q2</s>ASSISTANT:"),
        ([("Q1", "")], "Q2", "Q1 ASSISTANT:ASSISTANT:USER: Q2</s>ASSISTANT:"),
        ([("a b", "c\nd")], "e?", "a b ASSISTANT:ASSISTANT: c\nd USER: e?</s>ASSISTANT:"),
        (
            [("Q1", "R1"), ("Q2", "R2")],
            "Q3",
            "Q1 ASSISTANT:ASSISTANT: R1 USER: Q2</s>ASSISTANT:ASSISTANT: R2</s>USER: Q3 ASSISTANT:",
        ),
    ],
)
def test_separators_alternate_by_the_messages_number(
    bundle: tuple[object, Tokenizer], turns: list[tuple[str, str]], question: str, tail: str
) -> None:
    spec, tokenizer = bundle
    ids, text = shifted_prompt(spec, tokenizer, turns, question)  # type: ignore[arg-type]
    system = spec.prompt.system  # type: ignore[attr-defined]
    assert text == f"{system} USER: <image>\n{tail}"
    assert ids[0] == tokenizer.bos
    assert ids.count(IMAGE) == 1
    assert ids.count(tokenizer.eos) == tail.count("</s>")
    head = tokenizer.encode(f"{system} USER: ")
    before, *after = f"\n{tail}".split("</s>")
    expected = [tokenizer.bos, *head, IMAGE, *tokenizer.encode(before)]
    for part in after:
        expected += [tokenizer.eos, *tokenizer.encode_after_special(part)]
    assert ids == expected


def test_the_first_turn_is_the_beginning_of_the_second(
    bundle: tuple[object, Tokenizer], tmp_path: Path
) -> None:
    """So that the page is not computed again."""
    from pulse_edge.text.template import PromptBuilder

    spec, tokenizer = bundle
    opened = open_bundle(EMBEDDED)
    first = PromptBuilder.of(opened.manifest.model, opened.read(TOKENIZER)).first_turn("Q1")
    ids, _ = shifted_prompt(spec, tokenizer, [("Q1", "R1")], "Q2")  # type: ignore[arg-type]
    assert ids[: len(first)] == first


def test_other_conversations_are_not_shifted(bundle: tuple[object, Tokenizer]) -> None:
    from dataclasses import replace
    from typing import Any

    from pulse_edge.errors import ParameterError

    spec: Any = bundle[0]
    other = replace(spec, prompt=replace(spec.prompt, name="mistral_instruct", style="llama_2"))
    with pytest.raises(ParameterError, match=r"mistral_instruct; run with --mode clean"):
        shifted_prompt(other, bundle[1], [("Q1", "R1")], "Q2")
