"""Keeps an answer within a JSON schema: which tokens may come next (llguidance)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pulse_edge.arrays import Floats
from pulse_edge.errors import ParameterError
from pulse_edge.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

INSTALL = "a JSON schema needs llguidance; pip install 'pulse-edge[schema]'"
LONGEST_SCHEMA = 1 << 16  # characters
_LOWEST = float(np.finfo(np.float32).min)
# Options of llguidance's, which a schema cannot change. White space is as `json.dumps` writes it:
# if it were free, a model could go on with it for ever.
_WRITING = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": False,
    "coerce_one_of": False,
    # Without \/ and \u: a key that is spelled by escapes would pass for an additional one.
    "json_allowed_escapes": '"\\bfnrt',
}
# What llguidance puts around a reason: where it stands in our grammar, and that grammar's text.
_PLACE = "at 2(9): failed to compile JSON schema: "
_EXCERPT = re.compile(r"\n   1 \| |\n?<state>")
# llguidance leaves out of a constant or a pattern, without a word, what only \u could write.
_UNWRITABLE = frozenset(map(chr, [*range(0x20), 0x7F])) - set("\b\f\n\r\t")
_UNWRITABLE_ESCAPES = frozenset("xuUca0v")  # of regular expressions
_UNWRITABLE_CLASS = re.compile(r"\\[pP]\{?\^?C|\[:\^?cntrl")


class Constraint:
    """One answer's place in its grammar. The tokens that it allows spell the grammar's bytes."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def masked(self, logits: Floats) -> Floats:
        """A copy of logits [vocab], minus infinity where a token may not come next.

        Raises:
            ParameterError: the grammar is too complex at this place.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = np.flatnonzero(np.unpackbits(bits, bitorder="little")[: len(logits)])
        if len(allowed) == 0:
            raise _refused("no token of this model can go on with it")
        masked = np.full_like(logits, -np.inf)
        # Not infinity: a token that may come must not tie with one that may not.
        masked[allowed] = np.maximum(logits[allowed], _LOWEST)
        return masked

    def accept(self, token: int) -> None:
        """Go on after a token that `masked` allowed."""
        self._matcher.consume_token(token)
        self._check()

    @property
    def ended(self) -> bool:
        """Whether the grammar is complete and nothing can follow."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refused(f"nothing can follow what it has led to: {self._matcher.get_error()}")


class Grammars:
    """Makes constraints for one model's tokens. The first one takes some milliseconds.

    Args:
        tokenizer: of the model.
        ends: ids of the tokens that end an answer.
        lead: what the model has learned to write before an answer.
    """

    def __init__(self, tokenizer: Tokenizer, ends: Collection[int], lead: str = " ") -> None:
        self._tokenizer = tokenizer
        self._lead = lead
        self._ends = sorted(ends)

    def check(self, schema: str | None) -> None:
        """Refuse a schema that `constraint` would refuse. None is none.

        Raises:
            ParameterError: see `constraint`.
        """
        self.constraint(schema)

    def constraint(self, schema: str | None) -> Constraint | None:
        """What keeps an answer within a schema, from the answer's beginning.

        Args:
            schema: JSON schema as text; None for no constraint.

        Raises:
            ParameterError: llguidance is not installed; or the text is no JSON schema, or one that
                cannot be kept.
        """
        if schema is None:
            return None
        tokens = self._tokens  # first: it says how to install what the next line imports
        from llguidance import LLMatcher

        grammar = _grammar(schema, self._lead)

        failed, problems = LLMatcher.validate_grammar_with_warnings(grammar, tokens)
        if failed or problems:
            raise _refused(problems[0])
        return Constraint(LLMatcher(tokens, grammar, log_level=0))

    @cached_property
    def _tokens(self) -> LLTokenizer:
        try:
            from llguidance import LLTokenizer, TokenizerWrapper
        except ImportError:
            raise ParameterError(INSTALL) from None
        departure = self._tokenizer.departure()
        if departure is not None:
            raise ParameterError(
                f"this model's tokenizer cannot keep to a JSON schema: {departure}; "
                "ask without `schema`"
            )
        spelling = _Spelling(self._tokenizer, self._ends)
        return LLTokenizer(
            TokenizerWrapper(spelling),
            n_vocab=len(spelling.tokens),
            eos_token=self._ends,
            slices=LLTokenizer.json_slices(),
        )


