"""Plans and kernels of a bundle under the signatures: who signed them decides whether they run."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pulse_edge import configuration
from pulse_edge.bundle.added import added_to
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.cubins import CUBINS, read_cubins, read_shapes, write_cubins
from pulse_edge.bundle.manifest import MANIFEST
from pulse_edge.bundle.plans import INDEX, PlanKey, open_plans, publish, staged
from pulse_edge.bundle.sealed_folder import PLANS
from pulse_edge.bundle.signatures import SIGNATURES, added_signers, sign_added, sign_bundle
from pulse_edge.bundle.trust import Verified, added_trust, check_trust
from pulse_edge.errors import BundleError, EngineError, TrustError

from support.signing import Signer, copied, forge

pytest.importorskip("cryptography", reason="signing needs pulse-edge[sign]")

KEY = PlanKey("tensorrt", "10.16.1", 87)
PLAN_FOLDER = f"{PLANS}/{KEY}"
KERNEL_FOLDER = f"{PLANS}/native-sm90"
CUBIN = {"a" * 64: b"\x7fELF code"}


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


def plant_plans(bundle: Bundle, content: bytes = b"plan") -> Path:
    """Plans that are none, as `pulse-edge build` leaves them."""
    with staged(bundle, KEY) as staging:
        for name in ("vision.plan", "decoder.plan"):
            (staging / name).write_bytes(name.encode() + content)
        publish(
            bundle,
            KEY,
            staging,
            prefill_rows=64,
            logit_rows=8,
            views=5,
            step_profile=1,
            several_profile=2,
        )
    return bundle.path / PLAN_FOLDER


def plant_kernels(bundle: Bundle, content: bytes = b"\x7fELF code") -> Path:
    return write_cubins(bundle, 90, "NVRTC 13.5", {"a" * 64: content})


@pytest.fixture
def path(bundle: Path, tmp_path: Path) -> Path:
    """A bundle with plans and kernels, which nobody has signed."""
    copy = copied(bundle, tmp_path / "bundle")
    plant_plans(open_bundle(copy))
    plant_kernels(open_bundle(copy))
    return copy


def sign_all(path: Path, signer: Signer) -> None:
    """As `pulse-edge sign` does."""
    opened = open_bundle(path)
    added = added_to(opened)
    sign_bundle(opened, signer.key)
    for folder in added:
        sign_added(opened, folder.index, signer.key)


def trusting(path: Path, *signers: Signer) -> Bundle:
    """A bundle as a load gives it to an engine that trusts keys."""
    opened = open_bundle(path)
    for signer in signers:
        check_trust(opened, trusted_keys=signer.trusted)
    return opened


READS: dict[str, Callable[[Bundle], object]] = {
    PLAN_FOLDER: lambda bundle: open_plans(bundle, KEY),
    KERNEL_FOLDER: lambda bundle: read_cubins(bundle, 90),
    f"{KERNEL_FOLDER} shapes": lambda bundle: read_shapes(bundle, 90),
}


# -- what an engine gets


@pytest.mark.parametrize("read", READS)
def test_who_trusts_nobody_runs_what_the_device_built(path: Path, read: str) -> None:
    READS[read](open_bundle(path))
    opened = open_bundle(path)
    check_trust(opened, expect=opened.digest)
    READS[read](opened)


@pytest.mark.parametrize("read", READS)
def test_what_was_added_after_the_signature_is_refused(
    path: Path, read: str, signer: Signer
) -> None:
    signer.sign(path)
    opened = trusting(path, signer)
    with pytest.raises(TrustError) as caught:
        READS[read](opened)
    text = str(caught.value)
    assert text.startswith(
        f"{path / read.split()[0]}: no key in {signer.trusted}, which the caller"
    )
    assert "it has no signature; after 'pulse-edge build' run 'pulse-edge sign " in text
    assert f"'pulse-edge sign {path} --key FILE'" in text
    assert "\n" not in text
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("read", READS)
def test_what_a_trusted_key_signed_runs(path: Path, read: str, signer: Signer) -> None:
    sign_all(path, signer)
    READS[read](trusting(path, signer))
    assert open_plans(trusting(path, signer), KEY).index.key == KEY
    assert read_cubins(trusting(path, signer), 90) == CUBIN


@pytest.mark.parametrize("read", READS)
def test_the_device_may_demand_it(path: Path, read: str, signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "system.toml").write_text(f'trusted_keys = "{signer.trusted}"')
    signer.sign(path)
    opened = open_bundle(path)
    check_trust(opened)
    with pytest.raises(TrustError, match=r"system\.toml names, has signed what was built there"):
        READS[read](opened)
    sign_all(path, signer)
    READS[read](opened)


def test_each_rule_demands_its_own_signature(
    path: Path, signer: Signer, stranger: Signer, tmp_path: Path
) -> None:
    (tmp_path / "system.toml").write_text(f'trusted_keys = "{signer.trusted}"')
    stranger.sign(path)
    sign_all(path, signer)
    opened = open_bundle(path)
    check_trust(opened, trusted_keys=stranger.trusted)
    with pytest.raises(
        TrustError, match=f"trusted-stranger, .* signatures of {signer.id[:16]} only"
    ):
        read_cubins(opened, 90)
    sign_all(path, stranger)
    assert read_cubins(opened, 90) == CUBIN


def test_asking_for_less_later_takes_nothing_back(path: Path, signer: Signer) -> None:
    signer.sign(path)
    opened = trusting(path, signer)
    check_trust(opened)
    with pytest.raises(TrustError):
        read_cubins(opened, 90)


@pytest.mark.parametrize("read", READS)
def test_a_stranger_may_sign_what_they_like(
    path: Path, read: str, signer: Signer, stranger: Signer
) -> None:
    signer.sign(path)
    sign_all(path, stranger)
    with pytest.raises(TrustError, match=f"it has signatures of {stranger.id[:16]} only"):
        READS[read](trusting(path, signer))


# -- forgeries: each was signed once, and is not what was signed


def rebuilt(path: Path) -> None:
    """Other code, sealed anew, with the old signatures put back."""
    for folder, plant in ((PLAN_FOLDER, plant_plans), (KERNEL_FOLDER, plant_kernels)):
        aside = path.parent / folder.replace("/", "-")
        shutil.move(path / folder / SIGNATURES, aside)
        plant(open_bundle(path), b"other code")
        shutil.move(aside, path / folder / SIGNATURES)


def of_the_bundle(path: Path) -> None:
    """The bundle's own signature, which a trusted key did make."""
    for folder in (PLAN_FOLDER, KERNEL_FOLDER):
        shutil.rmtree(path / folder / SIGNATURES)
        shutil.copytree(path / SIGNATURES, path / folder / SIGNATURES)


