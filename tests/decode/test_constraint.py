"""JSON schemas: what an answer may be, and which schemas are refused."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jsonschema
import numpy as np
import pytest

import pulse_edge
from pulse_edge.arrays import Floats
from pulse_edge.decode.constraint import LONGEST_SCHEMA, Grammars
from pulse_edge.decode.logprobs import Logprobs
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.result import Generation
from pulse_edge.decode.sampler import Sampler
from pulse_edge.errors import EngineError, ParameterError
from pulse_edge.params import GenerationParams
from pulse_edge.text.tokenizer import Tokenizer

from support.counting import EOS, Run
from support.requests import Q1, page
from support.tiny import tokenizer_model
from support.tokens import TOKENS

pytest.importorskip("llguidance", reason="schemas need pulse-edge[schema]")

PROMPT = [20, 21, 22]
ECG = {
    "type": "object",
    "properties": {
        "rhythm": {"enum": ["sinus rhythm", "atrial fibrillation", "other"]},
        "rate": {"type": "integer", "minimum": 20, "maximum": 300},
        "normal": {"type": "boolean"},
    },
    "required": ["rhythm", "rate", "normal"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TOKENS, (EOS,))


def noise(seed: int) -> Any:
    """A model that writes anything, and less and less of it: quotes and brackets close."""
    closing = [TOKENS.encode("\n" + c)[-1] for c in '"}]']

    def model(cache: Sequence[int]) -> Floats:
        rng = np.random.default_rng([seed, *cache[-2:], len(cache)])
        logits = rng.normal(0, 4, TOKENS.size).astype(np.float32)
        logits[closing] += 0.2 * len(cache)
        logits[EOS] += 3
        return logits

    return model


def answer(
    grammars: Grammars, schema: Any, model: int = 0, ngrams: Ngrams | None = None, **params: Any
) -> Run:
    options = GenerationParams(**{"max_new_tokens": 300} | params, schema=json.dumps(schema))
    logprobs = Logprobs.of(options.logprobs, TOKENS)
    sampler = Sampler(options, grammars.constraint(options.schema), logprobs)
    return Run(
        noise(model),
        PROMPT,
        ngrams,
        options,
        row_cost=0.001,
        sampler=sampler,
        tokenizer=TOKENS,
    ).drain()


def spelled(out: Generation) -> str:
    return b"".join(map(TOKENS.piece_bytes, out.tokens)).decode()


# ---- answers -------------------------------------------------------------------------------------


def schema_of(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """A random schema of the kinds that forms are made of."""
    simple: list[Any] = [
        {"type": "boolean"},
        {"type": "null"},
        {"type": "integer"},
        {"type": "integer", "minimum": rng.randint(-9, 9), "maximum": rng.randint(10, 400)},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 2.5},
        {"type": "number"},
        {"type": "string", "maxLength": rng.randint(0, 12)},
        {"type": "string", "minLength": 1, "maxLength": 4},
        {"type": "string", "pattern": "^[A-Z][a-z]{1,3}$"},
        {
            "enum": rng.sample(
                ["yes", "no", "sinus rhythm", 1, None, True, "\u5fc3", 'a"b\\', "x\n"], 3
            )
        },
        {"const": rng.choice(["</s>", " lead", 2.5, [1, {"a": None}], ""])},
        {"type": ["string", "null"], "maxLength": 3},
        {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 5}]},
        {"type": "string", "format": "date"},
    ]
    if depth > 2 or rng.random() < 0.4:
        chosen: dict[str, Any] = rng.choice(simple)
        return chosen
    parts = [schema_of(rng, depth + 1) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.35:
        least = rng.randint(0, 2)
        return {"type": "array", "items": parts[0], "minItems": least, "maxItems": least + 2}
    names = rng.sample(["rate", "rhythm", "a b", "\u00e9", "", 'q"', "QRS (ms)"], len(parts))
    required = [name for name in names if rng.random() < 0.7]
    extra = rng.choice([{}, {"additionalProperties": False}, {"additionalProperties": False}])
    properties = dict(zip(names, parts, strict=True))
    return {"type": "object", "properties": properties, "required": required, **extra}


@pytest.mark.parametrize("part", range(10))
def test_every_finished_answer_fits_its_schema(grammars: Grammars, part: int) -> None:
    """200 random schemas, under greedy decoding and sampling, of a model that writes noise."""
    finished = 0
    for seed in range(20 * part, 20 * part + 20):
        schema = schema_of(random.Random(seed))
        params: dict[str, Any] = [{}, {"temperature": 1.5}, {"repetition_penalty": 1.3}][seed % 3]
        run = answer(grammars, schema, seed, seed=seed, **params)
        text = spelled(run.out)
        assert text.startswith(" ")  # the one between `ASSISTANT:` and an answer
        if run.out.finish_reason == "eos":
            finished += 1
            value = json.loads(text)
            jsonschema.validate(value, schema)
            # One way to write white space, so that nothing goes on for ever.
            assert re.sub(r'"(?:[^"\\]|\\.)*"', "", text[1:]).count(" ") == text_spaces(value)
            assert run.text == text.strip()
    assert finished >= 16


def text_spaces(value: Any) -> int:
    """Spaces outside strings as `json.dumps` writes them; a repeated key counts once more."""
    if isinstance(value, list):
        return max(0, len(value) - 1) + sum(map(text_spaces, value))
    if isinstance(value, dict):
        return max(0, 2 * len(value) - 1) + sum(map(text_spaces, value.values()))
    return 0


def test_the_same_request_gives_the_same_answer(grammars: Grammars) -> None:
    choices: tuple[dict[str, Any], ...] = ({}, {"temperature": 1.0, "seed": 3})
    for params in choices:
        first = answer(grammars, ECG, 5, **params)
        assert first.answer == answer(grammars, ECG, 5, **params).answer
        assert first.out.finish_reason == "eos"


@pytest.mark.parametrize("value", ["a", {"a b": [1, None]}, ["</s>", 2.5], "sinus rhythm", -17])
def test_what_is_forced_has_the_tokens_that_the_model_learned(
    grammars: Grammars, value: Any
) -> None:
    """Those of `ASSISTANT: {…`, with SentencePiece's space in front and none elsewhere."""
    assert answer(grammars, {"const": value}).out.tokens == TOKENS.encode(json.dumps(value))


