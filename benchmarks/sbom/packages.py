"""The packages that an installation runs, from the metadata that they carry."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pulse_edge.errors import PulseEdgeError

ROOT = "pulse-edge"
PYTHON = "python"
LONGEST_LICENCE = 80  # characters; a longer one is the licence's text, not its name
_CLASSIFIER = "License :: OSI Approved :: "
# What packages write that have no SPDX expression.
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
}


@dataclass(frozen=True)
class Part:
    """A library that a package's own bill of materials lists, such as a C library in a wheel.

    Version and purl may be "".
    """

    name: str
    version: str
    purl: str


@dataclass(frozen=True)
class Package:
    """An installed package.

    Attributes:
        licence: an SPDX expression, or what the package says instead.
        maker: as the package says, without addresses; "" if it does not.
        home: its web page, or "".
        issues: its list of known problems, or "".
        requires: names of the packages that it needs here.
        parts: what its wheel contains, as far as the wheel says.
    """

    name: str
    version: str
    licence: str
    maker: str
    home: str
    issues: str
    requires: tuple[str, ...]
    parts: tuple[Part, ...]


def installed_packages(extras: Iterable[str]) -> dict[str, Package]:
    """pulse-edge and all that it needs, by name: it first, Python last, the others sorted.

    Args:
        extras: of pulse-edge.

    Raises:
        PulseEdgeError: a package that is needed is not installed.
    """
    wanted: dict[str, set[str]] = {}
    waiting = [(ROOT, frozenset(extras))]
    needs: dict[str, set[str]] = {}
    while waiting:
        name, chosen = waiting.pop()
        if name in wanted and chosen <= wanted[name]:
            continue
        wanted.setdefault(name, set()).update(chosen)
        found = _requirements(_distribution(name), wanted[name])
        needs[name] = {dependency for dependency, _ in found} | {PYTHON}
        waiting += found
    names = [ROOT, *sorted(wanted.keys() - {ROOT})]
    packages = {name: _package(name, _distribution(name), needs[name]) for name in names}
    return packages | {PYTHON: _interpreter()}


def _interpreter() -> Package:
    """Python itself."""
    return Package(
        name=PYTHON,
        version=platform.python_version(),
        licence="PSF-2.0",
        maker="Python Software Foundation",
        home="https://www.python.org",
        issues="https://github.com/python/cpython/issues",
        requires=(),
        parts=(),
    )


def _distribution(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise PulseEdgeError(f"{name} is not installed; install what is to be listed") from None


def _requirements(package: Distribution, extras: set[str]) -> list[tuple[str, frozenset[str]]]:
    found: list[tuple[str, frozenset[str]]] = []
    for text in package.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            found.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


def _package(name: str, package: Distribution, needs: set[str]) -> Package:
    metadata: Any = package.metadata  # typeshed has no `get`
    links = {}
    for line in metadata.get_all("Project-URL") or ():
        label, _, url = line.partition(",")
        links[re.sub(r"[^a-z]", "", label.lower())] = url.strip()
    home = links.get("homepage") or links.get("home") or metadata.get("Home-page") or ""
    return Package(
        name,
        package.version,
        _licence(metadata),
        _maker(metadata),
        home,
        _issues([*links.values(), home], links),
        tuple(sorted(needs - {name})),
        tuple(_parts(package, name)),
    )


def _licence(metadata: Any) -> str:
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    classified = [
        text.removeprefix(_CLASSIFIER)
        for text in metadata.get_all("Classifier") or ()
        if text.startswith(_CLASSIFIER)
    ]
    text = str(metadata.get("License") or "")
    if text and len(text) <= LONGEST_LICENCE and "\n" not in text:
        return SPDX.get(text, text)
    return " AND ".join(SPDX.get(name, name) for name in classified)


def _maker(metadata: Any) -> str:
    for name in ("Author", "Author-email", "Maintainer", "Maintainer-email"):
        text = re.sub(r"\s*<[^>]*>|\S+@\S+", "", str(metadata.get(name) or ""))
        text = text.replace('"', "").strip(" ,")
        if text:
            return text
    return ""


def _issues(urls: list[str], links: dict[str, str]) -> str:
    for label in ("issues", "issuetracker", "bugtracker", "tracker"):
        if label in links:
            return links[label]
    for url in urls:
        match = re.match(r"https://github\.com/[\w.-]+/[\w.-]+", url)
        if match:
            return f"{match[0].removesuffix('.git')}/issues"
    return ""


def _parts(package: Distribution, name: str) -> Iterable[Part]:
    """What the package's own CycloneDX files list (PEP 770), without the package itself."""
    parts: dict[tuple[str, str], Part] = {}
    for path in package.files or ():
        if path.parent.name != "sboms" or path.suffix != ".json":
            continue
        document = json.loads(Path(str(path.locate())).read_text("utf-8"))
        for entry in document.get("components", ()):
            part = Part(entry["name"], entry.get("version") or "", entry.get("purl") or "")
            if entry.get("scope") != "excluded" and f"pkg:pypi/{name}@" not in part.purl:
                parts[part.name, part.version] = part
    return [parts[key] for key in sorted(parts)]
