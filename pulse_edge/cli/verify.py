"""`pulse-edge verify`: checks a bundle, alone or against its checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from pulse_edge.bundle.added import Added, added_to
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.signatures import added_signers, signers
from pulse_edge.bundle.trust import Verified, added_trust, caller_trust, check_trust
from pulse_edge.cli.exporter import exporter
from pulse_edge.cli.options import options_from
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show, show_json, show_text
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import PulseEdgeError
from pulse_edge.units import size

# What each way of verifying shows.
MEANINGS = {
    "checksum": "not verified: its checksums hold, which shows no damage, not who made it",
    "expected": "verified: its seal is the expected one",
    "signature": "verified: signed by {key}, which is trusted",
}
# The same of a folder that a device has added. The bundle's seal says nothing about it.
ADDED_MEANINGS = {
    "checksum": "not verified: --trusted-keys DIR checks who signed it",
    "signature": "signed by {key}, which is trusted",
}
MOST_TOKENS = 4096  # as many as a request may ask for


@click.command("verify")
@click.argument("bundle")
@click.option(
    "--trusted-keys",
    metavar="DIR",
    type=click.Path(),
    help="Demand a signature by one of the public keys (*.pem) in DIR.",
)
@click.option("--expect", metavar="SEAL", help="Demand this seal.")
@click.option(
    "--against", metavar="CHECKPOINT", type=click.Path(), help="Compare with this checkpoint."
)
@click.option("--image", type=click.Path(), help="Page to compare on [default: a drawn test page].")
@click.option(
    "--tokens",
    type=click.IntRange(1, MOST_TOKENS),
    default=64,
    show_default=True,
    help="Greedy tokens to compare.",
)
@options_from(EngineOptions, "options", only=("engine", "threads"))
@click.option("--json", "as_json", is_flag=True)
def verify_command(
    bundle: str,
    trusted_keys: str | None,
    expect: str | None,
    against: str | None,
    image: str | None,
    tokens: int,
    options: EngineOptions,
    as_json: bool,
) -> None:
    """Check a BUNDLE's integrity and origin, or compare it with its checkpoint, stage by stage.

    What `pulse-edge build` has added is checked like the bundle itself. The rules of this device
    (/etc/pulse-edge.toml) are checked, too.
    """
    if against == "":  # as a path it would be the working directory
        raise click.UsageError("--against is empty; name a checkpoint")
    caller_trust(expect, trusted_keys)  # a wrong argument, before minutes of hashing
    with Status() as status:
        opened = open_bundle(bundle, progress=status)
        verified = check_trust(opened, expect, trusted_keys)
        added = added_to(opened)
        status.clear()
        if against is None:
            _print_intact(opened, verified, added, as_json)
            return
        report = exporter("verify").compare(
            opened, against, image, tokens, options.threads, status, options.engine
        )
    if as_json:
        show_json(dataclasses.asdict(report), indent=2)
    else:
        show_text(str(report))
    if not report.passed:
        raise PulseEdgeError(f"{bundle} does not agree with {against}: {report.verdict}")


def _print_intact(
    bundle: Bundle, verified: Verified, added: tuple[Added, ...], as_json: bool
) -> None:
    files = len(bundle.manifest.files)
    claimed = signers(bundle)
    if as_json:
        record = {
            "bundle": bundle.digest,
            "files": files,
            "intact": True,
            "verified": dataclasses.asdict(verified),
            "signatures": claimed,
            "added": [_added_record(bundle, folder) for folder in added],
        }
        show_json(record)
        return
    show(f"{bundle.path}: intact ({files} files, {size(bundle.size)})")
    show(f"seal {bundle.digest}")
    show(MEANINGS[verified.how].format(key=verified.key))
    if verified.how != "signature" and claimed:
        claims = ", ".join(name[:16] for name in claimed)
        show(f"signatures of {claims}, not checked; --trusted-keys DIR checks them")
    for folder in added:
        how = added_trust(bundle, folder.index)
        contents = f"{len(folder.files)} files, {size(folder.size)}"
        show(f"{folder.name}: intact ({contents}), {ADDED_MEANINGS[how.how].format(key=how.key)}")


def _added_record(bundle: Bundle, folder: Added) -> dict[str, Any]:
    return {
        "folder": folder.name,
        "files": len(folder.files),
        "verified": dataclasses.asdict(added_trust(bundle, folder.index)),
        "signatures": added_signers(folder.index),
    }
