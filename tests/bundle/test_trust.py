"""What a caller and a device ask of a bundle, and how the answer says it was verified."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from pulse_edge import configuration
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.trust import Verified, check_trust
from pulse_edge.errors import BundleError, ParameterError, TrustError

from support.signing import Signer, copied, forge

pytest.importorskip("cryptography", reason="signing needs pulse-edge[sign]")

OTHER = "0" * 64


@pytest.fixture(autouse=True)
def no_rules_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(configuration, "SYSTEM_FILE", tmp_path / "system.toml")
    monkeypatch.delenv(configuration.VARIABLE, raising=False)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "keys")


@pytest.fixture
def stranger(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "keys", "stranger")


@pytest.fixture
def signed(bundle: Path, signer: Signer, tmp_path: Path) -> Bundle:
    path = copied(bundle, tmp_path / "signed")
    signer.sign(path)
    return open_bundle(path)


def rules(tmp_path: Path, text: str) -> Path:
    """Lay down the rules of this device."""
    path = tmp_path / "system.toml"
    path.write_text(text)
    return path


# -- the caller's conditions


def test_a_seal_alone_is_a_checksum(signed: Bundle) -> None:
    assert check_trust(signed) == Verified("checksum", None)


def test_the_expected_seal(signed: Bundle) -> None:
    assert check_trust(signed, expect=signed.digest) == Verified("expected", None)


def test_a_trusted_signature(signed: Bundle, signer: Signer) -> None:
    expected = Verified("signature", signer.id)
    assert check_trust(signed, trusted_keys=signer.trusted) == expected
    assert check_trust(signed, trusted_keys=str(signer.public)) == expected
    assert check_trust(signed, signed.digest, signer.trusted) == expected


def test_one_of_several_trusted_keys_is_enough(
    signed: Bundle, signer: Signer, stranger: Signer
) -> None:
    shutil.copy(stranger.public, signer.trusted / "a.pem")
    shutil.copy(stranger.public, signer.trusted / "z.pem")
    assert check_trust(signed, trusted_keys=signer.trusted) == Verified("signature", signer.id)


def test_both_conditions_hold_if_both_are_named(
    signed: Bundle, signer: Signer, stranger: Signer
) -> None:
    with pytest.raises(TrustError, match="the caller asks for 0000"):
        check_trust(signed, OTHER, signer.trusted)
    with pytest.raises(TrustError, match=r"no key in .*trusted-stranger"):
        check_trust(signed, signed.digest, stranger.trusted)


def test_another_seal(signed: Bundle) -> None:
    with pytest.raises(
        TrustError, match=f"its seal is {signed.digest}, but the caller asks for 0000"
    ):
        check_trust(signed, expect=OTHER)


@pytest.mark.parametrize(
    "text", ["", "0", "0" * 63, "0" * 65, "g" * 64, "A" * 64, "0" * 64 + "\n", " " + "0" * 63]
)
def test_a_part_of_a_seal_is_none(signed: Bundle, text: str) -> None:
    with pytest.raises(ParameterError, match="a seal is 64 hex digits"):
        check_trust(signed, expect=text)


def test_a_prefix_of_the_right_seal_is_refused(signed: Bundle) -> None:
    with pytest.raises(ParameterError):
        check_trust(signed, expect=signed.digest[:32])


def test_a_signature_of_somebody_else(signed: Bundle, signer: Signer, stranger: Signer) -> None:
    with pytest.raises(
        TrustError, match=f"it has signatures of {signer.id[:16]} only; get it from its maker"
    ):
        check_trust(signed, trusted_keys=stranger.trusted)


def test_no_signature_at_all(bundle: Path, signer: Signer) -> None:
    with pytest.raises(TrustError, match="has signed this bundle: it has no signature;"):
        check_trust(open_bundle(bundle), trusted_keys=signer.trusted)


def test_an_altered_bundle_that_was_sealed_anew(signed: Bundle, signer: Signer) -> None:
    forged = forge(signed.path)
    assert check_trust(forged) == Verified("checksum"), "a checksum does not show intent"
    with pytest.raises(TrustError, match="is of another bundle"):
        check_trust(forged, trusted_keys=signer.trusted)
    with pytest.raises(TrustError, match="its seal is"):
        check_trust(forged, expect=signed.digest)


def test_a_key_that_is_trusted_no_more(signed: Bundle, signer: Signer, stranger: Signer) -> None:
    shutil.copy(stranger.public, signer.trusted / "stranger.pem")
    (signer.trusted / "cart.pem").unlink()
    with pytest.raises(TrustError, match=f"signatures of {signer.id[:16]} only"):
        check_trust(signed, trusted_keys=signer.trusted)


def test_a_refusal_is_a_bundle_error_in_one_line(signed: Bundle) -> None:
    with pytest.raises(BundleError) as caught:
        check_trust(signed, expect=OTHER)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


# -- files that are not hashed


def test_files_that_are_not_hashed_satisfy_nothing(
    signed: Bundle, signer: Signer, tmp_path: Path
) -> None:
    assert check_trust(signed, hashed=False) == Verified("unchecked")
    with pytest.raises(ParameterError, match="check_hashes is False, but the caller asks for"):
        check_trust(signed, expect=signed.digest, hashed=False)
    with pytest.raises(ParameterError, match="but the caller asks for a verified bundle"):
        check_trust(signed, trusted_keys=signer.trusted, hashed=False)
    rules(tmp_path, f'expect = "{signed.digest}"')
    with pytest.raises(ParameterError, match=r"but .*system\.toml asks for a verified bundle"):
        check_trust(signed, hashed=False)


# -- the device's conditions


def test_a_device_trusts_a_key(
    bundle: Path, signed: Bundle, signer: Signer, tmp_path: Path
) -> None:
    rules(tmp_path, f'trusted_keys = "{signer.trusted}"')
    assert check_trust(signed) == Verified("signature", signer.id)
    with pytest.raises(TrustError, match=r"which .*system\.toml names, has signed this bundle"):
        check_trust(open_bundle(bundle))


def test_a_caller_cannot_undo_what_the_device_asks(
    bundle: Path, signed: Bundle, signer: Signer, stranger: Signer, tmp_path: Path
) -> None:
    rules(tmp_path, f'trusted_keys = "{signer.trusted}"')
    other = copied(bundle, tmp_path / "other")
    stranger.sign(other)
    with pytest.raises(TrustError, match=r"system\.toml names"):
        check_trust(open_bundle(other), trusted_keys=stranger.trusted)
    assert check_trust(signed, expect=signed.digest) == Verified("signature", signer.id)


def test_a_device_that_runs_two_bundles(signed: Bundle, tmp_path: Path) -> None:
    rules(tmp_path, f'expect = ["{OTHER}", "{signed.digest}"]')
    assert check_trust(signed) == Verified("expected")
    rules(tmp_path, f'expect = ["{OTHER}", "{"1" * 64}"]')
    with pytest.raises(TrustError, match=r"system\.toml asks for one of 2 others"):
        check_trust(signed)


def test_rules_that_cannot_be_read_refuse_every_bundle(signed: Bundle, tmp_path: Path) -> None:
    rules(tmp_path, "trusted_kyes = '/keys'")
    with pytest.raises(TrustError, match="unknown key 'trusted_kyes'"):
        check_trust(signed)


def test_an_audit_log_asks_nothing_of_a_bundle(signed: Bundle, tmp_path: Path) -> None:
    rules(tmp_path, f'audit = "{tmp_path / "log"}"')
    assert check_trust(signed, hashed=False) == Verified("unchecked")


def test_nothing_is_imported_for_signatures_that_nobody_asks_for(
    signed: Bundle, monkeypatch: pytest.MonkeyPatch, signer: Signer
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert check_trust(signed, expect=signed.digest) == Verified("expected")
    with pytest.raises(TrustError, match=r"pip install 'pulse-edge\[sign\]'"):
        check_trust(signed, trusted_keys=signer.trusted)
