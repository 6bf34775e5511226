"""The table of SOUP, software of unknown provenance, as IEC 62304 asks for it (8.1.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.sbom.document import UNSTATED
from benchmarks.sbom.packages import ROOT, Package
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.errors import PulseEdgeError


@dataclass(frozen=True)
class Purpose:
    """What a package is here for, and what its own metadata does not say.

    Attributes:
        text: what we use it for.
        maker: where the package names no people.
        issues: known anomalies, where the package has no link to them.
    """

    text: str
    maker: str = ""
    issues: str = ""


PURPOSES = {
    "cffi": Purpose("binds cryptography to its C library"),
    "click": Purpose("parses the command line", maker="Pallets"),
    "coloredlogs": Purpose("a requirement of ONNX Runtime; not used"),
    "cryptography": Purpose("checks signatures of bundles (Ed25519); signs them"),
    "cuda-bindings": Purpose("calls CUDA from the TensorRT and native engines", maker="NVIDIA"),
    "flatbuffers": Purpose("a requirement of ONNX Runtime; not used by its inference"),
    "humanfriendly": Purpose("a requirement of coloredlogs; not used"),
    "markdown-it-py": Purpose("a requirement of rich; not used"),
    "mdurl": Purpose("a requirement of markdown-it-py; not used"),
    "ml-dtypes": Purpose("4-bit and bfloat16 numbers in the exporter"),
    "mpmath": Purpose("a requirement of sympy; not used"),
    "numpy": Purpose("arrays: pixels, views, logits, sampling"),
    "onnx": Purpose("the exporter writes graphs with it"),
    "onnxruntime": Purpose(
        "runs the two networks", issues="https://github.com/microsoft/onnxruntime/issues"
    ),
    "onnxruntime-gpu": Purpose(
        "runs the two networks", issues="https://github.com/microsoft/onnxruntime/issues"
    ),
    "packaging": Purpose("a requirement of ONNX Runtime; compares versions"),
    "pillow": Purpose(
        "decodes pages, resizes views", issues="https://github.com/python-pillow/Pillow/issues"
    ),
    "protobuf": Purpose(
        "a requirement of ONNX Runtime and onnx",
        maker="Google",
        issues="https://github.com/protocolbuffers/protobuf/issues",
    ),
    "pycparser": Purpose("a requirement of cffi; not used at run time"),
    "pydicom": Purpose("reads DICOM waveforms"),
    "pygments": Purpose("a requirement of rich; not used"),
    "python": Purpose("runs all of this"),
    "rich": Purpose("shows the progress of an export"),
    "safetensors": Purpose("the exporter reads checkpoints with it"),
    "sentencepiece": Purpose("text to tokens and back"),
    "sympy": Purpose("a requirement of ONNX Runtime; not used"),
    "typing-extensions": Purpose("a requirement of onnx"),
}
COLUMNS = ("name", "version", "licence", "maker", "purpose", "known anomalies")


def soup_table(
    packages: dict[str, Package], bundles: Iterable[Bundle], licence: str | None = None
) -> str:
    """The table as Markdown: every package but our own, then the models.

    Args:
        packages: as `installed_packages` returns them.
        bundles: opened, with their hashes checked.
        licence: of the bundles' weights.

    Raises:
        PulseEdgeError: nobody has written down what a package is for, or where its anomalies are.
    """
    rows = [_row(package) for name, package in packages.items() if name != ROOT]
    for bundle in bundles:
        checkpoint = bundle.manifest.checkpoint
        facts = f"model, {bundle.manifest.precision.name}"
        seal = f"seal {bundle.digest[:16]}"
        rows.append(
            (checkpoint.name, seal, licence or UNSTATED, UNSTATED, facts, "docs/results.md")
        )
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _row(package: Package) -> tuple[str, ...]:
    purpose = PURPOSES.get(package.name)
    if purpose is None:
        raise PulseEdgeError(
            f"{package.name} has no purpose; say what it is for in PURPOSES of "
            "benchmarks/sbom/soup.py"
        )
    maker = package.maker or purpose.maker
    issues = purpose.issues or package.issues
    for what, value in (("maker", maker), ("issues", issues)):
        if not value:
            raise PulseEdgeError(
                f"{package.name} names no {what}; add it in PURPOSES of benchmarks/sbom/soup.py"
            )
    licence = package.licence or UNSTATED
    return (package.name, package.version, licence, maker, purpose.text, issues)