def test_it_ends_where_nothing_can_follow(grammars: Grammars) -> None:
    """Without a step for the end token. A number could go on, so there the model says when."""
    run = answer(grammars, ECG)
    assert run.out.finish_reason == "eos"
    assert spelled(run.out).endswith("}")
    assert len(run.engine.steps) == len(run.out.tokens) - 1
    number = answer(grammars, {"type": "integer"}, 1)
    assert number.out.finish_reason == "eos"
    assert len(number.engine.steps) == len(number.out.tokens)
    assert len(answer(grammars, ECG, max_new_tokens=3).out.tokens) == 3
    whole = len(run.out.tokens)
    assert answer(grammars, ECG, max_new_tokens=whole).out.finish_reason == "eos"
    assert answer(grammars, ECG, max_new_tokens=whole - 1).out.finish_reason == "length"


def test_a_stop_string_ends_it_too(grammars: Grammars) -> None:
    run = answer(grammars, ECG, stop=('", "ra',))
    assert run.out.finish_reason == "stop"
    assert run.text == answer(grammars, ECG).text.partition('", "ra')[0]


@pytest.mark.parametrize("params", [{}, {"temperature": 0.8, "seed": 2}])
def test_drafts_change_nothing(grammars: Grammars, params: dict[str, Any]) -> None:
    """Neither drafts that are right, nor ones that the schema forbids."""
    plain = answer(grammars, ECG, 4, **params)
    for history in (plain.out.tokens, answer(grammars, {"type": "string"}, 4).out.tokens):
        ngrams = Ngrams()
        for _ in range(2):
            ngrams.begin([*PROMPT, *history])
        ngrams.record.saved = 2.0
        drafted = answer(grammars, ECG, 4, ngrams, **params)
        assert drafted.answer == plain.answer
        if history == plain.out.tokens:
            assert drafted.out.accepted > 0


def test_log_probabilities_are_those_before_the_mask(grammars: Grammars) -> None:
    run = answer(grammars, ECG, 2, logprobs=1)
    assert [record.token for record in run.out.logprobs] == run.out.tokens
    assert run.answer == answer(grammars, ECG, 2).answer
    free = noise(2)(PROMPT)
    assert run.out.logprobs[0].top[0].token == int(free.argmax())
    assert run.out.logprobs[0].token != int(free.argmax())


