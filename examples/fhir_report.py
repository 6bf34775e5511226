"""Write the result of a panel as a FHIR R4 Bundle: a preliminary DiagnosticReport and Observations.

    python examples/fhir_report.py page.png --subject Patient/example

Without a page it takes the sample page. This is a starting point for an integration: it was tested
against FHIR's structure by hand, conforms to no profile, and was validated by no FHIR server.
"""

from __future__ import annotations

import argparse
import html
import json
import uuid
from pathlib import Path
from typing import Any

import pulse_edge

SAMPLE = Path(pulse_edge.__file__).parent / "assets" / "sample.png"
REPORT = ("11524-6", "EKG study")
IMPRESSION = ("18844-1", "EKG impression Narrative")
LOINC = {  # measurement of a result -> LOINC code and name
    "heart rate": ("8867-4", "Heart rate"),
    "RR interval": ("8637-1", "R-R interval"),
    "PR interval": ("8625-6", "P-R interval"),
    "QRS duration": ("8633-0", "QRS duration"),
    "QT interval": ("8634-8", "Q-T interval"),
    "QTc interval": ("8636-3", "Q-T interval corrected"),
    "QTc interval (Bazett)": ("76635-2", "Q-T interval corrected by Bazett formula"),
    "QTc interval (Fridericia)": ("76634-5", "Q-T interval corrected by Fridericia formula"),
    "P axis": ("8626-4", "P wave axis"),
    "QRS axis": ("8632-2", "QRS axis"),
    "T axis": ("8638-9", "T wave axis"),
}


def fhir_bundle(result: dict[str, Any], subject: str) -> dict[str, Any]:
    """A FHIR R4 Bundle of a result (docs/result.schema.json) about a subject, as "Patient/123"."""
    software = entry("Device", **software_device(result["provenance"]))
    cart = entry("Device", deviceName=[{"name": "ECG recorder", "type": "user-friendly-name"}])
    devices = {"model": software, "cart": cart}
    common = {"status": "preliminary", "subject": {"reference": subject}}
    observations = []
    for each in agreed(result["measurements"]):
        quantity = {"value": each["value"], "unit": each["unit"], "code": each["unit"]}
        quantity["system"] = "http://unitsofmeasure.org"
        fields = {"code": loinc(LOINC[each["name"]]), "valueQuantity": quantity}
        notes = [result["notice"], *(["given by the caller"] if each["source"] == "given" else [])]
        device = devices.get(each["source"])
        observations.append(observation(fields | common, notes, device))
    for question in result["panel"]["questions"]:
        if question["answer"] is not None:
            fields = {"code": {"text": question["prompt"]}, "valueString": question["answer"]}
            observations.append(observation(fields | common, [result["notice"]], software))
    texts = [q["text"] for q in result["panel"]["questions"] if not q["options"] and q["text"]]
    if texts:
        fields = {"code": loinc(IMPRESSION), "valueString": texts[-1]}
        observations.append(observation(fields | common, [result["notice"]], software))
    shown = " ".join([result["notice"], *texts[-1:]])
    narrative = f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{html.escape(shown)}</p></div>'
    report = entry(
        "DiagnosticReport",
        **common,
        code=loinc(REPORT),
        text={"status": "generated", "div": narrative},
        conclusion=shown,
        result=[{"reference": each["fullUrl"]} for each in observations],
    )
    used = [
        software,
        *([cart] if any(m["source"] == "cart" for m in result["measurements"]) else []),
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": [report, *observations, *used]}


def entry(kind: str, **fields: Any) -> dict[str, Any]:
    name = str(uuid.uuid4())
    resource = {"resourceType": kind, "id": name, **fields}
    return {"fullUrl": f"urn:uuid:{name}", "resource": resource}


def observation(
    fields: dict[str, Any], notes: list[str], device: dict[str, Any] | None
) -> dict[str, Any]:
    made_by = {"device": {"reference": device["fullUrl"]}} if device else {}
    return entry("Observation", **fields, **made_by, note=[{"text": note} for note in notes])


def loinc(code: tuple[str, str]) -> dict[str, Any]:
    return {"coding": [{"system": "http://loinc.org", "code": code[0], "display": code[1]}]}


def software_device(provenance: dict[str, Any]) -> dict[str, Any]:
    """The software as a Device: its version, and the bundle and checkpoint that it ran."""
    versions = {
        "software": provenance["versions"]["pulse-edge"],
        "bundle sha256": provenance["bundle"],
        "checkpoint sha256": provenance["checkpoint"]["sha256"],
    }
    return {
        "deviceName": [{"name": "pulse-edge", "type": "model-name"}],
        "version": [{"type": {"text": what}, "value": value} for what, value in versions.items()],
    }


def agreed(measurements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One measurement of each name and source, where the texts agree about its value."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in measurements:
        groups.setdefault((each["name"], each["source"]), []).append(each)
    alike = [group for group in groups.values() if len({each["value"] for each in group}) == 1]
    return [group[-1] for group in alike if group[-1]["value"] is not None]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--subject", default="Patient/example", help="a reference, as Patient/123")
    arguments = parser.parse_args()
    result = pulse_edge.load().panel(arguments.page)
    print(json.dumps(fhir_bundle(result.to_dict(), arguments.subject), indent=2))
