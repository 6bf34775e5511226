"""Signatures of a bundle: what is signed, and everything that a signature must not survive."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.manifest import MANIFEST
from pulse_edge.bundle.signatures import (
    LARGEST_ENVELOPE,
    PAYLOAD_TYPE,
    SIGNATURES,
    pre_authentication,
    sign_bundle,
    signature_problem,
    signers,
    statement,
)
from pulse_edge.errors import BundleError, PulseEdgeError

from support.signing import WEIGHTS, Signer, copied, forge, permissions_bind

pytest.importorskip("cryptography", reason="signing needs pulse-edge[sign]")


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "keys")


@pytest.fixture
def signed(bundle: Path, signer: Signer, tmp_path: Path) -> Path:
    path = copied(bundle, tmp_path / "signed")
    signer.sign(path)
    return path


def problem(path: Path, signer: Signer) -> str | None:
    return signature_problem(open_bundle(path), signer.key.public_key())


def file_of(path: Path, signer: Signer) -> Path:
    return path / SIGNATURES / f"{signer.id}.json"


def test_a_signed_bundle_is_accepted_and_stays_what_it_was(
    bundle: Path, signed: Path, signer: Signer
) -> None:
    assert problem(signed, signer) is None
    assert signers(open_bundle(signed)) == (signer.id,)
    assert open_bundle(signed).digest == open_bundle(bundle).digest
    assert (signed / MANIFEST).read_bytes() == (bundle / MANIFEST).read_bytes()


def test_a_bundle_without_a_signature(bundle: Path, signer: Signer, tmp_path: Path) -> None:
    path = copied(bundle, tmp_path / "plain")
    assert problem(path, signer) == f"there is no signatures/{signer.id}.json"
    assert signers(open_bundle(path)) == ()


def test_the_statement_names_the_bytes_of_the_manifest(signed: Path, signer: Signer) -> None:
    """Other tools check the subject's digest with `sha256sum manifest.json`."""
    envelope = json.loads(file_of(signed, signer).read_bytes())
    said = json.loads(base64.b64decode(envelope["payload"]))
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    digest = hashlib.sha256((signed / MANIFEST).read_bytes()).hexdigest()
    assert said["subject"] == [{"name": MANIFEST, "digest": {"sha256": digest}}]
    assert said["predicate"]["seal"] == json.loads((signed / MANIFEST).read_bytes())["seal"]
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert [s["keyid"] for s in envelope["signatures"]] == [signer.id]


def test_what_is_signed_is_dsse() -> None:
    """The example of the specification, protocol.md of secure-systems-lab/dsse."""
    example = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == example


