"""Detached Ed25519 signatures of a bundle, in its folder `signatures/`.

A signature is a DSSE envelope (github.com/secure-systems-lab/dsse, protocol 1.0.0) around an
in-toto statement (in-toto.io/Statement/v1). Its subject is `manifest.json` with the SHA-256 of its
bytes; its predicate has the bundle's seal. Each signer has one file, named by the id of the key.

A statement is never interpreted: the one that this bundle would have is made anew and compared, to
the byte.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.keys import key_id
from pulse_edge.bundle.manifest import MANIFEST
from pulse_edge.bundle.opened import Folder, OpenedFile
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.errors import BundleError, PulseEdgeError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURES = "signatures"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:pulse-edge:bundle-seal:v1"
LARGEST_ENVELOPE = 1 << 16  # bytes; ours take 1,000
_NAME = re.compile(r"([0-9a-f]{64})\.json")


def statement(bundle: Bundle) -> bytes:
    """What a signature of a bundle says: an in-toto statement as canonical JSON."""
    manifest = bundle.manifest
    return _compact(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {
                    "name": MANIFEST,
                    "digest": {"sha256": hashlib.sha256(dumps(manifest)).hexdigest()},
                }
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "seal": bundle.digest,
                "checkpoint": manifest.checkpoint.name,
                "precision": manifest.precision.name,
                "target": manifest.target,
            },
        }
    )


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: DSSE's PAE."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign_bundle(bundle: Bundle, key: Ed25519PrivateKey) -> Path:
    """Sign a bundle. A signature that the same key made before is replaced, others stay.

    Args:
        bundle: as `open_bundle` returns it, with its hashes checked.
        key: the signer's.

    Returns:
        The signature's file.

    Raises:
        PulseEdgeError: the file cannot be written.
    """
    payload = statement(bundle)
    name = key_id(key.public_key())
    signature = key.sign(pre_authentication(PAYLOAD_TYPE, payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": name, "sig": base64.b64encode(signature).decode()}],
    }
    path = bundle.path / SIGNATURES / f"{name}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        _replace(path, _compact(envelope) + b"\n")
    except OSError as error:
        raise PulseEdgeError(f"{path}: cannot be written ({error.strerror})") from None
    return path


def signers(bundle: Bundle) -> tuple[str, ...]:
    """Ids of the keys that claim to have signed a bundle. Nothing about them is checked."""
    folder = _folder(bundle)
    names = folder.names() if folder else []
    return tuple(match[1] for name in names if (match := _NAME.fullmatch(name)))


def signature_problem(bundle: Bundle, key: Ed25519PublicKey) -> str | None:
    """Why a key's signature does not hold for a bundle, in words; None if it does.

    Args:
        bundle: an opened bundle, whether its hashes were checked or not.
        key: of the signer.
    """
    from cryptography.exceptions import InvalidSignature

    name = f"{key_id(key)}.json"
    where = f"{SIGNATURES}/{name}"
    folder = _folder(bundle)
    if folder is None or name not in folder.names():
        return f"there is no {where}"
    try:
        file = OpenedFile(folder, name)
        raw = file.read() if file.size <= LARGEST_ENVELOPE else b""
    except BundleError as error:
        return str(error)
    parts = _open_envelope(raw)
    if parts is None:
        return f"{where} is no signature of the form that 'pulse-edge sign' writes"
    payload, candidates = parts
    signed = pre_authentication(PAYLOAD_TYPE, payload)
    for candidate in candidates:
        with suppress(InvalidSignature):
            key.verify(candidate, signed)
            return None if payload == statement(bundle) else f"{where} is of another bundle"
    return f"{where} was altered or made by another key"


def _folder(bundle: Bundle) -> Folder | None:
    """None if the bundle has no signatures, or not in a folder of its own."""
    try:
        return Folder(bundle.path / SIGNATURES, bundle.files.folder)
    except OSError:
        return None


def _open_envelope(raw: bytes) -> tuple[bytes, list[bytes]] | None:
    """Payload and signatures of an envelope; None if it is none."""
    try:
        envelope = json.loads(raw)
        if envelope.keys() != {"payload", "payloadType", "signatures"}:
            return None
        if envelope["payloadType"] != PAYLOAD_TYPE:
            return None
        payload = base64.b64decode(envelope["payload"], validate=True)
        candidates = [base64.b64decode(s["sig"], validate=True) for s in envelope["signatures"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return payload, candidates


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _replace(path: Path, content: bytes) -> None:
    """Write a file beside its place, flush it to the disk, and rename it."""
    staged = path.with_name(f".{secrets.token_hex(8)}")
    try:
        with staged.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    except BaseException:
        with suppress(OSError):
            staged.unlink()
        raise
    _flush_folder(path.parent)


def _flush_folder(path: Path) -> None:
    if os.name == "posix":
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
