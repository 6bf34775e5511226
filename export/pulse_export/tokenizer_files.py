"""The tokenizer's files -> `PromptSpec`.

A tokenizer.model wins over a tokenizer.json beside it, because LLaVA trains with the tokenizer that
reads it, and both must hold the same vocabulary. `tokenizer_json` is about checkpoints with only
the latter.

What would give a prompt other ids, or tokens without text, is refused. Sources: transformers 4.37
tokenization_llama.py, where the flags change ids; LLaVA's mm_utils.py `tokenizer_image_token`,
which expects a beginning token and no end token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pulse_edge.bundle.manifest import FAST_TOKENIZER, TOKENIZER, TOKENIZERS
from pulse_edge.bundle.spec import ModelSpec, PromptSpec, TextSpec
from pulse_edge.errors import BundleError, CheckpointError
from pulse_edge.text.tokenizer import Tokenizer
from pulse_export.chat_template import DEFAULT_TEMPLATE, TEMPLATES, check_chat_templates
from pulse_export.fields import Fields
from pulse_export.strict_json import read_json
from pulse_export.tokenizer_json import fitted_to_json, json_prompt_spec

CLASSES = ("LlamaTokenizer", "LlamaTokenizerFast", None)
# Classes that do what tokenizer.json says, whose vocabulary is compared with tokenizer.model.
GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")
# Tokens beyond the SentencePiece model that stand for no text: conversions add them.
ORDINARY = frozenset({"<image>", "<pad>", "[PAD]"})
UNUSED = "if the model never uses it, remove it there"
MAKE = (
    'python -c "from transformers import AutoTokenizer as A; '
    "A.from_pretrained('{path}').save_pretrained('{path}')\""
)
SPECIAL_FILES = ("tokenizer_config.json", "special_tokens_map.json")


def tokenizer_name(path: Path) -> str:
    """Name of the tokenizer's file in a checkpoint's directory.

    Raises:
        CheckpointError: there is none.
    """
    for name in TOKENIZERS:
        if (path / name).exists():
            return name
    advice = "copy the tokenizer from the checkpoint that this one was made from"
    if (path / "vocab.json").exists() and (path / "merges.txt").exists():
        advice = f"make {FAST_TOKENIZER} of its vocab.json, where transformers is installed: {MAKE}"
        advice = advice.format(path=path)
    raise CheckpointError(f"{path}: no {' and no '.join(TOKENIZERS)}; {advice}")


def prompt_spec(path: Path, template: str | None, default: str = DEFAULT_TEMPLATE) -> PromptSpec:
    """The conversation's format and the tokenizer's quirks.

    Args:
        path: the checkpoint's directory.
        template: a name in `TEMPLATES` to take whatever the checkpoint's own chat templates say;
            None to refuse foreign ones.
        default: the conversation of models with this decoder.

    Raises:
        CheckpointError: a flag changes the ids of a prompt, or a chat template is foreign. The
            message names it.
    """
    name = template or default
    if name not in TEMPLATES:
        raise CheckpointError(f"template {name!r:.60} is not one of {', '.join(TEMPLATES)}")
    if template is None:
        check_chat_templates(path, name)
    if tokenizer_name(path) == FAST_TOKENIZER:
        return json_prompt_spec(path, name)
    if TEMPLATES[name].get("style") == "chatml":
        raise CheckpointError(
            f"{path}: {TOKENIZER} has no tokens for the turns of {name}; remove it if the model's "
            f"tokenizer is {FAST_TOKENIZER}"
        )
    file = path / "tokenizer_config.json"
    config = Fields(read_json(file) if file.exists() else {}, str(file))
    classes = (*CLASSES, *GENERIC) if (path / "tokenizer.json").exists() else CLASSES
    config.only("tokenizer_class", *classes, advice="other classes make other ids")
    config.only("legacy", True, False, None)
    config.only("add_bos_token", True, None, advice=f"prompts of {name} begin with <s>")
    config.only("add_eos_token", False, None, advice=f"prompts of {name} do not end with </s>")
    config.only("add_prefix_space", True, None, advice=f"prompts of {name} begin with a space")
    config.only("sp_model_kwargs", {}, None, advice="they change how text is cut")
    config.only("auto_map", None, {}, advice="the repository's own code is not run")
    # Hugging Face's slow tokenizer takes an absent flag as true.
    return PromptSpec(**TEMPLATES[name], legacy=config.get("legacy") is not False)


def fitted_to_tokenizer(spec: ModelSpec, path: Path) -> TextSpec:
    """The decoder with the tokenizer's end token first, which separates turns.

    Args:
        spec: of the model that takes the tokenizer's ids.
        path: the checkpoint's directory.

    Returns:
        The decoder with the same end tokens.

    Raises:
        CheckpointError: the file is no tokenizer, departs from the conventions of its kind, does
            not fit the decoder, or other files add tokens that have no text.
    """
    if tokenizer_name(path) == FAST_TOKENIZER:
        return fitted_to_json(spec, path, list(_added_tokens(path)))
    return _fitted_to_model(spec.text, path, path / TOKENIZER)


def _fitted_to_model(text: TextSpec, path: Path, file: Path) -> TextSpec:
    try:
        tokenizer = Tokenizer(file, legacy=True)
    except BundleError as error:
        raise CheckpointError(str(error)) from None
    departure = tokenizer.departure()
    if departure:
        raise CheckpointError(f"{file}: not a tokenizer like Llama's: {departure}")
    if tokenizer.size > text.vocab:
        raise CheckpointError(
            f"{file}: {tokenizer.size} pieces, but config.json says vocab_size {text.vocab}"
        )
    _check_ends(path, file, tokenizer, text)
    _check_added(path, tokenizer)
    _check_vocabulary(path, file, tokenizer)
    return replace(text, eos=tuple(dict.fromkeys((tokenizer.eos, *text.eos))))


def _check_ends(path: Path, file: Path, tokenizer: Tokenizer, text: TextSpec) -> None:
    """A prompt begins with the one, a turn ends with the other."""
    if tokenizer.bos != text.bos:
        raise CheckpointError(
            f"{file}: its beginning token is {tokenizer.bos}, but config.json says bos_token_id "
            f"{text.bos}; make the two agree"
        )
    if tokenizer.eos not in text.eos:
        raise CheckpointError(
            f"{file}: its end token is {tokenizer.eos}, but eos_token_id in config.json and "
            f"generation_config.json is {list(text.eos)}; make them agree"
        )
    for name in SPECIAL_FILES:
        special = path / name
        if not special.exists():
            continue
        config = Fields(read_json(special), str(special))
        for key, token in (("bos_token", tokenizer.bos), ("eos_token", tokenizer.eos)):
            content = _content(config.get(key))
            if content is not None and content != tokenizer.piece(token):
                raise CheckpointError(
                    f"{special}: {key} is {content!r:.60}, but {file.name} has "
                    f"{tokenizer.piece(token)!r}; make the two agree"
                )


def _check_added(path: Path, tokenizer: Tokenizer) -> None:
    special = {tokenizer.piece(i): i for i in range(tokenizer.size) if tokenizer.is_special(i)}
    for where, content, token in _added_tokens(path):
        own = content in special and token in (None, special[content])
        beyond = token is None or token >= tokenizer.size
        if not own and not (content in ORDINARY and beyond):
            raise CheckpointError(
                f"{where}: token {content!r:.60} is no special token of {TOKENIZER}, so prompts "
                f"would get other ids, or answers lose its text; {UNUSED}"
            )


def _added_tokens(path: Path) -> Iterator[tuple[str, str, int | None]]:
    """File, text and id (None if not stated) of each token that the tokenizer's files add."""
    file = path / "added_tokens.json"
    if file.exists():
        for content, token in read_json(file).items():
            yield str(file), content, _token(token, str(file))
    file = path / "tokenizer.json"
    if file.exists():
        for entry in _listed(read_json(file).get("added_tokens"), str(file), "added_tokens"):
            yield str(file), str(_content(entry)), _token(entry.get("id"), str(file))
    for name in SPECIAL_FILES:
        file = path / name
        if not file.exists():
            continue
        config = Fields(read_json(file), str(file))
        for number, entry in config.part("added_tokens_decoder").values.items():
            token = int(number) if number.isdecimal() and len(number) < 10 else -1
            yield str(file), str(_content(entry)), token
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = config.get(key, [])
            for entry in more.values() if isinstance(more, dict) else _entries(more, file, key):
                yield str(file), str(_content(entry)), None


