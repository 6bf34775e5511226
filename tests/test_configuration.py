"""The rules of a device: what a file may say, and that a bad one is never taken for none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pulse_edge import configuration
from pulse_edge.configuration import LARGEST_FILE, VARIABLE, Configuration, configurations
from pulse_edge.errors import TrustError

from support.signing import permissions_bind

SEAL = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The device's file, which is not there yet."""
    path = tmp_path / "system.toml"
    monkeypatch.setattr(configuration, "SYSTEM_FILE", path)
    monkeypatch.delenv(VARIABLE, raising=False)
    return path


def test_a_device_without_rules() -> None:
    assert configurations() == ()


def test_an_empty_variable_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert configurations() == ()


def test_a_file_of_nothing_but_comments_asks_nothing(file: Path) -> None:
    file.write_text("# expect = ...\n")
    assert configurations() == (Configuration(file),)


def test_every_rule(file: Path) -> None:
    file.write_text(f'expect = "{SEAL}"\ntrusted_keys = "/etc/keys"\naudit = "/var/log/a.jsonl"\n')
    assert configurations() == (
        Configuration(file, (SEAL,), Path("/etc/keys"), Path("/var/log/a.jsonl")),
    )


def test_two_files_add_up(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.toml"
    other.write_text(f'expect = ["{SEAL}"]')
    file.write_text('trusted_keys = "/etc/keys"')
    monkeypatch.setenv(VARIABLE, str(other))
    assert configurations() == (
        Configuration(file, trusted_keys=Path("/etc/keys")),
        Configuration(other, expect=(SEAL,)),
    )


def test_a_file_that_the_variable_names_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.toml"))
    with pytest.raises(TrustError, match=rf"none\.toml: missing, and {VARIABLE} names it"):
        configurations()


BAD = {
    "trusted_kyes = '/keys'": "unknown key 'trusted_kyes'; there are expect, trusted_keys, audit",
    "Expect = ''": "unknown key 'Expect'",
    "[trust]\nexpect = ''": "unknown key 'trust'",
    "expect = ''": "expect has ''; expected a bundle's whole seal, 64 hex digits",
    f"expect = '{SEAL[:-1]}'": "expected a bundle's whole seal",
    f"expect = '{SEAL.upper()}'": "expected a bundle's whole seal",
    f"expect = '{SEAL}x'": "expected a bundle's whole seal",
    f"expect = ['{SEAL}', '{SEAL[:16]}']": "expected a bundle's whole seal",
    f"expect = [['{SEAL}']]": "expected a bundle's whole seal",
    "expect = []": "lists no seal, so no bundle could be loaded",
    "expect = true": "expected a bundle's whole seal",
    "expect = 7": "expected a bundle's whole seal",
    f"expect = '{SEAL}'\nexpect = '{SEAL}'": "not valid TOML",
    "trusted_keys = ''": "trusted_keys is ''; expected an absolute path",
    "trusted_keys = 'keys'": "expected an absolute path",
    "trusted_keys = '~/keys'": "expected an absolute path",
    "trusted_keys = ['/a', '/b']": "expected an absolute path",
    "trusted_keys = false": "expected an absolute path",
    'trusted_keys = "/a\\u0000b"': "expected an absolute path",
    "audit = 'log'": "audit is 'log'; expected an absolute path",
    "audit = true": "expected an absolute path",
    "expect": "not valid TOML",
    "= 3": "not valid TOML",
    "{}": "not valid TOML",
    "expect = 'unfinished": "not valid TOML",
    "x = " + "[" * 3_000: "not valid TOML",
    "#" * (LARGEST_FILE + 1): "over 65,536 bytes",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: repr(text[:24]))
def test_a_malformed_file_refuses_everything(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(TrustError) as caught:
        configurations()
    assert BAD[text] in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(file: Path) -> None:
    file.write_bytes(b"expect = '\xff'")
    with pytest.raises(TrustError, match="not valid TOML"):
        configurations()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(
    ("mode", "who", "remedy"),
    [
        (0o602, "every user", "o-w"),
        (0o646, "every user", "o-w"),
        (0o666, "every user", "go-w"),
        (0o777, "every user", "go-w"),
        (0o620, "its group", "g-w"),
        (0o664, "its group", "g-w"),
        (0o775, "its group", "g-w"),
    ],
)
def test_a_file_that_others_may_change(file: Path, mode: int, who: str, remedy: str) -> None:
    file.write_text("")
    file.chmod(mode)
    with pytest.raises(TrustError, match=rf"{who} may write to it; run 'chmod {remedy} "):
        configurations()
    file.chmod(0o644)
    assert configurations() == (Configuration(file),)


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling", "loop", "below a file"])
def test_what_is_no_file_is_not_taken_for_none(
    file: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = file
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "dangling":
        named = file.with_name("link")
        named.symlink_to(file)
        monkeypatch.setenv(VARIABLE, str(named))
    elif kind == "loop":
        file.symlink_to(file)
    else:
        file.write_text("")
        named = file / "rules.toml"
        monkeypatch.setenv(VARIABLE, str(named))
    with pytest.raises(TrustError, match=r"not a regular file|cannot be read|missing"):
        configurations()


def test_a_file_that_may_not_be_read(file: Path) -> None:
    if not permissions_bind():
        pytest.skip("this user may read everything")
    file.write_text("")
    file.chmod(0)
    with pytest.raises(TrustError, match=r"cannot be read \(Permission denied\)"):
        configurations()
