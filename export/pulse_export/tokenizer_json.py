"""A checkpoint whose only tokenizer is tokenizer.json -> `PromptSpec`.

What would give a prompt other ids, or tokens without text, is refused. Sources: transformers'
tokenization_utils_base.py and tokenization_utils_fast.py, for which files add tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pulse_edge.bundle.manifest import FAST_TOKENIZER
from pulse_edge.bundle.spec import ModelSpec, PromptSpec, TextSpec
from pulse_edge.errors import BundleError, CheckpointError, ParameterError
from pulse_edge.text.json_tokenizer import JsonTokenizer
from pulse_edge.text.open_tokenizer import open_tokenizer
from pulse_edge.text.styles import TURN_BEGINS, TURN_ENDS
from pulse_export.chat_template import TEMPLATES
from pulse_export.fields import Fields
from pulse_export.strict_json import read_json

LLAMA_CLASSES = ("LlamaTokenizer", "LlamaTokenizerFast")  # they frame a text by their flags
CLASSES = (
    *LLAMA_CLASSES,
    "Qwen2Tokenizer",
    "Qwen2TokenizerFast",
    "PreTrainedTokenizerFast",
    "TokenizersBackend",
    None,
)
# Tokens beyond the vocabulary that stand for no text: conversions add them.
ORDINARY = frozenset({"<image>", "<pad>", "[PAD]"})
Added = tuple[str, str, int | None]  # file, text, and id if it is stated


def json_prompt_spec(path: Path, name: str) -> PromptSpec:
    """The conversation's format and the tokenizer's quirks.

    Args:
        path: the checkpoint's directory.
        name: of the conversation, in `TEMPLATES`.

    Raises:
        CheckpointError: the file is no tokenizer, or a flag changes the ids of a prompt. The
            message names it.
    """
    tokenizer = _json_tokenizer(path)
    config = _config(path)
    marked = _is_marked(name)
    config.only("tokenizer_class", *CLASSES, advice="other classes make other ids")
    config.only("add_eos_token", False, None, advice=f"prompts of {name} do not end so")
    config.only("auto_map", None, {}, advice="the repository's own code is not run")
    if marked:
        config.only("add_bos_token", False, None, advice=f"prompts of {name} begin with its marks")
    else:
        config.only("add_bos_token", True, None, advice=f"prompts of {name} begin with a token")
    spaced = (False, None) if tokenizer.byte_level else (True, None)
    config.only("add_prefix_space", *spaced, advice="it changes how text is cut")
    legacy = False
    if not tokenizer.byte_level:
        probe = next((i for i in range(tokenizer.size) if _is_plain_special(tokenizer, i)), None)
        legacy = probe is not None and tokenizer.spaces_after_special(probe)
    return PromptSpec(**TEMPLATES[name], legacy=legacy)


def fitted_to_json(spec: ModelSpec, path: Path, added: Sequence[Added]) -> TextSpec:
    """The decoder with the tokenizer's end token first, which separates turns.

    Args:
        spec: of the model that takes the tokenizer's ids.
        path: the checkpoint's directory.
        added: the tokens that the tokenizer's files add.

    Raises:
        CheckpointError: the file departs from the conventions of its kind, does not fit the
            decoder, or other files add tokens that it has not.
    """
    file = path / FAST_TOKENIZER
    tokenizer = _json_tokenizer(path)
    try:
        departure = tokenizer.departure()
    except ParameterError as error:
        raise CheckpointError(f"{file}: {error}") from None
    if departure:
        raise CheckpointError(f"{file}: not a tokenizer that spells every text: {departure}")
    if tokenizer.size > spec.text.vocab:
        raise CheckpointError(
            f"{file}: {tokenizer.size} tokens, but config.json says vocab_size {spec.text.vocab}"
        )
    marked = _is_marked(spec.prompt.name)
    if not marked:
        _check_bos(file, tokenizer, spec)
    end = _turn_end(path, tokenizer, spec, marked)
    _check_frame(file, tokenizer, spec, marked, _config(path).get("tokenizer_class"))
    _check_listed(tokenizer, added)
    begins = _mark(file, tokenizer) if marked else spec.text.bos
    _check_strips(file, tokenizer, {begins, end})
    return replace(spec.text, eos=tuple(dict.fromkeys((end, *spec.text.eos))))


def _json_tokenizer(path: Path) -> JsonTokenizer:
    file = path / FAST_TOKENIZER
    read_json(file)  # strictly: a key that stands twice is refused
    try:
        tokenizer = open_tokenizer(file, legacy=False)
    except BundleError as error:
        raise CheckpointError(str(error)) from None
    assert isinstance(tokenizer, JsonTokenizer)
    return tokenizer


def _config(path: Path) -> Fields:
    file = path / "tokenizer_config.json"
    return Fields(read_json(file) if file.exists() else {}, str(file))


def _is_marked(name: str) -> bool:
    """Whether turns have marks of their own, and a conversation no beginning token."""
    return TEMPLATES[name].get("style") == "chatml"


def _is_plain_special(tokenizer: JsonTokenizer, token: int) -> bool:
    return tokenizer.token(tokenizer.piece(token)) == token


def _mark(file: Path, tokenizer: JsonTokenizer) -> int:
    mark = tokenizer.token(TURN_BEGINS)
    if mark is None:
        raise CheckpointError(
            f"{file}: no special token {TURN_BEGINS}, which begins a turn; "
            "export with the --template that the model was trained with"
        )
    return mark


def _check_bos(file: Path, tokenizer: JsonTokenizer, spec: ModelSpec) -> None:
    bos = spec.text.bos
    content = _token_text(_config(file.parent).get("bos_token"))
    special = bos < tokenizer.size and tokenizer.is_special(bos) and tokenizer.piece(bos)
    if not special:
        raise CheckpointError(
            f"{file}: token {bos}, the bos_token_id of config.json, is no special token; "
            "make the two agree"
        )
    if content is not None and content != tokenizer.piece(bos):
        raise CheckpointError(
            f"{file.parent / 'tokenizer_config.json'}: bos_token is {content!r:.60}, but "
            f"bos_token_id {bos} is {tokenizer.piece(bos)!r:.60}; make the two agree"
        )


def _turn_end(path: Path, tokenizer: JsonTokenizer, spec: ModelSpec, marked: bool) -> int:
    """The token that ends an answer before another turn."""
    file = path / FAST_TOKENIZER
    ends = spec.text.eos
    content = TURN_ENDS if marked else _token_text(_config(path).get("eos_token"))
    if content is None and ends:
        content = tokenizer.piece(ends[0]) if ends[0] < tokenizer.size else None
    end = tokenizer.token(content) if content is not None else None
    if end is None:
        raise CheckpointError(
            f"{file}: no special token {content!r:.60} that ends a turn; "
            "export with the --template that the model was trained with"
        )
    if ends and end not in ends:
        raise CheckpointError(
            f"{file}: its end token {content!r:.60} is {end}, but eos_token_id in config.json and "
            f"generation_config.json is {list(ends)}; make them agree"
        )
    return end


def _check_frame(
    file: Path, tokenizer: JsonTokenizer, spec: ModelSpec, marked: bool, kind: Any
) -> None:
    """A prompt begins and ends as LLaVA's code has it, with what the tokenizer adds."""
    before, behind = tokenizer.framed()
    legal = [[]] if marked else [[spec.text.bos]]
    if kind in LLAMA_CLASSES:
        legal.append([])
    if before not in legal or behind:
        raise CheckpointError(
            f"{file}: it puts {before} before a text and {behind} behind it, but prompts of "
            f"{spec.prompt.name} begin with {legal[0]} and end with []"
        )


def _check_listed(tokenizer: JsonTokenizer, added: Iterable[Added]) -> None:
    known = {token.content: token.id for token in tokenizer.added}
    for where, content, token in added:
        own = content in known and token in (None, known[content])
        beyond = token is None or token >= tokenizer.size
        if not own and not (content in ORDINARY and beyond):
            raise CheckpointError(
                f"{where}: token {content!r:.60} is no token of {FAST_TOKENIZER}, so prompts would "
                "get other ids; if the model never uses it, remove it there"
            )


def _check_strips(file: Path, tokenizer: JsonTokenizer, used: set[int]) -> None:
    for token in tokenizer.added:
        if token.strips and (not token.special or token.id in used):
            raise CheckpointError(
                f"{file}: token {token.content!r:.60} swallows the white space around it (lstrip, "
                "rstrip), so prompts would get other ids; set both to false if the model was "
                "trained without"
            )


def _token_text(token: Any) -> str | None:
    """A token's text: itself, or an object that holds it."""
    value = token.get("content") if isinstance(token, dict) else token
    return None if value is None else str(value)