class _Spelling:
    """The model's tokens as llguidance wants them: bytes of each, and tokens of bytes.

    The attributes' names are llguidance's.
    """

    def __init__(self, tokenizer: Tokenizer, ends: list[int]) -> None:
        size = max(tokenizer.size, ends[-1] + 1)
        special = [i for i in range(size) if i >= tokenizer.size or tokenizer.is_special(i)]
        self.tokens = [tokenizer.piece_bytes(i) for i in range(size)]
        for token in special:
            self.tokens[token] = f"<special {token}>".encode()  # never matches: it is special
        self.special_token_ids = special
        self.bos_token_id = tokenizer.bos if tokenizer.bos >= 0 else None
        self.eos_token_id = ends[0]
        self._encode: Callable[[str], list[int]] = tokenizer.encode_spelled
        self._byte_tokens = tokenizer.byte_tokens

    def __call__(self, text: bytes) -> list[int]:
        """Tokens that spell exactly `text`."""
        try:
            ids = self._encode(text.decode())
        except UnicodeDecodeError:
            ids = []
        if b"".join(self.tokens[token] for token in ids) == text:
            return ids
        return [self._byte_tokens[byte] for byte in text]


def _grammar(schema: str, lead: str) -> str:
    """A grammar of llguidance's: what comes before an answer, then JSON that fits the schema."""
    text = json.dumps(_parsed(schema) | {"x-guidance": _WRITING})
    start = f"{json.dumps(lead)} answer" if lead else "answer"
    return f"start: {start}\nanswer: %json {text}\n"


def _parsed(schema: str) -> dict[str, Any]:
    if len(schema) > LONGEST_SCHEMA:
        raise _refused(f"it has {len(schema)} characters, and may have {LONGEST_SCHEMA}")
    try:
        rules = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise _refused(f"it is not JSON: {error}") from None
    if not isinstance(rules, dict):
        raise _refused(f"it is {type(rules).__name__}, and must be a JSON object")
    for part in _parts_of(rules):
        if isinstance(part, str) and not _UNWRITABLE.isdisjoint(part):
            raise _refused("it holds a control character that only an escape can write")
        if isinstance(part, dict):
            _check_count(part)
            _check_patterns(part)
    return rules


def _parts_of(rules: Any) -> Iterator[Any]:
    """Every value and every key in a schema."""
    waiting = [rules]
    while waiting:
        part = waiting.pop()
        yield part
        if isinstance(part, dict):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            waiting += part


def _check_count(rules: dict[str, Any]) -> None:
    """Refuse a least number of properties that one key, written twice, would reach."""
    least = rules.get("minProperties")
    required = rules.get("required", [])
    if isinstance(least, int) and isinstance(required, list) and least > max(1, len(required)):
        raise _refused("minProperties counts more than `required` names")


def _check_patterns(rules: dict[str, Any]) -> None:
    """Refuse regular expressions that ask for control characters."""
    keys = rules.get("patternProperties")
    for pattern in [rules.get("pattern"), *(keys if isinstance(keys, dict) else ())]:
        if not isinstance(pattern, str):
            continue
        escapes = re.findall(r"\\(.)", pattern, re.DOTALL)
        if not _UNWRITABLE_ESCAPES.isdisjoint(escapes) or _UNWRITABLE_CLASS.search(pattern):
            raise _refused(
                f"a pattern has an escape that may be a control character: {pattern[:60]!r}"
            )


def _refused(problem: str) -> ParameterError:
    reason = _EXCERPT.split(problem)[0].removeprefix(_PLACE)
    reason = " ".join(reason.split())[:200]
    return ParameterError(f"the JSON schema cannot be used ({reason}); simplify it")
