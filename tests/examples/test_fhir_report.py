"""The FHIR example: resources, references, codes, and what it leaves out."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

import pulse_edge
from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.panels.measurements import QUANTITIES, Measurement
from pulse_edge.panels.result import Result

from support.paths import ROOT

EXAMPLE = runpy.run_path(str(ROOT / "examples" / "fhir_report.py"))
# The codes that docs/panels.md lists, with their meaning.
CODES = {
    *("11524-6", "18844-1", "8867-4", "8637-1", "8625-6", "8633-0", "8634-8", "8636-3"),
    *("76635-2", "76634-5", "8626-4", "8632-2", "8638-9"),
}
CODING = {
    "type": "object",
    "required": ["coding"],
    "properties": {
        "coding": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["system", "code", "display"],
                "properties": {
                    "system": {"const": "http://loinc.org"},
                    "code": {"enum": sorted(CODES)},
                    "display": {"type": "string", "minLength": 1},
                },
            },
        }
    },
    "additionalProperties": False,
}
REFERENCE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["reference"],
    "properties": {"reference": {"type": "string", "minLength": 1}},
}
COMMON = {"resourceType": True, "id": {"type": "string", "pattern": "^[A-Za-z0-9.-]{1,64}$"}}
REPORT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["resourceType", "id", "status", "code", "subject", "conclusion", "result", "text"],
    "properties": {
        **COMMON,
        "status": {"const": "preliminary"},
        "code": CODING,
        "subject": REFERENCE,
        "conclusion": {"type": "string", "minLength": 1},
        "result": {"type": "array", "items": REFERENCE},
        "text": {
            "type": "object",
            "properties": {"status": {"const": "generated"}, "div": {"pattern": "^<div xmlns="}},
        },
    },
}
QUANTITY = {
    "type": "object",
    "additionalProperties": False,
    "required": ["value", "unit", "system", "code"],
    "properties": {
        "value": {"type": "number"},
        "unit": {"type": "string"},
        "system": {"const": "http://unitsofmeasure.org"},
        "code": {"enum": ["/min", "ms", "deg"]},
    },
}
OBSERVATION = {
    "type": "object",
    "additionalProperties": False,
    "required": ["resourceType", "id", "status", "code", "subject", "note"],
    "properties": {
        **COMMON,
        "status": {"const": "preliminary"},
        "code": {
            "oneOf": [CODING, {"required": ["text"], "additionalProperties": {"type": "string"}}]
        },
        "subject": REFERENCE,
        "device": REFERENCE,
        "valueQuantity": QUANTITY,
        "valueString": {"type": "string", "minLength": 1},
        "note": {"type": "array", "items": {"type": "object", "required": ["text"]}, "minItems": 1},
    },
    "oneOf": [{"required": ["valueQuantity"]}, {"required": ["valueString"]}],
}
DEVICE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["resourceType", "id", "deviceName"],
    "properties": {
        **COMMON,
        "deviceName": {"type": "array", "items": {"type": "object", "required": ["name", "type"]}},
        "version": {"type": "array", "items": {"type": "object", "required": ["type", "value"]}},
    },
}
KINDS = {"DiagnosticReport": REPORT, "Observation": OBSERVATION, "Device": DEVICE}


@pytest.fixture(scope="module")
def result() -> Result:
    cart = {"heart rate": 74, "QTc interval (Bazett)": 421, "P axis": 50}
    return pulse_edge.load(threads=1).panel(SAMPLE_PAGE, given={"QT interval": 380}, cart=cart)


def bundle(result: Result) -> dict[str, Any]:
    made: dict[str, Any] = EXAMPLE["fhir_bundle"](result.to_dict(), "Patient/17")
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]


def resources(made: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    found = [each["resource"] for each in made["entry"]]
    return [resource for resource in found if resource["resourceType"] == kind]


def luhn(code: str) -> bool:
    digits = [int(digit) for digit in code.replace("-", "")][::-1]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def test_every_code_has_its_check_digit() -> None:
    table = {code for code, _ in EXAMPLE["LOINC"].values()}
    table |= {EXAMPLE["REPORT"][0], EXAMPLE["IMPRESSION"][0]}
    assert table == CODES
    assert all(luhn(code) for code in table)
    assert not luhn("11524-0")  # which a public table has
    for code in table:  # every other check digit is wrong
        body, _, digit = code.partition("-")
        assert [d for d in "0123456789" if luhn(f"{body}-{d}")] == [digit]


def test_every_quantity_has_a_code() -> None:
    assert EXAMPLE["LOINC"].keys() == QUANTITIES.keys()
    assert len({code for code, _ in EXAMPLE["LOINC"].values()}) == len(QUANTITIES)


def test_resources_have_the_fields_of_r4(result: Result) -> None:
    made = bundle(result)
    assert (made["resourceType"], made["type"]) == ("Bundle", "collection")
    for each in made["entry"]:
        resource = each["resource"]
        assert each["fullUrl"] == f"urn:uuid:{resource['id']}"
        jsonschema.validate(resource, KINDS[resource["resourceType"]])
    assert len({each["fullUrl"] for each in made["entry"]}) == len(made["entry"])
    assert len(resources(made, "DiagnosticReport")) == 1


def test_references_lead_into_the_bundle(result: Result) -> None:
    made = bundle(result)
    urls = {each["fullUrl"]: each["resource"] for each in made["entry"]}
    (report,) = resources(made, "DiagnosticReport")
    listed = [urls[each["reference"]] for each in report["result"]]
    assert listed == resources(made, "Observation")
    for observation in listed:
        assert observation["subject"] == report["subject"] == {"reference": "Patient/17"}
        if "device" in observation:
            assert urls[observation["device"]["reference"]]["resourceType"] == "Device"


def test_values_keep_their_source(result: Result) -> None:
    made = bundle(result)
    urls = {each["fullUrl"]: each["resource"] for each in made["entry"]}
    rates: dict[str, float] = {}
    for observation in resources(made, "Observation"):
        coding = observation["code"].get("coding", [{}])[0]
        device = observation.get("device")
        name = urls[device["reference"]]["deviceName"][0]["name"] if device else "caller"
        if coding.get("code") == "8867-4":
            rates[name] = observation["valueQuantity"]["value"]
        if coding.get("code") == "8634-8":
            assert name == "caller"
            assert {"text": "given by the caller"} in observation["note"]
        assert {"text": NOTICE} in observation["note"]
    assert rates.keys() == {"pulse-edge", "ECG recorder"}
    assert rates["ECG recorder"] == 74


def test_the_software_is_named_with_its_version_and_bundle(result: Result) -> None:
    software = resources(bundle(result), "Device")[0]
    versions = {each["type"]["text"]: each["value"] for each in software["version"]}
    assert versions["bundle sha256"] == result.provenance["bundle"]
    assert versions["software"] == result.provenance["versions"]["pulse-edge"]


def test_unparsed_answers_and_conflicting_values_are_left_out(result: Result) -> None:
    unparsed = tuple(replace(question, answer=None) for question in result.questions)
    conflict = Measurement("PR interval", None, "ms", "model", "report", ((0, 1),))
    other = Measurement("QRS duration", 999.0, "ms", "model", "rate", ((0, 1),))
    kept = tuple(each for each in result.measurements if each.name != "PR interval")
    made = bundle(replace(result, questions=unparsed, measurements=(*kept, conflict, other)))
    codes = {
        coding["code"]
        for observation in resources(made, "Observation")
        for coding in observation["code"].get("coding", ())
    }
    assert not {"8625-6", "8633-0"} & codes
    assert not [each for each in resources(made, "Observation") if "text" in each["code"]]


def test_text_of_the_model_is_escaped_in_the_narrative(result: Result) -> None:
    last = replace(result.questions[-1], text="<script>AF & LVH</script>")
    made = bundle(replace(result, questions=(*result.questions[:-1], last)))
    (report,) = resources(made, "DiagnosticReport")
    assert "<script>" not in report["text"]["div"]
    assert "&lt;script&gt;AF &amp; LVH" in report["text"]["div"]
    assert report["conclusion"].startswith(NOTICE)


def test_a_result_without_a_cart_names_none(result: Result) -> None:
    kept = tuple(each for each in result.measurements if each.source != "cart")
    made = bundle(replace(result, measurements=kept))
    assert [each["deviceName"][0]["name"] for each in resources(made, "Device")] == ["pulse-edge"]
