"""Signed, forged and damaged bundles, and keys of every kind."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.keys import make_key, private_key, public_path
from pulse_edge.bundle.manifest import MANIFEST, loads
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.bundle.signatures import sign_bundle

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

WEIGHTS = "decoder.onnx.data"


class Signer:
    """A key pair in a folder, and a folder that trusts it."""

    def __init__(self, folder: Path, name: str = "cart") -> None:
        folder.mkdir(exist_ok=True)
        self.private = folder / f"{name}.pem"
        self.id = make_key(self.private)
        self.public = public_path(self.private)
        self.trusted = folder / f"trusted-{name}"
        self.trusted.mkdir()
        shutil.copy(self.public, self.trusted / f"{name}.pem")

    @property
    def key(self) -> Ed25519PrivateKey:
        return private_key(self.private, lambda: "")

    def sign(self, bundle: Path) -> Path:
        return sign_bundle(open_bundle(bundle), self.key)


def copied(bundle: Path, to: Path) -> Path:
    return Path(shutil.copytree(bundle, to))


def forge(path: Path, **fields: object) -> Bundle:
    """Flip a bit of the weights, change the manifest, and seal it anew: no checksum shows it.

    Args:
        fields: of the manifest.
    """
    content = bytearray((path / WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    (path / WEIGHTS).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    manifest = loads((path / MANIFEST).read_bytes())
    files = tuple(
        dataclasses.replace(entry, sha256=digest) if entry.path == WEIGHTS else entry
        for entry in manifest.files
    )
    forged = dataclasses.replace(manifest, files=files, **fields)  # type: ignore[arg-type]
    (path / MANIFEST).write_bytes(dumps(forged.sealed()))
    return open_bundle(path)


def permissions_bind() -> bool:
    """Whether permissions bind this process."""
    return hasattr(os, "geteuid") and os.geteuid() != 0
