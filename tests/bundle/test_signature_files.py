"""A signature's file: its bytes, its size, how it is written, and what it may not hide."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.keys import key_id
from pulse_edge.bundle.manifest import MANIFEST
from pulse_edge.bundle.signatures import (
    pre_authentication,
    sign_bundle,
    signature_problem,
    signers,
    statement,
)
from pulse_edge.errors import PulseEdgeError

from support.hand_bundle import CHECKPOINT, write_bundle

pytest.importorskip("cryptography", reason="signing needs pulse-edge[sign]")
from cryptography.hazmat.primitives.asymmetric import ed25519

if TYPE_CHECKING:
    Key = ed25519.Ed25519PrivateKey


@pytest.fixture(scope="module")
def key() -> Key:
    return ed25519.Ed25519PrivateKey.generate()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    checkpoint = replace(CHECKPOINT, name="Vallée")
    return open_bundle(write_bundle(tmp_path / "bundle", checkpoint=checkpoint, target="cuda"))


def problem(bundle: Bundle, key: Key) -> str | None:
    return signature_problem(bundle, key.public_key())


def test_the_statement_to_the_byte(bundle: Bundle) -> None:
    """Signatures that were made by another version hold as long as not one byte changes."""
    digest = hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest()
    expected = (
        '{"_type":"https://in-toto.io/Statement/v1",'
        '"subject":[{"name":"manifest.json","digest":{"sha256":"' + digest + '"}}],'
        '"predicateType":"urn:pulse-edge:bundle-seal:v1",'
        '"predicate":{"seal":"' + bundle.digest + '",'
        '"checkpoint":"Vall\\u00e9e","precision":"int4","target":"cuda"}}'
    )
    assert statement(bundle) == expected.encode("ascii")


def test_the_envelope_to_the_byte(bundle: Bundle, key: Key) -> None:
    path = sign_bundle(bundle, key)
    name = key_id(key.public_key())
    assert path == bundle.path / "signatures" / f"{name}.json"
    payload = statement(bundle)
    signature = key.sign(b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload))
    expected = (
        '{"payload":"' + base64.b64encode(payload).decode() + '",'
        '"payloadType":"application/vnd.in-toto+json",'
        '"signatures":[{"keyid":"' + name + '",'
        '"sig":"' + base64.b64encode(signature).decode() + '"}]}\n'
    )
    assert path.read_bytes() == expected.encode("ascii")
    assert problem(bundle, key) is None
    assert signers(bundle) == (name,)


def test_the_largest_envelope(bundle: Bundle, key: Key) -> None:
    """It has 65,536 bytes."""
    path = sign_bundle(bundle, key)
    content = path.read_bytes()
    path.write_bytes(content + b" " * (65_536 - len(content)))
    assert problem(bundle, key) is None
    path.write_bytes(content + b" " * (65_537 - len(content)))
    assert "is no signature of the form" in str(problem(bundle, key))


def test_who_claims_to_have_signed(bundle: Bundle, key: Key) -> None:
    assert signers(bundle) == ()
    name = sign_bundle(bundle, key).stem
    folder = bundle.path / "signatures"
    for other in ("b" * 64, "A" * 64, "a" * 63, "a" * 65):
        (folder / f"{other}.json").touch()
    (folder / ("c" * 64)).touch()
    (folder / ("d" * 64 + ".jsonXX")).touch()
    assert signers(bundle) == tuple(sorted([name, "b" * 64]))


def spaced(field: str) -> Callable[[dict[str, Any]], None]:
    """A space within base64, which careless readers pass over."""

    def edit(envelope: dict[str, Any]) -> None:
        place = envelope if field == "payload" else envelope["signatures"][0]
        place[field] = place[field][:8] + " " + place[field][8:]

    return edit


@pytest.mark.parametrize("field", ["payload", "sig"])
def test_base64_is_read_strictly(bundle: Bundle, key: Key, field: str) -> None:
    path = sign_bundle(bundle, key)
    envelope = json.loads(path.read_bytes())
    spaced(field)(envelope)
    path.write_text(json.dumps(envelope))
    assert "is no signature of the form" in str(problem(bundle, key))


@pytest.mark.parametrize("field", ["payload", "payloadType", "signatures"])
@pytest.mark.parametrize("change", ["missing", "renamed"])
def test_fields_of_an_envelope(bundle: Bundle, key: Key, field: str, change: str) -> None:
    path = sign_bundle(bundle, key)
    envelope = json.loads(path.read_bytes())
    value = envelope.pop(field)
    if change == "renamed":
        envelope[f"{field}XX"] = value
    path.write_text(json.dumps(envelope))
    expected = f"signatures/{path.name} is no signature of the form that 'pulse-edge sign' writes"
    assert problem(bundle, key) == expected


def test_one_of_several_signatures_is_enough(bundle: Bundle, key: Key) -> None:
    """As in DSSE: an envelope may have those of several keys."""
    path = sign_bundle(bundle, key)
    envelope = json.loads(path.read_bytes())
    envelope["signatures"].insert(0, {"keyid": "", "sig": base64.b64encode(bytes(64)).decode()})
    path.write_text(json.dumps(envelope))
    assert problem(bundle, key) is None
    del envelope["signatures"][1]
    path.write_text(json.dumps(envelope))
    assert "was altered or made by another key" in str(problem(bundle, key))


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_no_file_is_no_signature(bundle: Bundle, key: Key, kind: str) -> None:
    path = sign_bundle(bundle, key)
    aside = path.rename(bundle.path.parent / "aside")
    path.mkdir() if kind == "folder" else path.symlink_to(aside)
    why = "not a regular file" if kind == "folder" else "cannot be read (a symbolic link)"
    assert problem(bundle, key) == f"{path}: {why}"


# -- writing


def test_a_signature_is_on_the_disk(
    bundle: Bundle, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First all its bytes, under another name; then its name."""
    synced: list[tuple[bool, int, list[str]]] = []
    numbers: list[int] = []
    sync = os.fsync
    folder = bundle.path / "signatures"

    def watched(number: int) -> None:
        status = os.fstat(number)
        is_folder = os.path.samestat(status, folder.stat())
        synced.append((is_folder, 0 if is_folder else status.st_size, os.listdir(folder)))
        numbers.append(number)
        sync(number)

    monkeypatch.setattr(os, "fsync", watched)
    path = sign_bundle(bundle, key)
    (first, size, names), second = synced
    assert (first, size) == (False, path.stat().st_size)
    assert path.name not in names
    assert second == (True, 0, [path.name])
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_is_full(
    bundle: Bundle, key: Key, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The signature that was there before stays, and nothing else."""
    path = sign_bundle(bundle, key)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(PulseEdgeError) as caught:
            sign_bundle(bundle, key)
    assert str(caught.value) == f"{path}: cannot be written (No space left on device)"
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == before
    assert sign_bundle(bundle, key) == path


def test_what_is_signed_has_its_length_before_it() -> None:
    assert pre_authentication("é", b"12 3") == "DSSEv1 2 é 4 12 3".encode()
