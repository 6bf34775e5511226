"""The optional field `self_test` of a manifest: left out, in range, canonical."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.manifest import MANIFEST, ExpectedToken, Manifest, loads
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.errors import BundleError


@pytest.fixture
def manifest(bundle: Path) -> Manifest:
    return replace(open_bundle(bundle).manifest, self_test=None).sealed()


def with_field(manifest: Manifest, field: Any) -> bytes:
    """A manifest with any JSON as its `self_test`, in canonical form and sealed."""
    record = json.loads(dumps(manifest))
    record["seal"] = ""
    seal = record.pop("seal")
    record |= {"self_test": field, "seal": seal}

    def written() -> bytes:
        return (json.dumps(record, indent=1) + "\n").encode()

    record["seal"] = hashlib.sha256(written()).hexdigest()
    return written()


def test_a_manifest_without_the_field_is_read_as_before(manifest: Manifest) -> None:
    raw = dumps(manifest)
    assert b"self_test" not in raw
    assert loads(raw) == manifest


def test_the_embedded_bundle_needs_no_such_field() -> None:
    from pulse_edge.assets import EMBEDDED

    raw = (EMBEDDED / MANIFEST).read_bytes()
    assert dumps(loads(raw)) == raw


@pytest.mark.parametrize("token", [0, 1, 511])
@pytest.mark.parametrize("question", ["What is an ECG?", "?", "é" * 1000])
def test_a_question_and_its_token_are_read_back(
    manifest: Manifest, question: str, token: int
) -> None:
    sealed = replace(manifest, self_test=ExpectedToken(question, token)).sealed()
    assert loads(dumps(sealed)) == sealed
    assert loads(with_field(manifest, {"question": question, "token": token})) == sealed


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"question": "Q", "token": -1}, "self_test.token is -1, and the vocabulary has 512"),
        ({"question": "Q", "token": 512}, "self_test.token is 512, and the vocabulary has 512"),
        ({"question": "Q", "token": 1 << 70}, "self_test.token is"),
        ({"question": "", "token": 1}, "self_test.question is empty"),
        ({"question": " \n\t", "token": 1}, "self_test.question is empty"),
        ({"question": "Q" * 1001, "token": 1}, "self_test.question has 1,001 characters, over"),
        ({"question": "\udc80", "token": 1}, "holds half a character"),
        ({"question": "Q", "token": True}, "self_test.token: expected int"),
        ({"question": "Q", "token": 1.0}, "self_test.token: expected int"),
        ({"question": "Q", "token": "1"}, "self_test.token: expected int"),
        ({"question": "Q", "token": None}, "self_test.token: expected int"),
        ({"question": None, "token": 1}, "self_test.question: expected str"),
        ({"question": ["Q"], "token": 1}, "self_test.question: expected str"),
        ({"question": "Q"}, "self_test: missing field 'token'"),
        ({"token": 1}, "self_test: missing field 'question'"),
        ({"question": "Q", "token": 1, "answer": "A"}, "self_test: unknown field 'answer'"),
        ({}, "self_test: missing field"),
        ([], "self_test: expected an object"),
        ("Q", "self_test: expected an object"),
        (7, "self_test: expected an object"),
        (False, "self_test: expected an object"),
        (None, "self_test: expected an object"),
    ],
)
def test_a_field_that_cannot_be_is_refused(manifest: Manifest, field: Any, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        loads(with_field(manifest, field))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_field_that_was_added_later_breaks_the_seal(manifest: Manifest) -> None:
    raw = with_field(manifest, {"question": "Q", "token": 1})
    assert loads(raw).self_test == ExpectedToken("Q", 1)
    with pytest.raises(BundleError, match="edited by hand or damaged"):
        loads(raw.replace(b'"token": 1', b'"token": 2'))