def test_openssl_accepts_the_signature(signed: Path, signer: Signer, tmp_path: Path) -> None:
    """A second implementation of Ed25519."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl here")
    envelope = json.loads(file_of(signed, signer).read_bytes())
    message = pre_authentication(PAYLOAD_TYPE, base64.b64decode(envelope["payload"]))
    (tmp_path / "message").write_bytes(message)
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    command: list[str | Path] = [program, "pkeyutl", "-verify", "-rawin", "-pubin"]
    command += ["-inkey", signer.public, "-sigfile", tmp_path / "sig", "-in", tmp_path / "message"]
    done = subprocess.run(command, capture_output=True, text=True)
    if "Verified" not in done.stdout and "Verification Failure" not in done.stdout:
        pytest.skip("this openssl signs no messages with Ed25519")
    assert done.returncode == 0
    (tmp_path / "message").write_bytes(message[:-1] + b"x")
    assert subprocess.run(command, capture_output=True).returncode != 0


# -- several signers, signing again


def test_several_keys_sign_one_bundle(signed: Path, signer: Signer, tmp_path: Path) -> None:
    other = Signer(tmp_path / "keys", "hospital")
    assert problem(signed, other) is not None
    other.sign(signed)
    assert problem(signed, signer) is None
    assert problem(signed, other) is None
    assert signers(open_bundle(signed)) == tuple(sorted((signer.id, other.id)))


def test_signing_again_replaces_ones_own(signed: Path, signer: Signer, tmp_path: Path) -> None:
    other = Signer(tmp_path / "keys", "hospital")
    theirs = other.sign(signed).read_bytes()
    forge(signed)
    assert "of another bundle" in str(problem(signed, signer))
    signer.sign(signed)
    assert problem(signed, signer) is None
    assert file_of(signed, other).read_bytes() == theirs
    assert sorted(os.listdir(signed / SIGNATURES)) == sorted(
        f"{name}.json" for name in (signer.id, other.id)
    )


def test_a_damaged_bundle_is_not_signed(bundle: Path, signer: Signer, tmp_path: Path) -> None:
    path = copied(bundle, tmp_path / "damaged")
    content = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match="altered"):
        signer.sign(path)
    assert not (path / SIGNATURES).exists()


def test_a_bundle_that_cannot_be_written_to(signed: Path, signer: Signer, tmp_path: Path) -> None:
    shutil.rmtree(signed / SIGNATURES)
    opened = open_bundle(signed)
    (signed / SIGNATURES).write_text("in the way")
    with pytest.raises(PulseEdgeError, match=r"signatures/.*cannot be written"):
        sign_bundle(opened, signer.key)
    (signed / SIGNATURES).unlink()
    if permissions_bind():
        signed.chmod(0o500)
        with pytest.raises(PulseEdgeError, match=r"cannot be written \(Permission denied\)"):
            sign_bundle(opened, signer.key)
        signed.chmod(0o700)


# -- forgeries


def test_a_bundle_that_was_altered_and_sealed_anew(signed: Path, signer: Signer) -> None:
    """Its checksums hold: only the signature tells."""
    forge(signed)
    assert problem(signed, signer) == f"signatures/{signer.id}.json is of another bundle"


def test_a_signature_of_another_bundle(
    bundle: Path, signed: Path, signer: Signer, tmp_path: Path
) -> None:
    other = copied(bundle, tmp_path / "other")
    forge(other)
    signer.sign(other)
    shutil.copy(file_of(other, signer), file_of(signed, signer))
    assert problem(signed, signer) == f"signatures/{signer.id}.json is of another bundle"


def test_a_signature_under_anothers_name(signed: Path, signer: Signer, tmp_path: Path) -> None:
    thief = Signer(tmp_path / "keys", "thief")
    made = thief.sign(signed)
    shutil.copy(made, file_of(signed, signer))
    assert problem(signed, signer) == (
        f"signatures/{signer.id}.json was altered or made by another key"
    )


def test_a_key_id_proves_nothing(signed: Path, signer: Signer, tmp_path: Path) -> None:
    thief = Signer(tmp_path / "keys", "thief")
    envelope = json.loads(thief.sign(signed).read_bytes())
    envelope["signatures"][0]["keyid"] = signer.id
    file_of(signed, signer).write_text(json.dumps(envelope))
    assert "made by another key" in str(problem(signed, signer))


def resigned(signer: Signer, payload: bytes, payload_type: str = PAYLOAD_TYPE) -> dict[str, Any]:
    signature = signer.key.sign(pre_authentication(payload_type, payload))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"keyid": "", "sig": base64.b64encode(signature).decode()}],
    }


@pytest.mark.parametrize(
    "edit",
    [
        lambda said: said | {"predicateType": "urn:something:else"},
        lambda said: said | {"_type": "https://in-toto.io/Statement/v0.1"},
        lambda said: said | {"predicate": said["predicate"] | {"expires": "2020-01-01"}},
        lambda said: said | {"predicate": said["predicate"] | {"seal": "0" * 64}},
        lambda said: said | {"subject": said["subject"] * 2},
        lambda said: said | {"subject": []},
        lambda said: {},
    ],
)
def test_a_statement_of_other_words_is_no_signature_of_this_bundle(
    signed: Path, signer: Signer, edit: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Also where the key is trusted: what is not understood must not be ignored."""
    said = edit(json.loads(statement(open_bundle(signed))))
    file_of(signed, signer).write_text(json.dumps(resigned(signer, json.dumps(said).encode())))
    assert "is of another bundle" in str(problem(signed, signer))


