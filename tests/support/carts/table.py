"""The formats of carts, for tests that try every one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.carts.aecg import Stretch, aecg_file
from support.carts.edf import edf_file
from support.carts.muse import muse_file
from support.carts.scp import scp_file
from support.carts.sierra import sierra_file
from support.carts.signals import Signals, eight
from support.carts.wfdb import wfdb_files

Write = Callable[[Path, Signals], Path]  # writes a recording into a folder; returns its path


def _writer(name: str, make: Callable[[Signals], bytes]) -> Write:
    def write(folder: Path, signals: Signals) -> Path:
        path = folder / name
        path.write_bytes(make(signals))
        return path

    return write


WRITERS: dict[str, Write] = {
    "GE MUSE XML": _writer("muse.xml", lambda signals: muse_file(eight(signals))),
    "HL7 aECG": _writer("aecg.xml", lambda signals: aecg_file([Stretch(signals)])),
    "SCP-ECG": _writer("record.scp", scp_file),
    "Philips Sierra XML": _writer("sierra.xml", sierra_file),
    "EDF": _writer("record.edf", edf_file),
    "WFDB": wfdb_files,
}
