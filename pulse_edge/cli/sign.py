"""`pulse-edge sign`: signs a bundle, or makes the key for that."""

from __future__ import annotations

from pathlib import Path

import click

from pulse_edge.bundle.added import added_to
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.keys import exposed, key_id, make_key, private_key, public_path
from pulse_edge.bundle.signatures import sign_added, sign_bundle
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show


@click.command("sign")
@click.argument("bundle", required=False)
@click.option("--key", metavar="FILE", type=click.Path(), help="Private Ed25519 key, in PEM.")
@click.option("--new-key", metavar="FILE", type=click.Path(), help="Make a key pair.")
@click.option("--passphrase", is_flag=True, help="Encrypt the new key; ask for a passphrase.")
def sign_command(
    bundle: str | None, key: str | None, new_key: str | None, passphrase: bool
) -> None:
    """Sign a BUNDLE, after checking it. The signature is stored in the bundle.

    Plans and kernels that `pulse-edge build` has added by then are checked and signed, too.

    `pulse-edge verify BUNDLE --trusted-keys DIR` checks it. DIR holds public keys of signers.
    """
    if passphrase and new_key is None:
        raise click.UsageError("--passphrase goes with --new-key; --key asks where it needs one")
    if new_key is not None:
        if bundle is not None or key is not None:
            raise click.UsageError("--new-key makes a key only; sign with --key afterwards")
        _make(Path(new_key), _new_passphrase() if passphrase else None)
        return
    if bundle is None or key is None:
        raise click.UsageError("name a BUNDLE and a --key, or make a key with --new-key")
    _sign(bundle, Path(key))


def _make(path: Path, passphrase: str | None) -> None:
    name = make_key(path, passphrase)
    show(f"private key  {path}  (keep it off the devices)")
    show(f"public key   {public_path(path)}  (for --trusted-keys)")
    show(f"key id       {name}")


def _sign(bundle: str, path: Path) -> None:
    key = private_key(path, lambda: _prompt("Passphrase of the key"))
    if exposed(path):
        show(f"warning: {path}: other users may read it; run 'chmod 600 {path}'", err=True)
    with Status() as status:
        opened = open_bundle(bundle, progress=status)
        added = added_to(opened)
    where = sign_bundle(opened, key)
    show(f"{opened.path}: signed by {key_id(key.public_key())}")
    show(f"seal       {opened.digest}")
    show(f"signature  {where}")
    for folder in added:
        show(f"{folder.name}: signed, {len(folder.files)} files")
        show(f"signature  {sign_added(opened, folder.index, key)}")


def _prompt(text: str, again: bool = False) -> str:
    answer: str = click.prompt(text, hide_input=True, confirmation_prompt=again, err=True)
    return answer


def _new_passphrase() -> str:
    return _prompt("Passphrase of the new key", again=True)
