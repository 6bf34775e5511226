"""Whether a bundle is one that may run here: by its seal, or by who signed it.

The seal of a bundle is a checksum. It shows damage, not intent: who alters a bundle can seal it
anew. Intent is kept out by a seal that came another way, or by a signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.opened import AddedIndex
from pulse_edge.bundle.signatures import (
    added_problem,
    added_signers,
    first_signer,
    signature_problem,
    signers,
)
from pulse_edge.configuration import SEAL, Configuration, configurations
from pulse_edge.errors import ParameterError, TrustError


@dataclass(frozen=True)
class Verified:
    """How a bundle was verified; `provenance.verified` of an answer.

    Attributes:
        how: `signature` of a trusted key; `expected`, the seal was known beforehand; `checksum`,
            the files agree with the manifest; `unchecked`, not even that was looked at.
        key: id of the key whose signature it is, else None.
    """

    how: Literal["checksum", "expected", "signature", "unchecked"]
    key: str | None = None


CHECKSUM = Verified("checksum")


@dataclass(frozen=True)
class Trust:
    """What a bundle must satisfy. Both conditions hold if both are named.

    Args:
        source: who asks for it, for messages.
        seals: the bundle must have one of these seals; None: any.
        keys: a folder of public keys, or one file; one of them must have signed the bundle.
    """

    source: str
    seals: tuple[str, ...] | None = None
    keys: Path | None = None

    @property
    def demanding(self) -> bool:
        """Whether there is any condition."""
        return self.seals is not None or self.keys is not None

    def check(self, bundle: Bundle) -> Verified:
        """Check a bundle whose files are checked against its manifest elsewhere.

        Raises:
            TrustError: the bundle does not satisfy the conditions, or a key cannot be read.
        """
        if self.seals is not None and bundle.digest not in self.seals:
            asked = self.seals[0] if len(self.seals) == 1 else f"one of {len(self.seals)} others"
            raise TrustError(
                f"{bundle.path}: its seal is {bundle.digest}, but {self.source} asks for {asked}; "
                "name the bundle that was meant"
            )
        if self.keys is not None:
            return Verified("signature", self._signer(bundle, self.keys))
        return Verified("expected" if self.seals is not None else "checksum")

    def check_added(self, bundle: Bundle, index: AddedIndex) -> str:
        """Check that a trusted key has signed what a device has added to a bundle.

        Args:
            bundle: that satisfies the conditions.
            index: of the folder that was added.

        Returns:
            The id of the key.

        Raises:
            TrustError: no trusted key has signed it, or a key cannot be read.
        """
        if self.keys is None:
            raise RuntimeError("check_added() without keys")
        signer, reason = first_signer(
            self.keys, added_signers(index), lambda key: added_problem(bundle, index, key)
        )
        if signer is None:
            raise TrustError(
                f"{index.folder.path}: no key in {self.keys}, which {self.source} names, has "
                f"signed what was built there: {reason}; after 'pulse-edge build' run "
                f"'pulse-edge sign {bundle.path} --key FILE', or remove the folder"
            )
        return signer

    def _signer(self, bundle: Bundle, folder: Path) -> str:
        """The id of the first trusted key whose signature holds."""
        signer, reason = first_signer(
            folder, signers(bundle), lambda key: signature_problem(bundle, key)
        )
        if signer is None:
            raise TrustError(
                f"{bundle.path}: no key in {folder}, which {self.source} names, has signed this "
                f"bundle: {reason}; get it from its maker, or run 'pulse-edge sign'"
            )
        return signer


def check_trust(
    bundle: Bundle,
    expect: str | None = None,
    trusted_keys: str | Path | None = None,
    hashed: bool = True,
) -> Verified:
    """Check what the caller asks of a bundle, and what this device asks of every bundle.

    Where keys are trusted, the bundle gives out plans and compiled kernels from here on only if one
    of the keys has signed them, too.

    Args:
        bundle: an opened bundle, whose hashes may still be computed meanwhile.
        expect: the seal that the bundle must have, 64 hex digits.
        trusted_keys: a folder of `*.pem` public keys, or one file. One of the keys must have signed
            the bundle.
        hashed: whether the files' hashes are checked. Without that, nothing says what the files
            hold, so no condition can be satisfied.

    Returns:
        The strongest of what was checked.

    Raises:
        ParameterError: `expect` is no seal, or a condition meets files that are not hashed.
        TrustError: the bundle does not satisfy a condition, or a rule of the device cannot be read.
    """
    rules = (caller_trust(expect, trusted_keys), *map(_device_trust, configurations()))
    if not hashed:
        for trust in rules:
            if trust.demanding:
                raise ParameterError(
                    f"check_hashes is False, but {trust.source} asks for a verified bundle; "
                    "leave it True"
                )
        return Verified("unchecked")
    results = [trust.check(bundle) for trust in rules]
    bundle.files.guards += [trust.check_added for trust in rules if trust.keys is not None]
    ranks = ("signature", "expected", "checksum")
    return min(results, key=lambda verified: ranks.index(verified.how))


def added_trust(bundle: Bundle, index: AddedIndex) -> Verified:
    """How a folder that a device has added to a bundle was verified.

    Args:
        bundle: that `check_trust` has checked.
        index: of the folder, whose files' hashes were checked.

    Raises:
        TrustError: a signature is demanded, and there is none that holds.
    """
    names = [guard(bundle, index) for guard in bundle.files.guards]
    return Verified("signature", names[0]) if names else CHECKSUM


def caller_trust(expect: str | None, trusted_keys: str | Path | None) -> Trust:
    """The conditions of a call.

    Raises:
        ParameterError: `expect` is no whole seal, or `trusted_keys` is empty.
    """
    if expect is not None and not SEAL.fullmatch(expect):
        raise ParameterError(
            f"expect is {expect!r:.80}; a seal is 64 hex digits, as 'pulse-edge info' prints it"
        )
    if trusted_keys == "":  # as a path it would be the working directory
        raise ParameterError("trusted_keys is empty; name a folder of public keys, or one key")
    seals = None if expect is None else (expect,)
    keys = None if trusted_keys is None else Path(trusted_keys)
    return Trust("the caller", seals, keys)


def _device_trust(rules: Configuration) -> Trust:
    return Trust(str(rules.path), rules.expect, rules.trusted_keys)
