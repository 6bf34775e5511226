"""Keys in PEM files: what is made, what is read, and what is refused by name."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pulse_edge.bundle.keys import (
    LARGEST_KEY,
    exposed,
    key_id,
    make_key,
    private_key,
    public_path,
    trusted_keys,
)
from pulse_edge.errors import ParameterError, PulseEdgeError, TrustError

pytest.importorskip("cryptography", reason="signing needs pulse-edge[sign]")
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

OTHERS: dict[str, Callable[[], object]] = {
    "an RSA key": lambda: rsa.generate_private_key(65537, 1024),
    "an ECDSA key": lambda: ec.generate_private_key(ec.SECP256R1()),
    "a DSA key": lambda: dsa.generate_private_key(1024),
    "a key of another algorithm": ed448.Ed448PrivateKey.generate,
}


def never() -> str:
    raise AssertionError("asked for a passphrase")


def private_pem(key: object) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[attr-defined,no-any-return]


def public_pem(key: object) -> bytes:
    public = key.public_key()  # type: ignore[attr-defined]
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[no-any-return]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_key_pair_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "cart.pem"
    name = make_key(path)
    assert public_path(path) == tmp_path / "cart.pub.pem"
    assert key_id(private_key(path, never).public_key()) == name
    assert list(trusted_keys(public_path(path))) == [name]
    before = path.read_bytes()
    with pytest.raises(ParameterError, match=r"cart\.pem: exists already; name another file"):
        make_key(path)
    path.unlink()
    with pytest.raises(ParameterError, match=r"cart\.pub\.pem: exists already"):
        make_key(path)
    assert not path.exists()
    assert before


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_only_the_owner_may_read_a_private_key(tmp_path: Path) -> None:
    path = tmp_path / "cart.pem"
    before = os.umask(0)
    try:
        make_key(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not exposed(path)
    for mode in (0o604, 0o640, 0o644):
        path.chmod(mode)
        assert exposed(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"cannot be written \(No such file"):
        make_key(tmp_path / "none" / "cart.pem")


def test_the_id_is_the_hash_that_openssl_prints(tmp_path: Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl here")
    name = make_key(tmp_path / "cart.pem")
    der = subprocess.run(
        [program, "pkey", "-pubin", "-in", tmp_path / "cart.pub.pem", "-outform", "DER"],
        capture_output=True,
    )
    if der.returncode:
        pytest.skip("this openssl knows no Ed25519")
    import hashlib

    assert hashlib.sha256(der.stdout).hexdigest() == name


def test_an_encrypted_key_asks_for_its_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "cart.pem"
    name = make_key(path, "horse staple")
    assert b"ENCRYPTED" in path.read_bytes()
    assert key_id(private_key(path, lambda: "horse staple").public_key()) == name
    for wrong in ("", "horse", "horse staple "):
        with pytest.raises(ParameterError, match=r"cart\.pem: wrong passphrase, or damaged"):
            private_key(path, lambda text=wrong: text)  # type: ignore[misc]


@pytest.mark.parametrize("kind", OTHERS)
def test_a_private_key_of_another_algorithm(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "key.pem", private_pem(OTHERS[kind]()))
    with pytest.raises(ParameterError, match=f"{kind}, expected an Ed25519 key; make a key with"):
        private_key(path, never)


@pytest.mark.parametrize("kind", OTHERS)
def test_a_trusted_key_of_another_algorithm(tmp_path: Path, kind: str) -> None:
    written(tmp_path / "key.pem", public_pem(OTHERS[kind]()))
    with pytest.raises(TrustError, match=f"{kind}, expected an Ed25519 key; replace or remove"):
        trusted_keys(tmp_path)


def ed25519_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def openssh() -> bytes:
    return ed25519_key().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def der() -> bytes:
    return ed25519_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: public_pem(ed25519_key()), "a public key; sign with the private one"),
        (openssh, "a key in OpenSSH's format, expected PKCS #8; make a key"),
        (der, "no private key in PEM"),
        (lambda: b"", "no private key in PEM"),
        (lambda: b"\x89PNG\r\n", "no private key in PEM"),
        (lambda: private_pem(ed25519_key())[:-40], "no private key in PEM"),
        (lambda: b"x" * (LARGEST_KEY + 1), "over 65,536 bytes"),
    ],
)
def test_a_file_that_is_no_private_key(
    tmp_path: Path, content: Callable[[], bytes], message: str
) -> None:
    path = written(tmp_path / "key.pem", content())
    with pytest.raises(ParameterError, match=message):
        private_key(path, never)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: private_pem(ed25519_key()), r"a private key; a device needs the public one"),
        (openssh, "a private key; a device needs the public one"),
        (lambda: public_pem(ed25519_key()) * 2, "holds several keys; put each into a file"),
        (lambda: b"", "no public key in PEM; replace or remove it"),
        (lambda: public_pem(ed25519_key())[:-40], "no public key in PEM"),
        (lambda: b"x" * (LARGEST_KEY + 1), "over 65,536 bytes"),
    ],
)
def test_one_bad_file_among_trusted_keys_trusts_nobody(
    tmp_path: Path, content: Callable[[], bytes], message: str
) -> None:
    written(tmp_path / "a.pem", public_pem(ed25519_key()))
    written(tmp_path / "b.pem", content())
    with pytest.raises(TrustError, match=rf"b\.pem: {message}"):
        trusted_keys(tmp_path)


def test_a_folder_of_trusted_keys(tmp_path: Path) -> None:
    keys = [ed25519_key() for _ in range(3)]
    for number, key in enumerate(keys):
        written(tmp_path / f"{number}.pem", public_pem(key))
    written(tmp_path / "README", b"who these are")
    assert list(trusted_keys(tmp_path)) == [key_id(key.public_key()) for key in keys]
    for file in tmp_path.glob("*.pem"):
        file.unlink()
    with pytest.raises(TrustError, match=r"holds no \*\.pem file, so it trusts nobody"):
        trusted_keys(tmp_path)


# Permissions that let others change a file or folder: who, and what takes them away.
WRITABLE = {
    0o702: ("every user", "o-w"),
    0o757: ("every user", "o-w"),
    0o777: ("every user", "go-w"),
    0o722: ("every user", "go-w"),
    0o720: ("its group", "g-w"),
    0o775: ("its group", "g-w"),
}


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("place", ["", "a.pem"])
@pytest.mark.parametrize("mode", WRITABLE)
def test_trusted_keys_that_others_may_change(tmp_path: Path, mode: int, place: str) -> None:
    who, remedy = WRITABLE[mode]
    written(tmp_path / "a.pem", public_pem(ed25519_key()))
    (tmp_path / place).chmod(mode)
    with pytest.raises(TrustError, match=f"{who} may write to it; run 'chmod {remedy} {tmp_path}"):
        trusted_keys(tmp_path)
    (tmp_path / place).chmod(0o755)
    assert len(trusted_keys(tmp_path)) == 1


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", WRITABLE)
def test_a_private_key_that_others_may_change(tmp_path: Path, mode: int) -> None:
    who, remedy = WRITABLE[mode]
    path = written(tmp_path / "key.pem", private_pem(ed25519_key()))
    path.chmod(mode)
    with pytest.raises(ParameterError, match=f"{who} may write to it; run 'chmod {remedy} {path}"):
        private_key(path, never)
    path.chmod(0o600)
    private_key(path, never)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_is_no_file_is_no_key(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key.pem"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("no named pipes here")
        os.mkfifo(path)
    with pytest.raises(ParameterError, match=r"key\.pem: (missing|not a regular file)"):
        private_key(path, never)
    if kind != "missing":
        with pytest.raises(TrustError, match=r"key\.pem: (missing|not a regular file)"):
            trusted_keys(tmp_path)
    with pytest.raises(TrustError, match="cannot be read"):
        trusted_keys(tmp_path / "none")


def test_a_key_that_openssl_encrypted_the_old_way(tmp_path: Path) -> None:
    """PKCS #1's form names its encryption in a header line."""
    key = rsa.generate_private_key(65537, 1024)
    form = PrivateFormat.TraditionalOpenSSL
    raw = key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"old"))
    path = written(tmp_path / "key.pem", raw)
    with pytest.raises(ParameterError, match="an RSA key, expected an Ed25519 key"):
        private_key(path, lambda: "old")


def test_without_the_library_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(TrustError, match=r"pip install 'pulse-edge\[sign\]'"):
        trusted_keys(tmp_path)
    with pytest.raises(PulseEdgeError, match=r"pip install 'pulse-edge\[sign\]'"):
        make_key(tmp_path / "cart.pem")
    assert list(tmp_path.iterdir()) == []
