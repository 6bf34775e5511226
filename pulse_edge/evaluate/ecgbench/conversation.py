"""The arena's later turns as upstream's script sends them, token for token.

The script keeps the empty answer that it made the first prompt with, and appends the answer after
it. Separators alternate by the message's number, so every later one stands in the wrong place.
"""

from __future__ import annotations

from collections.abc import Sequence

from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.errors import ParameterError
from pulse_edge.text.template import IMAGE
from pulse_edge.text.tokenizer import Tokenizer

END = "</s>"  # the end token as text, as the template spells it
_SEPARATORS = (" ", END)  # after even messages and after odd ones
_IMAGE_MARK = "<image>\n"


def shifted_prompt(
    spec: ModelSpec, tokenizer: Tokenizer, turns: Sequence[tuple[str, str]], question: str
) -> tuple[list[int], str]:
    """The prompt of a later turn.

    Args:
        spec: of the model.
        tokenizer: of the model.
        turns: questions and the model's answers so far; at least one.
        question: the next one.

    Returns:
        Token ids, with `IMAGE` in the page's place; and the prompt as text.

    Raises:
        ParameterError: the model's prompt is of another kind than upstream's.
    """
    if spec.prompt.style is not None:
        raise ParameterError(
            f"upstream's later turns are known for llava_v1, and this model's prompt is "
            f"{spec.prompt.name}; run with --mode clean"
        )
    text = _shifted_text(spec, turns, question)
    head, mark, tail = text.partition("<image>")
    assert mark  # `_shifted_text` puts one at the first question
    ids = [spec.text.bos, *tokenizer.encode(head), IMAGE]
    for number, part in enumerate(tail.split(END)):
        if number:
            ids.append(spec.text.eos[0])
        if part:
            ids += tokenizer.encode_after_special(part) if number else tokenizer.encode(part)
    return ids, text


def _shifted_text(spec: ModelSpec, turns: Sequence[tuple[str, str]], question: str) -> str:
    prompt = spec.prompt
    answers = [answer for _, answer in turns]
    messages: list[tuple[str, str | None]] = []
    for number, asked in enumerate((*(turn[0] for turn in turns), question)):
        mark = "" if messages else _IMAGE_MARK
        messages += [(prompt.user, mark + asked), (prompt.assistant, None)]
        messages += [(prompt.assistant, answer) for answer in answers[number : number + 1]]
    parts = [prompt.system, _SEPARATORS[0]]
    for number, (role, message) in enumerate(messages):
        # An empty answer is falsy for the script as well, and gets no separator.
        parts.append(f"{role}: {message}{_SEPARATORS[number % 2]}" if message else f"{role}:")
    return "".join(parts)
