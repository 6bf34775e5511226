"""Conditions on a bundle by themselves: which are demanding, and which ask for signatures."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.opened import AddedIndex, Folder
from pulse_edge.bundle.trust import (
    CHECKSUM,
    Trust,
    Verified,
    added_trust,
    caller_trust,
    check_trust,
)
from pulse_edge.errors import ParameterError, TrustError

from support.hand_bundle import write_bundle

SEAL = "0123456789abcdef" * 4


def test_a_condition_is_demanding() -> None:
    assert caller_trust(None, None) == Trust("the caller", None, None)
    assert caller_trust(None, None).demanding is False
    assert caller_trust(SEAL, None) == Trust("the caller", (SEAL,), None)
    assert caller_trust(SEAL, None).demanding is True
    assert caller_trust(None, "keys") == Trust("the caller", None, Path("keys"))
    assert caller_trust(None, Path("keys")).demanding is True
    with pytest.raises(ParameterError, match="a seal is 64 hex digits"):
        caller_trust(SEAL[1:], None)


def test_seals_that_are_asked_for(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "bundle"))
    assert Trust("who").check(bundle) == Verified("checksum") == CHECKSUM
    assert Trust("who", (SEAL, bundle.digest)).check(bundle) == Verified("expected")
    head = f"{bundle.path}: its seal is {bundle.digest}, but who asks for "
    for seals, asked in (
        ((SEAL,), SEAL),
        ((), "one of 0 others"),
        ((SEAL, "1" * 64), "one of 2 others"),
    ):
        with pytest.raises(TrustError) as caught:
            Trust("who", seals).check(bundle)
        assert str(caught.value) == f"{head}{asked}; name the bundle that was meant"


def test_what_was_added_is_asked_for_by_conditions_with_keys(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "bundle"))
    index = AddedIndex(Folder(bundle.path), "index.json", b"{}")
    check_trust(bundle, bundle.digest)
    assert bundle.files.guards == []
    assert added_trust(bundle, index) == CHECKSUM
    with pytest.raises(RuntimeError, match="without keys"):
        Trust("who").check_added(bundle, index)
