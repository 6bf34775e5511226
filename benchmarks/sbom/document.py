"""A bill of materials in CycloneDX 1.6, checked against its schema."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from benchmarks.sbom.packages import PYTHON, ROOT, Package, Part
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.errors import PulseEdgeError

UNSTATED = "not stated"


def bill_of_materials(
    packages: dict[str, Package], bundles: Iterable[Bundle], licence: str | None = None
) -> str:
    """A CycloneDX document as JSON.

    Args:
        packages: as `installed_packages` returns them.
        bundles: opened, with their hashes checked.
        licence: of the bundles' weights, an SPDX expression. A bundle does not say.

    Raises:
        PulseEdgeError: the document does not fit CycloneDX's schema.
    """
    bom = Bom()
    components = {name: _component(package) for name, package in packages.items()}
    root = components[ROOT]
    root.type = ComponentType.APPLICATION
    bom.metadata.component = root
    models = [_model(bundle, licence) for bundle in bundles]
    for component in (*components.values(), *models):
        if component is not root:
            bom.components.add(component)
    for name, package in packages.items():
        needs = [components[other] for other in package.requires]
        bom.register_dependency(components[name], needs + (models if name == ROOT else []))
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    check_document(text)
    return text


def check_document(text: str) -> None:
    """Raise `PulseEdgeError` unless a text is CycloneDX 1.6, by its own schema."""
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise PulseEdgeError(f"the bill of materials does not fit its schema: {problem!s:.200}")


def _component(package: Package) -> Component:
    kind = "generic" if package.name == PYTHON else "pypi"
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"pkg:{kind}/{package.name}@{package.version}",
        purl=PackageURL(kind, name=package.name, version=package.version),
        licenses=[_licence(package.licence)],
        components=_contained(package.parts),
    )


def _licence(text: str) -> License:
    """An SPDX licence or expression where the text is one, else a name."""
    return LicenseFactory().make_from_string(text or UNSTATED)


def _contained(parts: Iterable[Part]) -> Iterator[Component]:
    for part in parts:
        yield Component(
            name=part.name,
            version=part.version or None,
            type=ComponentType.LIBRARY,
            purl=PackageURL.from_string(part.purl) if part.purl else None,
        )


def _model(bundle: Bundle, licence: str | None) -> Component:
    """A bundle as a machine learning model that contains its files."""
    manifest = bundle.manifest
    files = [
        Component(
            name=entry.path,
            type=ComponentType.FILE,
            bom_ref=f"{bundle.digest}/{entry.path}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=entry.sha256)],
        )
        for entry in manifest.files
    ]
    facts = {
        "seal": bundle.digest,
        "checkpoint": manifest.checkpoint.name,
        "checkpoint-sha256": manifest.checkpoint.sha256,
        "parameters": str(manifest.checkpoint.parameters),
        "precision": manifest.precision.name,
        "target": manifest.target,
        "notice": manifest.notice,
    }
    return Component(
        name=manifest.checkpoint.name,
        version=bundle.digest[:16],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"bundle:{bundle.digest}",
        licenses=[_licence(licence or UNSTATED)],
        properties=[Property(name=f"pulse-edge:{k}", value=v) for k, v in facts.items()],
        components=files,
    )