def test_a_signature_of_another_type_of_payload(signed: Path, signer: Signer) -> None:
    envelope = resigned(signer, statement(open_bundle(signed)), "text/plain")
    file_of(signed, signer).write_text(json.dumps(envelope))
    assert "no signature of the form" in str(problem(signed, signer))
    envelope["payloadType"] = PAYLOAD_TYPE
    file_of(signed, signer).write_text(json.dumps(envelope))
    assert "was altered" in str(problem(signed, signer))


def damaged(envelope: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({k: v for k, v in (envelope | fields).items() if v is not ...}).encode()


DAMAGE: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "empty": lambda e: b"",
    "no JSON": lambda e: b"signed!",
    "not UTF-8": lambda e: b"\xff\xfe",
    "a list": lambda e: b"[]",
    "a number": lambda e: b"7",
    "null": lambda e: b"null",
    "deep": lambda e: b"[" * 5_000,
    "huge": lambda e: b" " * (LARGEST_ENVELOPE + 1) + damaged(e),
    "no payload": lambda e: damaged(e, payload=...),
    "no signatures": lambda e: damaged(e, signatures=[]),
    "signatures null": lambda e: damaged(e, signatures=None),
    "signatures a text": lambda e: damaged(e, signatures="abc"),
    "no sig": lambda e: damaged(e, signatures=[{"keyid": ""}]),
    "sig a number": lambda e: damaged(e, signatures=[{"sig": 1}]),
    "sig short": lambda e: damaged(e, signatures=[{"sig": "AAAA"}]),
    "sig no base64": lambda e: damaged(e, signatures=[{"sig": "!" * 88}]),
    "sig zeros": lambda e: damaged(e, signatures=[{"sig": base64.b64encode(b"\0" * 64).decode()}]),
    "payload no base64": lambda e: damaged(e, payload="%%%"),
    "payload a number": lambda e: damaged(e, payload=3),
    "payload cut": lambda e: damaged(e, payload=e["payload"][:-4]),
    "payload changed": lambda e: damaged(e, payload="A" + e["payload"][1:]),
    "another field": lambda e: damaged(e, certificate="trust me"),
    "another type": lambda e: damaged(e, payloadType="application/json"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_signature_is_refused_by_name(signed: Path, signer: Signer, kind: str) -> None:
    file = file_of(signed, signer)
    file.write_bytes(DAMAGE[kind](json.loads(file.read_bytes())))
    text = problem(signed, signer)
    assert text is not None
    assert signer.id in text
    assert "\n" not in text


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "missing", "linked folder"])
def test_what_is_no_file_is_no_signature(
    signed: Path, signer: Signer, tmp_path: Path, kind: str
) -> None:
    file = file_of(signed, signer)
    opened = open_bundle(signed)
    aside = tmp_path / "aside"
    if kind == "linked folder":
        file.parent.rename(aside)
        file.parent.symlink_to(aside)
    else:
        file.rename(aside)
    if kind == "link":
        file.symlink_to(aside)
    elif kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("no named pipes here")
        os.mkfifo(file)
    assert signature_problem(opened, signer.key.public_key())


def test_every_changed_byte_of_a_manifest_ends_its_signature(bundle: Path, signer: Signer) -> None:
    """The statement covers each field of the manifest."""
    opened = open_bundle(bundle)
    said = statement(opened)
    manifest = opened.manifest
    changes: tuple[dict[str, Any], ...] = (
        {"notice": "Approved."},
        {"tools": {}},
        {"target": "cuda"},
        {"files": manifest.files[:-1]},
        {"checkpoint": dataclasses.replace(manifest.checkpoint, name="x")},
    )
    for change in changes:
        other = dataclasses.replace(manifest, **change).sealed()
        assert statement(dataclasses.replace(opened, manifest=other)) != said
