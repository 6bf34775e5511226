"""`sign` and `verify` of a bundle to which a device has added kernels; ranges of `verify`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pulse_edge import configuration
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.cubins import read_cubins, write_cubins
from pulse_edge.bundle.trust import check_trust
from pulse_edge.cli.main import main

from support.signing import Signer, copied

pytest.importorskip("cryptography", reason="signing needs pulse-edge[sign]")

Capture = pytest.CaptureFixture[str]
FOLDER = "plans/native-sm90"


@pytest.fixture(autouse=True)
def no_rules_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(configuration, "SYSTEM_FILE", tmp_path / "system.toml")
    monkeypatch.delenv(configuration.VARIABLE, raising=False)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "keys")


@pytest.fixture
def path(bundle: Path, tmp_path: Path) -> Path:
    copy = copied(bundle, tmp_path / "bundle")
    write_cubins(open_bundle(copy), 90, "NVRTC 13.5", {"a" * 64: b"\x7fELF code"})
    return copy


def run(capsys: Capture, *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, out, err


def test_sign_covers_what_was_built_and_verify_says_so(
    path: Path, signer: Signer, capsys: Capture
) -> None:
    trusted = ("--trusted-keys", signer.trusted)
    code, out, err = run(capsys, "sign", path, "--key", signer.private)
    assert (code, err) == (0, "")
    assert (
        f"{FOLDER}: signed, 1 files\nsignature  {path / FOLDER / 'signatures' / signer.id}" in out
    )
    code, out, _ = run(capsys, "verify", path, *trusted)
    assert code == 0
    assert f"{FOLDER}: intact (1 files, 9 B), signed by {signer.id}, which is trusted" in out
    record = json.loads(run(capsys, "verify", path, "--json", *trusted)[1])
    assert record["added"] == [
        {
            "folder": FOLDER,
            "files": 1,
            "verified": {"how": "signature", "key": signer.id},
            "signatures": [signer.id],
        }
    ]
    opened = open_bundle(path)
    check_trust(opened, trusted_keys=signer.trusted)
    assert len(read_cubins(opened, 90)) == 1


def test_verify_without_keys_says_that_nobody_was_asked(
    path: Path, signer: Signer, capsys: Capture
) -> None:
    signer.sign(path)
    for arguments in ((), ("--expect", open_bundle(path).digest)):
        code, out, _ = run(capsys, "verify", path, *arguments)
        assert code == 0
        assert f"{FOLDER}: intact (1 files, 9 B), not verified: --trusted-keys DIR checks" in out
    record = json.loads(run(capsys, "verify", path, "--json")[1])
    assert record["added"][0]["verified"] == {"how": "checksum", "key": None}
    assert record["added"][0]["signatures"] == []


def test_verify_with_keys_refuses_what_nobody_trusted_signed(
    path: Path, signer: Signer, tmp_path: Path, capsys: Capture
) -> None:
    signer.sign(path)
    (tmp_path / "rules.toml").write_text(f'trusted_keys = "{signer.trusted}"')
    code, out, err = run(capsys, "verify", path, "--trusted-keys", signer.trusted)
    assert (code, out) == (4, "")
    assert err.startswith(f"error: {path / FOLDER}: no key in {signer.trusted}, which the caller")
    assert f"run 'pulse-edge sign {path} --key FILE', or remove the folder\n" in err
    shutil.rmtree(path / "plans")
    assert run(capsys, "verify", path, "--trusted-keys", signer.trusted)[0] == 0


def test_damaged_kernels_are_not_signed_and_not_verified(
    path: Path, signer: Signer, capsys: Capture
) -> None:
    cubin = path / FOLDER / f"{'a' * 64}.cubin"
    cubin.write_bytes(b"\x7fELF cod!")
    for arguments in (("sign", path, "--key", signer.private), ("verify", path)):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (4, "")
        assert f"{cubin}: altered" in err
        assert "build them again: pulse-edge build" in err
    assert not (path / "signatures").exists()


def test_a_key_that_others_may_change_signs_nothing(
    path: Path, signer: Signer, capsys: Capture
) -> None:
    for mode in (0o620, 0o602, 0o660, 0o666):
        signer.private.chmod(mode)
        code, _, err = run(capsys, "sign", path, "--key", signer.private)
        assert code == 2
        assert "may write to it; run 'chmod " in err
    assert not (path / "signatures").exists()


@pytest.mark.parametrize("option", ["--trusted-keys", "--against", "--expect"])
def test_an_empty_option_is_not_the_working_directory(
    path: Path, option: str, capsys: Capture
) -> None:
    code, out, err = run(capsys, "verify", path, option, "")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 or "Usage" in err


@pytest.mark.parametrize("tokens", ["0", "-1", "4097", "1e3", "", "99999999999999999999"])
def test_verify_compares_a_number_of_tokens_in_a_range(
    path: Path, tokens: str, capsys: Capture
) -> None:
    code, out, err = run(capsys, "verify", path, "--tokens", tokens)
    assert (code, out) == (2, "")
    assert "--tokens" in err
