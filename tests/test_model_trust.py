"""`load` with conditions: who signed the bundle, which seal it must have, what is logged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pulse_edge import configuration
from pulse_edge.answer import Answer
from pulse_edge.audit.check import check_logs
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.errors import AuditError, BundleError, ParameterError, TrustError
from pulse_edge.model import Model, load

from support.signing import Signer, copied, forge

pytest.importorskip("cryptography", reason="signing needs pulse-edge[sign]")

PAGE = np.full((60, 60, 3), 200, np.uint8)
QUESTION = "What is the rhythm of Jane Doe?"


@pytest.fixture(autouse=True)
def no_rules_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(configuration, "SYSTEM_FILE", tmp_path / "system.toml")
    monkeypatch.delenv(configuration.VARIABLE, raising=False)


def asked(model: Model) -> Answer:
    return model.ask(PAGE, QUESTION, max_new_tokens=4)


def test_an_answer_says_how_its_bundle_was_verified(bundle: Path, tmp_path: Path) -> None:
    signer = Signer(tmp_path / "keys")
    copy = copied(bundle, tmp_path / "copy")
    signer.sign(copy)
    seal = open_bundle(copy).digest
    for model, verified in (
        (load(copy, threads=1), {"how": "checksum", "key": None}),
        (load(copy, threads=1, check_hashes=False), {"how": "unchecked", "key": None}),
        (load(copy, threads=1, expect=seal), {"how": "expected", "key": None}),
        (
            load(copy, threads=1, trusted_keys=signer.trusted),
            {"how": "signature", "key": signer.id},
        ),
        (
            load(copy, threads=1, trusted_keys=signer.public, expect=seal),
            {"how": "signature", "key": signer.id},
        ),
    ):
        assert asked(model).provenance["verified"] == verified


def test_bundles_that_do_not_satisfy_a_condition_are_not_loaded(
    bundle: Path, tmp_path: Path
) -> None:
    signer = Signer(tmp_path / "keys")
    stranger = Signer(tmp_path / "keys", "stranger")
    copy = copied(bundle, tmp_path / "copy")
    seal = open_bundle(copy).digest
    with pytest.raises(TrustError, match="it has no signature"):
        load(copy, trusted_keys=signer.trusted)
    stranger.sign(copy)
    with pytest.raises(TrustError, match="signatures of"):
        load(copy, trusted_keys=signer.trusted)
    signer.sign(copy)
    load(copy, threads=1, trusted_keys=signer.trusted)
    with pytest.raises(TrustError, match="its seal is"):
        load(copy, expect="0" * 64)
    with pytest.raises(ParameterError, match="a seal is 64 hex digits"):
        load(copy, expect=seal[:16])
    with pytest.raises(ParameterError, match="check_hashes is False"):
        load(copy, expect=seal, check_hashes=False)
    forge(copy)
    load(copy, threads=1)  # a checksum does not show intent
    with pytest.raises(BundleError):
        load(copy, expect=seal)
    with pytest.raises(TrustError):
        load(copy, trusted_keys=signer.trusted)


def test_a_devices_rules_hold_for_every_load(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = Signer(tmp_path / "keys")
    copy = copied(bundle, tmp_path / "copy")
    log = tmp_path / "audit.jsonl"
    rules = tmp_path / "cart.toml"
    rules.write_text(f'trusted_keys = "{signer.trusted}"\naudit = "{log}"\n')
    monkeypatch.setenv(configuration.VARIABLE, str(rules))
    with pytest.raises(TrustError, match="it has no signature"):
        load(copy, threads=1)
    assert not log.exists()
    signer.sign(copy)
    answer = asked(load(copy, threads=1))
    assert answer.provenance["verified"]["how"] == "signature"
    assert len(log.read_text().splitlines()) == 2  # its beginning, and the answer


def test_each_answer_is_logged_without_text_path_or_name(bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    model = load(bundle, threads=1, audit=log)
    answers = [asked(model) for _ in range(3)]
    with model.stream(PAGE, QUESTION, max_new_tokens=4) as stream:
        answers.append(stream.answer)
    lines = log.read_text().splitlines()
    assert len(lines) == 1 + len(answers)
    for words in ("Jane", "rhythm", str(bundle), answers[0].text or "ASSISTANT"):
        assert words not in log.read_text()
    assert json.loads(lines[1])
    check_logs([log])


def test_an_answer_that_cannot_be_logged_is_withheld(bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    model = load(bundle, threads=1, audit=log)
    asked(model)
    log.unlink()
    os.mkfifo(log)
    with pytest.raises(AuditError):
        asked(model)
    with pytest.raises(AuditError):
        load(bundle, threads=1, audit=tmp_path / "absent" / "audit.jsonl")
