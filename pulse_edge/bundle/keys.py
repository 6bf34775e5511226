"""Ed25519 keys in PEM files: made, read, and named by a hash."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_edge.errors import ParameterError, PulseEdgeError, TrustError
from pulse_edge.guarded import check_guarded, read_guarded

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

INSTALL = "cryptography is not installed; pip install 'pulse-edge[sign]'"
LARGEST_KEY = 1 << 16  # bytes of a PEM file; an Ed25519 key takes 200
MOST_KEYS = 1_000
MAKE_ONE = "make a key with 'pulse-edge sign --new-key FILE'"


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key, as `openssl pkey -pubin -outform DER | sha256sum` prints it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def public_path(path: Path) -> Path:
    """Where the public half of a private key is written: `cart.pem` -> `cart.pub.pem`."""
    return path.with_name(f"{path.stem}.pub.pem")


def make_key(path: Path, passphrase: str | None = None) -> str:
    """Make a key pair: the private key for its owner's eyes only, the public one beside it.

    Args:
        path: of the private key. Nothing is overwritten.
        passphrase: encrypts the private key; None leaves it as it is.

    Returns:
        The key's id.

    Raises:
        ParameterError: a file is there already, or cannot be written.
        PulseEdgeError: cryptography is not installed.
    """
    check_installed(PulseEdgeError)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        KeySerializationEncryption,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    for place in (path, public_path(path)):
        if os.path.lexists(place):
            raise ParameterError(f"{place}: exists already; name another file")
    key = Ed25519PrivateKey.generate()
    encryption: KeySerializationEncryption = (
        BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _write_new(path, private, 0o600)
    _write_new(public_path(path), public, 0o644)
    return key_id(key.public_key())


def private_key(path: Path, ask: Callable[[], str]) -> Ed25519PrivateKey:
    """Read a private key.

    Args:
        path: of a PEM file.
        ask: returns the passphrase; it is called if the key is encrypted.

    Raises:
        ParameterError: the file cannot be read, holds no such key, or others than its owner may
            write to it; or the passphrase is wrong.
        PulseEdgeError: cryptography is not installed.
    """
    check_installed(PulseEdgeError)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    raw = _read_key(path, ParameterError)
    if b"-----BEGIN PUBLIC KEY-----" in raw:
        raise ParameterError(f"{path}: a public key; sign with the private one")
    if b"-----BEGIN OPENSSH PRIVATE KEY-----" in raw:
        raise ParameterError(f"{path}: a key in OpenSSH's format, expected PKCS #8; {MAKE_ONE}")
    locked = b"ENCRYPTED" in raw
    password = ask().encode() if locked else None
    try:
        key = load_pem_private_key(raw, password or (b"" if locked else None))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        problem = "wrong passphrase, or damaged" if locked else f"no private key in PEM; {MAKE_ONE}"
        raise ParameterError(f"{path}: {problem}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ParameterError(f"{path}: {_algorithm(key)}, expected an Ed25519 key; {MAKE_ONE}")
    return key


def exposed(path: Path) -> bool:
    """Whether other users may read a private key."""
    mode = path.stat().st_mode
    return os.name == "posix" and bool(mode & (stat.S_IRGRP | stat.S_IROTH))


def trusted_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """The public keys in a folder's `*.pem` files, or in one file, by their ids.

    Every file must hold one Ed25519 public key. One that does not is a mistake which could leave
    out the key that was meant, so it is an error.

    Raises:
        TrustError: a key cannot be read, or is none; there is no key; others than the owner may
            write there; or cryptography is not installed.
    """
    check_installed(TrustError)
    try:
        names = sorted(os.listdir(path)) if path.is_dir() else None
        status = path.stat()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise TrustError(f"{path}: {problem}; trusted keys are *.pem files in a folder") from None
    check_guarded(path, status, TrustError)
    files = [path] if names is None else [path / n for n in names if n.lower().endswith(".pem")]
    if not files:
        raise TrustError(f"{path}: holds no *.pem file, so it trusts nobody; put public keys there")
    if len(files) > MOST_KEYS:
        raise TrustError(f"{path}: {len(files):,} keys, over {MOST_KEYS:,}")
    keys = (_public_key(file) for file in files)
    return {key_id(key): key for key in keys}


def check_installed(kind: type[PulseEdgeError]) -> None:
    """Raise an error of a kind, with what to install, unless cryptography can be imported."""
    try:
        import cryptography.exceptions  # noqa: F401
    except ImportError:
        raise kind(INSTALL) from None


def _public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    raw = _read_key(path, TrustError)
    if b"PRIVATE KEY-----" in raw:
        raise TrustError(f"{path}: a private key; a device needs the public one, *.pub.pem")
    if raw.count(b"-----BEGIN") > 1:
        raise TrustError(f"{path}: holds several keys; put each into a file of its own")
    try:
        key = load_pem_public_key(raw)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise TrustError(f"{path}: no public key in PEM; replace or remove it") from None
    if not isinstance(key, Ed25519PublicKey):
        raise TrustError(
            f"{path}: {_algorithm(key)}, expected an Ed25519 key; replace or remove it"
        )
    return key


def _algorithm(key: object) -> str:
    """A key of another algorithm, in words."""
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

    kinds = {
        "an RSA key": (rsa.RSAPrivateKey, rsa.RSAPublicKey),
        "an ECDSA key": (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey),
        "a DSA key": (dsa.DSAPrivateKey, dsa.DSAPublicKey),
    }
    names = (name for name, classes in kinds.items() if isinstance(key, classes))
    return next(names, "a key of another algorithm")


def _read_key(path: Path, kind: type[PulseEdgeError]) -> bytes:
    try:
        return read_guarded(path, LARGEST_KEY, kind)
    except FileNotFoundError:
        raise kind(f"{path}: missing") from None


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(number)
    except OSError as error:
        raise ParameterError(f"{path}: cannot be written ({error.strerror})") from None
