"""Detached Ed25519 signatures of a bundle, and of what devices have added to it.

A signature is a DSSE envelope (github.com/secure-systems-lab/dsse, protocol 1.0.0) around an
in-toto statement (in-toto.io/Statement/v1). Its subject is `manifest.json`, or the index of a
folder of `plans/`, with the SHA-256 of its bytes; its predicate has the bundle's seal. It lies in
the folder `signatures/` beside its subject, in a file for each signer, named by the id of the key.

A statement is never interpreted: the one that this subject would have is made anew and compared,
to the byte.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.keys import key_id, trusted_keys
from pulse_edge.bundle.manifest import MANIFEST
from pulse_edge.bundle.opened import AddedIndex, Folder, OpenedFile
from pulse_edge.bundle.sealed_folder import PLANS
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
ADDED_TYPE = "urn:pulse-edge:added-to-bundle:v1"
LARGEST_ENVELOPE = 1 << 16  # bytes; ours take 1,000
_NAME = re.compile(r"([0-9a-f]{64})\.json")


def statement(bundle: Bundle) -> bytes:
    """What a signature of a bundle says: an in-toto statement as canonical JSON."""
    manifest = bundle.manifest
    predicate = {
        "seal": bundle.digest,
        "checkpoint": manifest.checkpoint.name,
        "precision": manifest.precision.name,
        "target": manifest.target,
    }
    return _statement(MANIFEST, dumps(manifest), PREDICATE_TYPE, predicate)


def added_statement(bundle: Bundle, index: AddedIndex) -> bytes:
    """What a signature of a folder of `plans/` says: an in-toto statement as canonical JSON.

    Its subject is the folder's index, which has the SHA-256 of each file.
    """
    name = f"{PLANS}/{index.folder.path.name}/{index.name}"
    return _statement(name, index.content, ADDED_TYPE, {"bundle": bundle.digest})


def _statement(name: str, content: bytes, kind: str, predicate: dict[str, str]) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    return _compact(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": digest}}],
            "predicateType": kind,
            "predicate": predicate,
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
    return _write_signature(bundle.path, statement(bundle), key)


def sign_added(bundle: Bundle, index: AddedIndex, key: Ed25519PrivateKey) -> Path:
    """Sign what a device has added to a bundle in one folder of `plans/`.

    Args:
        bundle: that the folder lies in.
        index: of the folder, whose files' hashes were checked.
        key: the signer's.

    Returns:
        The signature's file.

    Raises:
        PulseEdgeError: the file cannot be written.
    """
    return _write_signature(index.folder.path, added_statement(bundle, index), key)


def _write_signature(folder: Path, payload: bytes, key: Ed25519PrivateKey) -> Path:
    name = key_id(key.public_key())
    signature = key.sign(pre_authentication(PAYLOAD_TYPE, payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": name, "sig": base64.b64encode(signature).decode()}],
    }
    path = folder / SIGNATURES / f"{name}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        _replace(path, _compact(envelope) + b"\n")
    except OSError as error:
        raise PulseEdgeError(f"{path}: cannot be written ({error.strerror})") from None
    return path


def signers(bundle: Bundle) -> tuple[str, ...]:
    """Ids of the keys that claim to have signed a bundle. Nothing about them is checked."""
    return _claims(bundle.files.folder)


def added_signers(index: AddedIndex) -> tuple[str, ...]:
    """Ids of the keys that claim to have signed a folder of `plans/`, unchecked."""
    return _claims(index.folder)


def _claims(parent: Folder) -> tuple[str, ...]:
    folder = _signatures_in(parent)
    names = folder.names() if folder else []
    return tuple(match[1] for name in names if (match := _NAME.fullmatch(name)))


def signature_problem(bundle: Bundle, key: Ed25519PublicKey) -> str | None:
    """Why a key's signature does not hold for a bundle, in words; None if it does.

    Args:
        bundle: an opened bundle, whether its hashes were checked or not.
        key: of the signer.
    """
    return _problem(bundle.files.folder, statement(bundle), key, "another bundle")


def added_problem(bundle: Bundle, index: AddedIndex, key: Ed25519PublicKey) -> str | None:
    """Why a key's signature does not hold for a folder of `plans/`, in words; None if it does.

    Args:
        bundle: that the folder lies in.
        index: of the folder. Whether its files have its hashes is checked elsewhere.
        key: of the signer.
    """
    return _problem(index.folder, added_statement(bundle, index), key, f"another {index.name}")


def first_signer(
    folder: Path, claims: tuple[str, ...], problem_of: Callable[[Ed25519PublicKey], str | None]
) -> tuple[str | None, str]:
    """The id of the first trusted key whose signature holds, or None and why none does.

    Args:
        folder: of trusted keys.
        claims: ids of the keys that claim to have signed.
        problem_of: why a key's signature does not hold, None if it does.
    """
    problems = {}
    for name, key in trusted_keys(folder).items():
        problem = problem_of(key)
        if problem is None:
            return name, ""
        problems[name] = problem
    claimed = [name for name in claims if name in problems]
    if claimed:
        return None, problems[claimed[0]]
    if claims:
        return None, f"it has signatures of {', '.join(name[:16] for name in claims[:4])} only"
    return None, "it has no signature"


def _problem(parent: Folder, expected: bytes, key: Ed25519PublicKey, other: str) -> str | None:
    """Why there is no signature by a key, of a statement, in a folder's `signatures/`.

    Args:
        parent: the folder of the subject.
        expected: the subject's statement.
        key: of the signer.
        other: what a signature of another statement is of.
    """
    from cryptography.exceptions import InvalidSignature

    name = f"{key_id(key)}.json"
    where = f"{SIGNATURES}/{name}"
    folder = _signatures_in(parent)
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
            return None if payload == expected else f"{where} is of {other}"
    return f"{where} was altered or made by another key"


def _signatures_in(parent: Folder) -> Folder | None:
    """None if a folder has no signatures, or not in a folder of its own."""
    try:
        return Folder(parent.path / SIGNATURES, parent)
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
