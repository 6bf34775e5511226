"""Manifests that were changed and sealed again, as a forger would."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pulse_edge.bundle.manifest import MANIFEST


def reseal(data: dict[str, Any]) -> bytes:
    """Canonical bytes of changed manifest fields with a seal that fits them."""

    def dump(seal: str) -> bytes:
        return (json.dumps(data | {"seal": seal}, indent=1, ensure_ascii=True) + "\n").encode()

    return dump(hashlib.sha256(dump("")).hexdigest())


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a bundle's manifest and seal it again, so that only the change can be refused."""
    data = json.loads((path / MANIFEST).read_bytes())
    change(data)
    (path / MANIFEST).write_bytes(reseal(data))