def test_a_token_that_the_model_rules_out_is_still_taken(grammars: Grammars) -> None:
    constraint = grammars.constraint(json.dumps({"const": "a"}))
    assert constraint is not None
    logits = np.full(TOKENS.size, -np.inf, np.float32)
    logits[TOKENS.encode("b")[0]] = 5
    token = Sampler(GenerationParams(), constraint)(logits)
    assert TOKENS.piece_bytes(token) == b" "
    with pytest.raises(EngineError, match="not finite"):
        Sampler(GenerationParams(), constraint)(np.full(TOKENS.size, np.nan, np.float32))


@pytest.mark.parametrize("padding", [0, 1, 31, 64])
def test_logits_may_be_longer_than_the_vocabulary(grammars: Grammars, padding: int) -> None:
    constraint = grammars.constraint("{}")
    assert constraint is not None
    masked = constraint.masked(np.zeros(TOKENS.size + padding, np.float32))
    allowed = np.flatnonzero(masked > -np.inf)
    assert {TOKENS.piece_bytes(int(token))[:1] for token in allowed} == {b" "}


def test_an_escape_cannot_spell_a_key_that_has_rules(grammars: Grammars) -> None:
    constraint = grammars.constraint('{"properties": {"a": {"type": "integer"}}}')
    assert constraint is not None
    for token in TOKENS.encode('{"\\'):
        assert constraint.masked(np.zeros(TOKENS.size, np.float32))[token] == 0
        constraint.accept(token)
    allowed = np.flatnonzero(constraint.masked(np.zeros(TOKENS.size, np.float32)) == 0)
    following = {TOKENS.piece_bytes(int(token))[:1] for token in allowed}
    assert following == {b'"', b"\\", b"b", b"f", b"n", b"r", b"t"}


# ---- schemas -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("", "must be a JSON schema as text"),
        ("  ", "must be a JSON schema as text"),
        ({"type": "object"}, "must be a JSON schema as text"),
        ("{", "not JSON"),
        ("{'type': 'object'}", "not JSON"),
        ("[" * 50_000, "not JSON"),
        ("[]", "it is list"),
        ("true", "it is bool"),
        ('"object"', "it is str"),
        (json.dumps({"title": "x" * LONGEST_SCHEMA}), "characters"),
        (json.dumps({"title": "x" * (65_537 - 13)}), "it has 65537 characters, and may have 65536"),
        (json.dumps({"const": "a\x1fb"}), "control character"),
        (json.dumps({"const": "a\x00b"}), "control character"),
        (json.dumps({"const": "a\x7fb"}), "control character"),
        ('{"type": "banana"}', "Invalid type: banana"),
        ('{"type": 5}', "type must be a string"),
        ('{"not": {"type": "string"}}', "not"),
        ('{"if": {}, "then": {}}', "if"),
        ('{"type": "array", "uniqueItems": true}', "uniqueItems"),
        ('{"type": "array", "contains": {"type": "integer"}}', "contains"),
        ('{"type": "object", "propertyNames": {"pattern": "^a"}}', "propertyNames"),
        ('{"dependentRequired": {"a": ["b"]}}', "dependentRequired"),
        ('{"unevaluatedProperties": false}', "unevaluatedProperties"),
        ('{"oneOf": [{"type": "number"}, {"type": "integer"}]}', "oneOf"),
        ('{"x-guidance": {"lenient": true}, "not": {}}', "not"),
        ('{"$ref": "https://example.com/schema.json"}', "example.com"),
        ('{"$ref": "#/$defs/none"}', "none"),
        ('{"type": "string", "pattern": "("}', "unclosed group"),
        ('{"type": "string", "pattern": "(?=a)b"}', "look-ahead"),
        ('{"type": "string", "format": "banana"}', "format"),
        ('{"type": "integer", "minimum": 3, "maximum": 2}', "minimum"),
        ('{"enum": []}', "Unsatisfiable"),
        ('{"type": "object", "minProperties": 2}', "minProperties"),
        ('{"items": {"minProperties": 3, "required": ["a"]}}', "minProperties"),
        ('{"enum": ["a\\u0001"]}', "control character"),
        ('{"properties": {"\\u0000": {}}}', "control character"),
        ('{"enum": ["\\u007f"]}', "control character"),
        ('{"pattern": "^a\\\\x01$"}', "control character"),
        ('{"pattern": "^a\\\\u0001$"}', "control character"),
        ('{"items": {"pattern": "[[:cntrl:]]"}}', "control character"),
        ('{"patternProperties": {"\\\\p{Cc}": {}}}', "control character"),
        ('{"minimum": NaN}', "."),
    ],
)
def test_schemas_that_are_refused(
    grammars: Grammars, schema: Any, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ParameterError, match=reason) as error:
        grammars.check(GenerationParams(schema=schema).schema)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 400
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "schema",
    [
        ECG,
        {},
        {"type": "object"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "t", "type": "null"},
        {"type": "array", "prefixItems": [{"type": "integer"}], "items": False},
        {"$defs": {"a": {"type": "integer"}}, "$ref": "#/$defs/a"},
        {"type": "object", "minProperties": 1},
        {"minProperties": 2, "required": ["a", "b"], "type": "object"},
        {"properties": {"minProperties": {"type": "integer"}, "not": {"type": "null"}}},
        {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        {"enum": ["a\nb\t\b\f\r"]},
        {"pattern": r"^\\x\\u\d+\n$"},
        {"properties": {"pattern": {"type": "string"}, "patternProperties": {"type": "null"}}},
    ],
)
def test_schemas_that_are_taken(grammars: Grammars, schema: Any) -> None:
    grammars.check(json.dumps(schema))
    grammars.check(json.dumps(schema, indent=2, ensure_ascii=False))
    assert grammars.constraint(None) is None