def swapped(path: Path) -> None:
    """Each folder has the other's signature."""
    one, other = path / PLAN_FOLDER / SIGNATURES, path / KERNEL_FOLDER / SIGNATURES
    one.rename(path.parent / "aside")
    other.rename(one)
    (path.parent / "aside").rename(other)


def altered(path: Path) -> None:
    """A bit of each signature."""
    for folder in (PLAN_FOLDER, KERNEL_FOLDER):
        for file in (path / folder / SIGNATURES).iterdir():
            envelope = json.loads(file.read_bytes())
            raw = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
            raw[10] ^= 1
            envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()
            file.write_text(json.dumps(envelope))


def removed(path: Path) -> None:
    for folder in (PLAN_FOLDER, KERNEL_FOLDER):
        shutil.rmtree(path / folder / SIGNATURES)


def linked(path: Path) -> None:
    """A folder of signatures that lies elsewhere."""
    for folder in (PLAN_FOLDER, KERNEL_FOLDER):
        aside = path.parent / folder.replace("/", "-")
        (path / folder / SIGNATURES).rename(aside)
        (path / folder / SIGNATURES).symlink_to(aside)


FORGERIES = (rebuilt, of_the_bundle, swapped, altered, removed, linked)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_does_not_run(
    path: Path, read: str, forgery: Callable[[Path], None], signer: Signer
) -> None:
    sign_all(path, signer)
    forgery(path)
    READS[read](open_bundle(path))  # no checksum shows it
    with pytest.raises(TrustError, match="has signed what was built there"):
        READS[read](trusting(path, signer))


def test_signed_kernels_of_another_bundle(path: Path, signer: Signer, tmp_path: Path) -> None:
    sign_all(path, signer)
    other = copied(path, tmp_path / "other")
    shutil.rmtree(other / PLANS)
    forge(other)
    signer.sign(other)
    shutil.copytree(path / PLANS, other / PLANS)
    with pytest.raises(TrustError, match=f"{SIGNATURES}/{signer.id}.json is of another {CUBINS}"):
        read_cubins(trusting(other, signer), 90)


def test_signed_kernels_in_a_folder_of_another_name(path: Path, signer: Signer) -> None:
    sign_all(path, signer)
    (path / KERNEL_FOLDER).rename(path / PLANS / "native-sm80")
    with pytest.raises(TrustError, match="has signed what was built there"):
        read_cubins(trusting(path, signer), 80)


