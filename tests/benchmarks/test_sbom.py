"""The bill of materials and the table of SOUP, of the environment that runs the tests."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("cyclonedx", reason="the bill of materials needs pulse-edge[sbom]")

from benchmarks.sbom.__main__ import command
from benchmarks.sbom.document import bill_of_materials, check_document
from benchmarks.sbom.packages import Package, Part, installed_packages
from benchmarks.sbom.soup import COLUMNS, PURPOSES, soup_table
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.errors import PulseEdgeError


@pytest.fixture(scope="module")
def packages() -> dict[str, Package]:
    return installed_packages(["cpu"])


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {component["name"]: component for component in document["components"]}


def test_what_an_installation_runs(packages: dict[str, Package]) -> None:
    assert next(iter(packages)) == "pulse-edge"
    assert {"numpy", "pillow", "sentencepiece", "click", "onnxruntime"} <= packages.keys()
    assert not packages.keys() & {"pytest", "torch", "ruff", "cyclonedx-python-lib", "pydicom"}
    for name, package in packages.items():
        if name != "python":
            assert package.version == importlib.metadata.version(name)
    assert packages["python"].version == platform.python_version()
    assert "numpy" in packages["pulse-edge"].requires
    assert packages["numpy"].requires == ("python",)


def test_extras_bring_their_packages(packages: dict[str, Package]) -> None:
    pytest.importorskip("pydicom")
    assert installed_packages(["cpu", "ecg"]).keys() - packages.keys() == {"pydicom"}
    assert "onnxruntime" not in installed_packages([])


def test_every_package_has_a_licence_and_a_purpose(packages: dict[str, Package]) -> None:
    for package in packages.values():
        assert package.licence, package.name
    assert packages.keys() - PURPOSES.keys() == {"pulse-edge"}


def test_the_document_lists_packages_and_the_bundle(
    packages: dict[str, Package], bundle: Path
) -> None:
    opened = open_bundle(bundle)
    text = bill_of_materials(packages, [opened], "Apache-2.0")
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"] == "pulse-edge"
    components = by_name(document)
    assert components["numpy"]["purl"] == f"pkg:pypi/numpy@{packages['numpy'].version}"
    manifest = opened.manifest
    model = components[manifest.checkpoint.name]
    assert model["type"] == "machine-learning-model"
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    facts = {entry["name"]: entry["value"] for entry in model["properties"]}
    assert facts["pulse-edge:seal"] == opened.digest
    assert facts["pulse-edge:checkpoint-sha256"] == manifest.checkpoint.sha256
    hashes = {file["name"]: file["hashes"][0]["content"] for file in model["components"]}
    assert hashes == {entry.path: entry.sha256 for entry in manifest.files}
    depends = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    assert f"bundle:{opened.digest}" in depends[document["metadata"]["component"]["bom-ref"]]


def test_what_a_wheel_contains_is_listed_in_its_package(packages: dict[str, Package]) -> None:
    part = Part("libjpeg", "9.6", "pkg:generic/libjpeg@9.6")
    pillow = packages["pillow"]
    changed = packages | {"pillow": Package(**vars(pillow) | {"parts": (part,)})}
    document = json.loads(bill_of_materials(changed, []))
    inner = by_name(document)["pillow"]["components"]
    assert [(c["name"], c["version"], c["purl"]) for c in inner] == [
        ("libjpeg", "9.6", "pkg:generic/libjpeg@9.6")
    ]


@pytest.mark.parametrize(
    "edit", [{"version": "new"}, {"bomFormat": "SPDX"}, {"zzz": 1}, {"components": {}}]
)
def test_a_document_that_does_not_fit_the_schema(
    packages: dict[str, Package], edit: dict[str, Any]
) -> None:
    document = json.loads(bill_of_materials(packages, [])) | edit
    with pytest.raises(PulseEdgeError, match="does not fit its schema"):
        check_document(json.dumps(document))


def test_the_table_of_soup(packages: dict[str, Package], bundle: Path) -> None:
    opened = open_bundle(bundle)
    lines = soup_table(packages, [opened], "MIT").splitlines()
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in lines]
    assert tuple(rows[0]) == COLUMNS
    table = {row[0]: row for row in rows[2:]}
    assert table.keys() == packages.keys() - {"pulse-edge"} | {opened.manifest.checkpoint.name}
    for row in table.values():
        assert len(row) == len(COLUMNS)
        assert all(row)
    assert table["numpy"][1] == packages["numpy"].version
    assert table["numpy"][5].startswith("https://")
    assert table[opened.manifest.checkpoint.name][1] == f"seal {opened.digest[:16]}"


def test_a_package_that_nobody_described_stops_the_table(packages: dict[str, Package]) -> None:
    stranger = Package("leftpad", "1.0", "MIT", "Somebody", "", "https://x.example", (), ())
    with pytest.raises(PulseEdgeError, match="leftpad has no purpose; say what it is for"):
        soup_table(packages | {"leftpad": stranger}, [])


def test_a_wheel_that_lists_its_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PEP 770: files in `sboms/` of a wheel's metadata."""
    metadata = tmp_path / "leftpad-1.0.dist-info"
    (metadata / "sboms").mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: leftpad\nVersion: 1.0\n")
    (metadata / "RECORD").write_text("leftpad-1.0.dist-info/sboms/wheel.cdx.json,,\n")
    components = [
        {"name": "libtiff", "version": "4.7"},
        {"name": "leftpad", "version": "1.0", "purl": "pkg:pypi/leftpad@1.0"},
        {"name": "pybind11", "scope": "excluded"},
        {"name": "zlib", "purl": "pkg:generic/zlib@1.3"},
    ]
    (metadata / "sboms" / "wheel.cdx.json").write_text(json.dumps({"components": components}))
    monkeypatch.syspath_prepend(str(tmp_path))

    def requires(package: importlib.metadata.Distribution) -> list[str]:
        return ["leftpad"] if package.metadata["Name"] == "pulse-edge" else []

    monkeypatch.setattr(importlib.metadata.Distribution, "requires", property(requires))
    assert installed_packages([])["leftpad"].parts == (
        Part("libtiff", "4.7", ""),
        Part("zlib", "", "pkg:generic/zlib@1.3"),
    )


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata.Distribution, "requires", ["leftpad>=1"])
    with pytest.raises(PulseEdgeError, match="leftpad is not installed"):
        installed_packages([])


def test_the_script_writes_both(tmp_path: Path, bundle: Path) -> None:
    out, soup = tmp_path / "sbom.json", tmp_path / "soup.md"
    arguments = [str(out), "--bundle", str(bundle), "--soup", str(soup)]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    check_document(out.read_text("utf-8"))
    assert soup.read_text("utf-8").startswith("| name | version |")
    done = CliRunner().invoke(command, [str(out), "--bundle", str(tmp_path / "none")])
    assert done.exit_code == 4
    assert done.output.startswith("error: no bundle at ")
