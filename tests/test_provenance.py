"""The record of what produced an answer."""

from __future__ import annotations

import dataclasses
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import pulse_edge
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.params import GenerationParams
from pulse_edge.provenance import provenance, versions

from support.paths import DOCS
from support.requests import Q1, page

SCHEMA = json.loads((DOCS / "answer.schema.json").read_text())
IMAGE: dict[str, Any] = {
    "sha256": "ab" * 32,
    "width": 3,
    "height": 2,
    "format": "PNG",
    "exif_orientation": 1,
    "alpha": "none",
    "pages": 1,
    "notes": ["Page 1 of 2 was read."],
    "views": 1,
    "tokens": 16,
}


def record(bundle: Path, model: pulse_edge.Model, **changed: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "image": IMAGE,
        "prompt": "a prompt",
        "params": GenerationParams(seed=5, stop=("x",)),
    }
    return provenance(open_bundle(bundle), model.engine, **(given | changed))


def valid(part: dict[str, Any]) -> bool:
    """Whether it fits the schema, as JSON."""
    schema = SCHEMA["properties"]["provenance"] | {"$defs": SCHEMA["$defs"]}
    jsonschema.validate(json.loads(json.dumps(part)), schema)
    return True


def test_what_it_says(bundle: Path, model: pulse_edge.Model) -> None:
    opened = open_bundle(bundle)
    params = GenerationParams(seed=5, stop=("x",))
    precision = dataclasses.asdict(opened.manifest.precision)
    assert record(bundle, model) == {
        "bundle": opened.digest,
        "verified": {"how": "checksum", "key": None},
        "checkpoint": dataclasses.asdict(opened.manifest.checkpoint),
        "image": IMAGE,
        "precision": {name: value for name, value in precision.items() if value is not None},
        "target": "cpu",
        "engine": model.engine.describe(),
        "versions": versions(),
        "machine": platform.machine(),
        "prompt": "a prompt",
        "parameters": dataclasses.asdict(params),
    }
    assert valid(record(bundle, model))
    assert record(bundle, model, image=None)["image"] is None
    assert valid(record(bundle, model, image=None))


@pytest.mark.parametrize("how", ["checksum", "expected", "signature", "unchecked"])
@pytest.mark.parametrize("key", [None, "the hospital's"])
def test_how_the_bundle_was_verified(
    bundle: Path, model: pulse_edge.Model, how: str, key: str | None
) -> None:
    told = record(bundle, model, verified={"how": how, "key": key})
    assert told["verified"] == {"how": how, "key": key}
    assert valid(told)


@pytest.mark.parametrize(
    "verified", [{"how": "trust"}, {"how": "checksum"}, {"how": "guess", "key": None}, None]
)
def test_what_is_no_verification(
    bundle: Path, model: pulse_edge.Model, verified: dict[str, Any] | None
) -> None:
    told = record(bundle, model) | {"verified": verified}
    with pytest.raises(jsonschema.ValidationError):
        valid(told)


def test_its_owner_may_change_it(bundle: Path, model: pulse_edge.Model) -> None:
    """Neither the page's record nor a later answer changes with it."""
    first = model.ask(page(), Q1, max_new_tokens=1).provenance
    whole = json.dumps(first)
    for part in ("image", "versions", "verified", "engine", "parameters", "checkpoint"):
        first[part]["notes"] = "changed"
    again = model.ask(page(), Q1, max_new_tokens=1).provenance
    again["image"]["notes"].append("changed")
    assert json.dumps(model.ask(page(), Q1, max_new_tokens=1).provenance) == whole


def test_versions() -> None:
    told = versions()
    assert told["python"] == platform.python_version()
    assert {name: version(name) for name in told.keys() - {"python"}} | {
        "python": told["python"]
    } == told
    assert told.keys() == {"pulse-edge", "numpy", "pillow", "sentencepiece", "python"}


@pytest.mark.parametrize("schema", ["{}", '{"type": "string"}', '{"enum": [1, 2]}'])
def test_a_schema_names_the_library_that_kept_to_it(model: pulse_edge.Model, schema: str) -> None:
    """Also after an answer without one, and not for the next one without one."""
    pytest.importorskip("llguidance", reason="schemas need pulse-edge[schema]")
    plain = versions()
    cases: tuple[tuple[dict[str, Any], dict[str, str]], ...] = (
        ({}, plain),
        ({"schema": schema}, plain | {"llguidance": version("llguidance")}),
        ({}, plain),
    )
    for params, expected in cases:
        answer = model.ask(None, Q1, max_new_tokens=2, **params)
        assert answer.provenance["versions"] == expected
        assert valid(answer.provenance)