@pytest.mark.parametrize("folder", [PLAN_FOLDER, KERNEL_FOLDER])
def test_code_that_was_exchanged_below_a_signed_index(
    path: Path, folder: str, signer: Signer
) -> None:
    sign_all(path, signer)
    file = min(p for p in (path / folder).iterdir() if p.suffix in (".plan", ".cubin"))
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(EngineError, match="altered"):
        READS[folder](trusting(path, signer))


def test_building_again_takes_the_signatures_away(path: Path, signer: Signer) -> None:
    sign_all(path, signer)
    plant_plans(open_bundle(path))
    plant_kernels(open_bundle(path))
    for folder in (PLAN_FOLDER, KERNEL_FOLDER):
        assert not (path / folder / SIGNATURES).exists()
    with pytest.raises(TrustError, match="it has no signature"):
        open_plans(trusting(path, signer), KEY)


# -- what is signed


def test_the_statement_names_the_bytes_of_the_index(path: Path, signer: Signer) -> None:
    sign_all(path, signer)
    for folder, index in ((PLAN_FOLDER, INDEX), (KERNEL_FOLDER, CUBINS)):
        envelope = json.loads((path / folder / SIGNATURES / f"{signer.id}.json").read_bytes())
        said = json.loads(base64.b64decode(envelope["payload"]))
        [subject] = said["subject"]
        assert subject["name"] == f"{folder}/{index}"
        digest = hashlib.sha256((path / folder / index).read_bytes()).hexdigest()
        assert subject["digest"] == {"sha256": digest}
        assert said["predicateType"] == "urn:pulse-edge:added-to-bundle:v1"
        assert said["predicate"] == {"bundle": open_bundle(path).digest}


def test_signing_what_was_added_changes_nothing_else(path: Path, signer: Signer) -> None:
    """Signatures from before plans could be signed stay as they are."""
    old = signer.sign(path).read_bytes()
    manifest = (path / MANIFEST).read_bytes()
    sign_all(path, signer)
    assert (path / SIGNATURES / f"{signer.id}.json").read_bytes() == old
    assert (path / MANIFEST).read_bytes() == manifest
    assert os.listdir(path / SIGNATURES) == [f"{signer.id}.json"]


def test_what_is_there_is_listed_with_its_signers(
    path: Path, signer: Signer, stranger: Signer
) -> None:
    sign_all(path, signer)
    sign_all(path, stranger)
    opened = trusting(path, signer)
    kernels, plans = added_to(opened)
    assert (kernels.name, plans.name) == (KERNEL_FOLDER, PLAN_FOLDER)
    assert [len(folder.files) for folder in (kernels, plans)] == [1, 2]
    assert (kernels.size, plans.size) == (9, 31)
    for folder in (kernels, plans):
        assert added_signers(folder.index) == tuple(sorted((signer.id, stranger.id)))
        assert added_trust(opened, folder.index) == Verified("signature", signer.id)
        assert added_trust(open_bundle(path), folder.index) == Verified("checksum")


def test_a_bundle_to_which_nothing_was_added(bundle: Path) -> None:
    assert added_to(open_bundle(bundle)) == ()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a plan cut": lambda p: (p / PLAN_FOLDER / "vision.plan").write_bytes(b"v"),
    "a plan altered": lambda p: (p / PLAN_FOLDER / "vision.plan").write_bytes(b"x" * 15),
    "a plan missing": lambda p: (p / PLAN_FOLDER / "decoder.plan").unlink(),
    "an index that is none": lambda p: (p / PLAN_FOLDER / INDEX).write_text("{}"),
    "plans under another name": lambda p: (p / PLAN_FOLDER).rename(p / PLANS / "tensorrt-1-sm87"),
    "a kernel altered": lambda p: (p / KERNEL_FOLDER / f"{'a' * 64}.cubin").write_bytes(b"x" * 9),
    "a kernel missing": lambda p: (p / KERNEL_FOLDER / f"{'a' * 64}.cubin").unlink(),
    "kernels under another name": lambda p: (p / KERNEL_FOLDER).rename(p / PLANS / "kernels"),
    "of another bundle": lambda p: forge(p),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_or_stale_is_named_and_not_signed(
    path: Path, kind: str, signer: Signer
) -> None:
    DAMAGE[kind](path)
    with pytest.raises(BundleError, match=r"plans/.*build them again.*, or remove the folder"):
        sign_all(path, signer)
    assert not (path / SIGNATURES).exists()
