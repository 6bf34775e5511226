"""The lowest versions are those that .ci/lanes tests with."""

from __future__ import annotations

import re
import tomllib

import pytest

from support.paths import ROOT

# Extras that the lane installs.
TESTED = (
    "cpu",
    "export",
    "ecg",
    "formats",
    "sign",
    "sbom",
    "schema",
    "tokenizers",
    "server",
    "report",
    "ecgbench",
    "test",
)


def bounds() -> dict[str, str]:
    """Package -> its lowest version, of the runtime and the tested extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    rows = [*project["dependencies"]]
    for extra in TESTED:
        rows += [row for row in project["optional-dependencies"][extra] if "pulse-edge" not in row]
    found: list[tuple[str, str]] = re.findall(
        r"^([\w-]+)(?:\[[^]]*\])?>=([\d.]+)(?:,<\d+)?$", "\n".join(rows), re.M
    )
    assert len(found) == len(rows)
    return dict(found)


def constraints() -> dict[str, str]:
    text = (ROOT / "tests" / "lowest.txt").read_text("utf-8")
    return dict(re.findall(r"^([\w-]+)==([\d.]+)$", text, re.M))


def release(version: str) -> tuple[int, ...]:
    """Without the zeros at the end: 1.26 is 1.26.0."""
    numbers = [int(part) for part in version.split(".")]
    while numbers[-1:] == [0]:
        numbers.pop()
    return tuple(numbers)


def test_the_lane_installs_the_lowest_versions() -> None:
    lowest = {name: release(version) for name, version in bounds().items()}
    assert {name: release(version) for name, version in constraints().items()} == lowest


@pytest.mark.parametrize("package", ["pydicom", "onnx", "onnxruntime"])
def test_bounds_that_matter(package: str) -> None:
    """pydicom 3.0.0 downloads at import; older graphs and engines lack what bundles use."""
    least = {"pydicom": (3, 0, 1), "onnx": (1, 19), "onnxruntime": (1, 27)}
    assert release(bounds()[package]) >= least[package]
