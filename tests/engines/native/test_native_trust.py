"""Kernels of a bundle run only if a trusted key signed them, where a load trusts keys."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pulse_edge import configuration
from pulse_edge.bundle.added import added_to
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.signatures import sign_added
from pulse_edge.bundle.trust import check_trust
from pulse_edge.engines.native.cubins import build_kernels
from pulse_edge.engines.native.engine import open_engine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import TrustError

from support.fake_cuda import FakeCuda
from support.signing import Signer

pytest.importorskip("cryptography", reason="signing needs pulse-edge[sign]")


@pytest.fixture(autouse=True)
def no_rules_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(configuration, "SYSTEM_FILE", tmp_path / "system.toml")
    monkeypatch.delenv(configuration.VARIABLE, raising=False)


def trusting(path: Path, signer: Signer) -> Bundle:
    bundle = open_bundle(path)
    check_trust(bundle, trusted_keys=signer.trusted)
    return bundle


@pytest.mark.parametrize("engine", ["native", "auto"])
def test_kernels_that_nobody_signed_are_refused_and_not_replaced(
    cuda: FakeCuda, decoder: Path, tmp_path: Path, engine: str
) -> None:
    """`auto` would go on with ONNX Runtime; but somebody has put code there."""
    path = tmp_path / "bundle"
    shutil.copytree(decoder, path)
    signer = Signer(tmp_path / "keys")
    signer.sign(path)
    build_kernels(open_bundle(path), "sm90")
    options = EngineOptions(device="cuda", engine=engine)
    with pytest.raises(TrustError, match=r"native-sm90: no key in .* has signed what was built"):
        open_engine(trusting(path, signer), options)
    opened = open_bundle(path)
    [kernels] = added_to(opened)
    sign_added(opened, kernels.index, signer.key)
    assert open_engine(trusting(path, signer), options).describe()["engine"] == "native"


def test_kernels_that_this_process_compiles_need_no_signature(
    cuda: FakeCuda, decoder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(decoder, path)
    signer = Signer(tmp_path / "keys")
    signer.sign(path)
    engine = open_engine(trusting(path, signer), EngineOptions(device="cuda", engine="native"))
    assert engine.describe()["engine"] == "native"