def test_a_place_where_nothing_can_follow_is_the_schema_s_fault(grammars: Grammars) -> None:
    constraint = grammars.constraint('{"type": "null"}')
    assert constraint is not None
    with pytest.raises(ParameterError, match=r"cannot be used \(nothing can follow"):
        constraint.accept(TOKENS.encode("banana")[0])


@pytest.mark.parametrize("change", [{"byte_fallback": False}, {"add_dummy_prefix": False}])
def test_a_tokenizer_that_is_not_llamas_is_refused(change: dict[str, Any]) -> None:
    """Its tokens could not spell every answer."""
    tokenizer = Tokenizer(tokenizer_model(**change), legacy=False)
    with pytest.raises(ParameterError, match=r"this model's tokenizer cannot .* ask without"):
        Grammars(tokenizer, (EOS,)).check("{}")
    Grammars(tokenizer, (EOS,)).check(None)


@pytest.mark.parametrize("ends", [(EOS,), (5, EOS), (EOS, TOKENS.size + 7)])
def test_any_end_token_may_end_an_answer(ends: tuple[int, ...]) -> None:
    """Where the grammar is complete, also one beyond the tokenizer's own."""
    constraint = Grammars(TOKENS, ends).constraint('{"type": "integer"}')
    assert constraint is not None
    logits = np.zeros(TOKENS.size + 64, np.float32)
    assert not np.isfinite(constraint.masked(logits)[list(ends)]).any()
    for token in TOKENS.encode("7"):
        constraint.accept(token)
    assert np.isfinite(constraint.masked(logits)[list(ends)]).all()
    assert not constraint.ended


def test_without_llguidance_it_says_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['llguidance'] = None\n"
        "import pulse_edge\n"
        "model = pulse_edge.load(threads=1)\n"
        "try: model.stream(None, 'What?', schema='{}')\n"
        "except pulse_edge.ParameterError as error: print(error)\n"
        "print(model.ask(None, 'What is the rate?', max_new_tokens=1).finish_reason)"
    )
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    problem, other = out.splitlines()
    assert problem == "a JSON schema needs llguidance; pip install 'pulse-edge[schema]'"
    assert other in ("length", "eos")


# ---- a model -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [{}, {"temperature": 1.0, "seed": 4}, {"speculate": True}, {"logprobs": 2, "top_k": 3}],
)
def test_a_model_s_answer_fits(model: pulse_edge.Model, params: dict[str, Any]) -> None:
    plain = model.ask(page(), Q1, max_new_tokens=20)
    got = model.ask(page(), Q1, max_new_tokens=120, schema=json.dumps(ECG), **params)
    assert got.finish_reason == "eos"
    jsonschema.validate(json.loads(got.text), ECG)
    assert got.provenance["parameters"]["schema"] == json.dumps(ECG)
    assert model.ask(page(), Q1, max_new_tokens=20).token_ids == plain.token_ids


def test_a_model_refuses_a_schema_before_any_work(model: pulse_edge.Model) -> None:
    for ask in (model.stream, model.chat(None).stream):
        arguments = (None, Q1) if ask == model.stream else (Q1,)
        with pytest.raises(ParameterError, match="banana"):
            ask(*arguments, schema='{"type": "banana"}')
    assert model.engine.length == 0
