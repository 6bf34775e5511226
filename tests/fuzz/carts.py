"""Files of carts that were damaged: XML families, SCP-ECG, EDF, WFDB and CSV.

What is damaged is refused by `RecordingError`, or is read as something: only SCP-ECG has checksums
for everything, so a changed one is refused or the same. A file that was cut off is refused or the
same, unless it is one of lines, as CSV and the headers of WFDB. No message has a planted name.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pulse_edge.ecg.readers.registry import CsvTerms, read_recording
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError

from fuzz.bytes_ import DAMAGE
from fuzz.campaign import ESCAPE, SILENT, Counts, Finding, attempt
from fuzz.recordings import same
from support.carts.edf import edf_file
from support.carts.scp import scp_file
from support.carts.signals import LEADS, PLANTED, Signals, samples
from support.carts.table import WRITERS

FORMATS = (*WRITERS, "CSV")
TERMS = CsvTerms(500, "5uV", LEADS)
NUMBERS = (b"0", b"-1", b"1e99", b"nan", b"99999999999", b"", b"x", b"65536", b"0.5")
_NUMBER = re.compile(rb"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])")
_TAG = re.compile(rb"<[^>]{1,200}>")


class _Seed(NamedTuple):
    """A sound file: what is damaged of it, and how it is read."""

    form: str
    path: Path
    data: bytes
    sound: Recording
    damaged: Path  # the file that the damage is written to


class Carts:
    """The campaign. Case n is of format n modulo their number."""

    def __init__(self, folder: Path) -> None:
        self._seeds: list[_Seed] = []
        signals = samples(3)
        for form in FORMATS:
            place = folder / form.replace(" ", "_")
            place.mkdir()
            path = _written(form, place, signals)
            self._seeds.append(_Seed(form, path, path.read_bytes(), _read(path, form), path))
            if form == "WFDB":
                file = path.with_suffix(".dat")
                self._seeds.append(_Seed(form, path, file.read_bytes(), _read(path, form), file))
        for form, data in (
            ("SCP-ECG", scp_file(signals, packed=True, differences=2)),
            ("EDF", edf_file(signals, kind="EDF+D", seconds=0.5)),
        ):
            path = folder / f"other_{form}"
            path.write_bytes(data)
            self._seeds.append(_Seed(form, path, data, _read(path, form), path))

    def case(self, number: int, rng: random.Random) -> Counts:
        seed = self._seeds[number % len(self._seeds)]
        kind = rng.choice([*DAMAGE, "number", "tag"])
        seed.damaged.write_bytes(_CHANGES[kind](seed.data, rng))
        try:
            found = attempt(lambda: _read(seed.path, seed.form))
        finally:
            seed.damaged.write_bytes(seed.data)
        if isinstance(found, Recording):
            text = repr((found.facts, found.notes))
            ending = "the same" if same(found, seed.sound) else "another"
        else:
            text = str(found)
            ending = "refused"
            if not isinstance(found, RecordingError):
                raise Finding(ESCAPE, f"{seed.form}, {kind}: {type(found).__name__}")
        named = [name for name in PLANTED if name in text.replace(str(seed.path), "")]
        if named:
            raise Finding(ESCAPE, f"{seed.form}, {kind}: {named} in {text[:200]!r}")
        lines = seed.damaged.suffix in (".hea", ".csv")
        exact = seed.form == "SCP-ECG" or (kind == "truncate" and not lines)
        if exact and ending == "another":
            raise Finding(SILENT, f"{seed.form}, {kind}: another recording")
        return {f"{seed.form} {ending}": 1}


def _written(form: str, folder: Path, signals: Signals) -> Path:
    if form in WRITERS:
        return WRITERS[form](folder, signals)
    path = folder / "table.csv"
    rows = zip(*(signals[lead].tolist() for lead in LEADS), strict=True)
    path.write_text("\n".join(",".join(map(str, row)) for row in rows))
    return path


def _read(path: Path, form: str) -> Recording:
    return read_recording(path, TERMS if form == "CSV" else None)


def _change_number(data: bytes, rng: random.Random) -> bytes:
    """A number of the text is another one."""
    places = list(_NUMBER.finditer(data[:20_000]))
    if not places:
        return data[1:]
    place = rng.choice(places)
    return data[: place.start()] + rng.choice(NUMBERS) + data[place.end() :]


def _change_tag(data: bytes, rng: random.Random) -> bytes:
    """An element's beginning or end is missing, repeated, or that of another one."""
    places = list(_TAG.finditer(data))
    if not places:
        return data[:-1]
    place, other = rng.choice(places), rng.choice(places)
    new = rng.choice((b"", place[0] * 2, other[0]))
    return data[: place.start()] + new + data[place.end() :]


_CHANGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    **DAMAGE,
    "number": _change_number,
    "tag": _change_tag,
}
