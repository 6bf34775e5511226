"""Which files get mutants, and which tests belong to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MutatedRoom:
    """Files, and the tests that are to notice faults in them.

    Attributes:
        files: patterns, relative to the tree.
        tests: patterns of files and folders, likewise.
        sampled: whether `make mutants` takes a share of it; if not, only by its name.
    """

    files: tuple[str, ...]
    tests: tuple[str, ...]
    sampled: bool = True

    def paths(self, tree: Path) -> list[str]:
        """Its files that hold code, relative to the tree."""
        paths = {path for pattern in self.files for path in tree.glob(pattern)}
        return sorted(str(path.relative_to(tree)) for path in paths if path.name != "__init__.py")

    def test_paths(self, tree: Path) -> list[str]:
        """Its tests, relative to the tree."""
        return sorted(
            str(path.relative_to(tree)) for pattern in self.tests for path in tree.glob(pattern)
        )


CORE = (
    *("model", "answer", "worker", "chat", "params", "provenance"),
    *("stream", "delivery", "cancellation", "deadline", "dispatcher", "runner"),
    *("turns", "job", "rates", "look", "health"),
)
_MODEL = "tests/test_model*.py"
ROOMS = {
    "core": MutatedRoom(
        tuple(f"pulse_edge/{name}.py" for name in CORE),
        tuple(f"tests/test_{name}*.py" for name in (*CORE, "core", "known")),
    ),
    "decode": MutatedRoom(("pulse_edge/decode/*.py",), ("tests/decode", _MODEL)),
    "text": MutatedRoom(("pulse_edge/text/*.py",), ("tests/text", "tests/goldens")),
    "page": MutatedRoom(("pulse_edge/page/*.py",), ("tests/page", "tests/goldens")),
    "ecg": MutatedRoom(("pulse_edge/ecg/*.py", "pulse_edge/ecg/readers/*.py"), ("tests/ecg",)),
    "bundle": MutatedRoom(("pulse_edge/bundle/*.py",), ("tests/bundle",)),
    "quantize": MutatedRoom(
        ("export/pulse_export/quantize/*.py",), ("tests/export/test_quantize_*.py",)
    ),
    "measure": MutatedRoom(("pulse_edge/measure/*.py",), ("tests/measure",), sampled=False),
    "verify": MutatedRoom(
        ("export/pulse_export/verify.py",),
        ("tests/export/test_verify.py", "tests/cli/test_verify_engine.py"),
        sampled=False,
    ),
}
