"""`sign`, `verify` and `audit verify` as a user types them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from pulse_edge import configuration
from pulse_edge.audit.log import AuditLog
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.keys import make_key
from pulse_edge.cli.main import main
from pulse_edge.errors import BundleError

from support.answers import answer
from support.signing import WEIGHTS, Signer, copied, forge

pytest.importorskip("cryptography", reason="signing needs pulse-edge[sign]")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the rules of this device would be."""
    path = tmp_path / "system.toml"
    monkeypatch.setattr(configuration, "SYSTEM_FILE", path)
    monkeypatch.delenv(configuration.VARIABLE, raising=False)
    return path


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "keys")


@pytest.fixture
def path(bundle: Path, tmp_path: Path) -> Path:
    return copied(bundle, tmp_path / "bundle")


def run(capsys: Capture, *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    code = caught.value.code
    assert isinstance(code, int)
    return code, out, err


def refused(capsys: Capture, code: int, *arguments: object) -> str:
    """The one line of a command that must fail with `code`."""
    result, out, err = run(capsys, *arguments)
    assert (result, out) == (code, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


# -- sign


def test_from_a_new_key_to_a_verified_bundle(path: Path, tmp_path: Path, capsys: Capture) -> None:
    key = tmp_path / "cart.pem"
    code, out, err = run(capsys, "sign", "--new-key", key)
    assert (code, err) == (0, "")
    name = out.split()[-1]
    assert str(tmp_path / "cart.pub.pem") in out
    code, out, err = run(capsys, "sign", path, "--key", key)
    assert (code, err) == (0, "")
    assert f"signed by {name}" in out
    assert open_bundle(path).digest in out
    code, out, err = run(capsys, "verify", path, "--trusted-keys", tmp_path / "cart.pub.pem")
    assert (code, err) == (0, "")
    assert f"verified: signed by {name}, which is trusted" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a BUNDLE and a --key"),
        (("bundle",), "name a BUNDLE and a --key"),
        (("--key", "k.pem"), "name a BUNDLE and a --key"),
        (("bundle", "--new-key", "k.pem"), "--new-key makes a key only"),
        (("--key", "k.pem", "--new-key", "n.pem"), "--new-key makes a key only"),
        (("bundle", "--key", "k.pem", "--passphrase"), "--passphrase goes with --new-key"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: tuple[str, ...],
    message: str,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "sign", *arguments)
    assert code == 2
    assert message in err
    assert list(tmp_path.glob("*.pem")) == []


def test_the_wrong_half_of_a_key(path: Path, signer: Signer, capsys: Capture) -> None:
    assert "a public key; sign with the private one" in refused(
        capsys, 2, "sign", path, "--key", signer.public
    )
    assert "a private key; a device needs the public one" in refused(
        capsys, 4, "verify", path, "--trusted-keys", signer.private
    )


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_key_that_others_may_read_is_used_with_a_warning(
    path: Path, signer: Signer, capsys: Capture
) -> None:
    signer.private.chmod(0o644)
    code, _, err = run(capsys, "sign", path, "--key", signer.private)
    assert code == 0
    assert err == (
        f"warning: {signer.private}: other users may read it; run 'chmod 600 {signer.private}'\n"
    )


def test_a_passphrase_is_asked_for(
    path: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "locked.pem"
    make_key(key, "horse staple")
    answers = iter(["wrong", "horse staple"])
    asked = []

    def prompt(text: str, **options: object) -> str:
        asked.append(text)
        assert options["hide_input"] is True
        return next(answers)

    monkeypatch.setattr("click.prompt", prompt)
    assert "wrong passphrase" in refused(capsys, 2, "sign", path, "--key", key)
    assert run(capsys, "sign", path, "--key", key)[0] == 0
    assert asked == ["Passphrase of the key"] * 2


def test_a_new_key_is_encrypted_if_asked(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("click.prompt", lambda text, **_: "horse staple")
    assert run(capsys, "sign", "--new-key", tmp_path / "k.pem", "--passphrase")[0] == 0
    assert b"ENCRYPTED" in (tmp_path / "k.pem").read_bytes()


def test_a_damaged_bundle_is_not_signed(path: Path, signer: Signer, capsys: Capture) -> None:
    with (path / WEIGHTS).open("r+b") as file:
        file.write(b"\xff\xfe\xfd")
    assert "altered" in refused(capsys, 4, "sign", path, "--key", signer.private)
    assert not (path / "signatures").exists()


# -- verify


def test_checksums_alone_are_called_that(path: Path, capsys: Capture) -> None:
    code, out, _ = run(capsys, "verify", path)
    assert code == 0
    assert "intact" in out
    assert "not verified: its checksums hold, which shows no damage, not who made it" in out


def test_the_record_of_verify(path: Path, signer: Signer, capsys: Capture) -> None:
    signer.sign(path)
    digest = open_bundle(path).digest
    expected = {
        "bundle": digest,
        "files": len(open_bundle(path).manifest.files),
        "intact": True,
        "verified": {"how": "checksum", "key": None},
        "signatures": [signer.id],
        "added": [],
    }
    assert json.loads(run(capsys, "verify", path, "--json")[1]) == expected
    assert json.loads(run(capsys, "verify", path, "--json", "--expect", digest)[1]) == expected | {
        "verified": {"how": "expected", "key": None}
    }
    trusted = ("--trusted-keys", signer.trusted)
    assert json.loads(run(capsys, "verify", path, "--json", *trusted)[1]) == expected | {
        "verified": {"how": "signature", "key": signer.id}
    }


def test_a_signature_that_nobody_checked_is_not_called_one(
    path: Path, signer: Signer, capsys: Capture
) -> None:
    signer.sign(path)
    _, out, _ = run(capsys, "verify", path)
    assert f"signatures of {signer.id[:16]}, not checked" in out
    assert "verified: signed" not in out


def test_what_is_not_trusted_exits_with_4(path: Path, signer: Signer, capsys: Capture) -> None:
    trusted = ("--trusted-keys", signer.trusted)
    assert "it has no signature" in refused(capsys, 4, "verify", path, *trusted)
    assert "asks for 0000" in refused(capsys, 4, "verify", path, "--expect", "0" * 64)
    assert "cannot be read" in refused(capsys, 4, "verify", path, "--trusted-keys", path / "none")
    signer.sign(path)
    forge(path)
    assert run(capsys, "verify", path)[0] == 0
    assert "is of another bundle" in refused(capsys, 4, "verify", path, *trusted)


def test_a_short_seal_is_refused_before_any_work(path: Path, capsys: Capture) -> None:
    seal = open_bundle(path).digest[:16]
    text = refused(capsys, 2, "verify", path / "none", "--expect", seal)
    assert "a seal is 64 hex digits" in text


def test_the_rules_of_the_device_hold_for_verify(
    path: Path, signer: Signer, rules: Path, capsys: Capture
) -> None:
    rules.write_text(f'trusted_keys = "{signer.trusted}"')
    assert "system.toml names" in refused(capsys, 4, "verify", path)
    signer.sign(path)
    assert "which is trusted" in run(capsys, "verify", path)[1]
    rules.write_text("trusted_keys = 'relative'")
    assert "expected an absolute path" in refused(capsys, 4, "verify", path)


@pytest.mark.parametrize("arguments", [("info",), ("info", "--json"), ("verify",)])
def test_a_forged_notice_is_not_shown(
    path: Path, arguments: tuple[str, ...], capsys: Capture
) -> None:
    with suppress(BundleError):  # opening it may be refused, too
        forge(path, notice="Approved for diagnosis.")
    _, out, err = run(capsys, arguments[0], path, *arguments[1:])
    assert "Approved" not in out + err


# -- audit verify


@pytest.fixture
def log(tmp_path: Path) -> Path:
    pytest.importorskip("fcntl", reason="an audit log needs flock")
    return tmp_path / "audit.jsonl"


def test_a_whole_log(log: Path, capsys: Capture) -> None:
    head = AuditLog(log).append(answer())
    code, out, err = run(capsys, "audit", "verify", log)
    assert (code, err) == (0, "")
    assert out.startswith("whole, answers: 1, from 20")
    assert f"head {head}\n" in out
    assert "without --anchor, lines missing at the end do not show" in out
    code, out, _ = run(capsys, "audit", "verify", log, "--anchor", head, "--json")
    assert (code, json.loads(out)["head"], json.loads(out)["answers"]) == (0, head, 1)


def test_an_altered_log_exits_with_10(log: Path, capsys: Capture) -> None:
    head = AuditLog(log).append(answer())
    log.write_bytes(log.read_bytes().splitlines(keepends=True)[0])
    assert run(capsys, "audit", "verify", log)[0] == 0
    text = refused(capsys, 10, "audit", "verify", log, "--anchor", head)
    assert "lines were removed" in text
    log.write_bytes(log.read_bytes().replace(b"begun", b"begin"))
    assert "line 1: was altered" in refused(capsys, 10, "audit", "verify", log)
    assert "no such file" in refused(capsys, 10, "audit", "verify", log.with_name("none"))


def test_an_answer_in_a_log(log: Path, tmp_path: Path, capsys: Capture) -> None:
    AuditLog(log).append(answer(1))
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(answer(1).to_dict(), indent=2))
    _, out, _ = run(capsys, "audit", "verify", log, "--answer", file)
    assert f"{file}: answered at 20" in out
    file.write_text(json.dumps(answer(2).to_dict()))
    assert "has no answer" in refused(capsys, 10, "audit", "verify", log, "--answer", file)
    for content in ("", "7", "[]", "{}", "\udcff"):
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
        text = refused(capsys, 10, "audit", "verify", log, "--answer", file)
        assert "not an answer; expected what 'pulse-edge ask --json' printed" in text


def test_a_question_may_ask_for_a_signature_and_a_log(
    path: Path, signer: Signer, tmp_path: Path, capsys: Capture
) -> None:
    page = tmp_path / "page.png"
    Image.new("RGB", (60, 60), "white").save(page)
    log = tmp_path / "audit.jsonl"
    asked = ["ask", page, "-m", path, "--max-new-tokens", 2, "--alpha", "drop"]
    asked += ["--trusted-keys", signer.trusted, "--audit", log]
    assert "it has no signature" in refused(capsys, 4, *asked)
    signer.sign(path)
    code, out, _ = run(capsys, *asked, "--json")
    assert code == 0
    provenance = json.loads(out)["provenance"]
    assert provenance["verified"] == {"how": "signature", "key": signer.id}
    assert len(log.read_text().splitlines()) == 2
    assert "its seal is" in refused(capsys, 4, *asked, "--expect", "0" * 64)
    seal = provenance["bundle"]
    assert "a seal is 64 hex digits" in refused(capsys, 2, *asked, "--expect", seal[:8])