def _check_vocabulary(path: Path, file: Path, tokenizer: Tokenizer) -> None:
    """tokenizer.json, where it lies beside, must be the same vocabulary."""
    fast = path / "tokenizer.json"
    model = Fields(read_json(fast), str(fast)).part("model") if fast.exists() else None
    vocabulary = model.get("vocab") if model else None
    if isinstance(vocabulary, list):  # Unigram's: [piece, score]
        vocabulary = {str(_first(entry)): i for i, entry in enumerate(vocabulary)}
    if not isinstance(vocabulary, dict):
        return
    for token in range(tokenizer.size):
        if vocabulary.get(tokenizer.piece(token)) != token:
            raise CheckpointError(
                f"{fast}: another vocabulary than {file.name}, first at token {token}; "
                f"remove the one of the two that the model was not trained with"
            )


def _first(entry: Any) -> Any:
    return entry[0] if isinstance(entry, list) and entry else entry


def _content(token: Any) -> str | None:
    """A token's text: itself, or an object that holds it."""
    value = token.get("content") if isinstance(token, dict) else token
    return None if value is None else str(value)


def _token(value: Any, where: str) -> int:
    return Fields({"id": value}, where).whole("id", least=0)


def _listed(value: Any, where: str, key: str) -> list[dict[str, Any]]:
    entries = [] if value is None else value
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CheckpointError(f"{where}: {key} is {value!r:.60}, must be a list of objects")
    return entries


def _entries(value: Any, file: Path, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise CheckpointError(f"{file}: {key} is {value!r:.60}, must be a list")
    return value
