"""SCP-ECG."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from pulse_edge.ecg.readers.registry import read_recording
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError

from support.carts.scp import scp_file
from support.carts.signals import LEADS, eight, millivolts, samples

pytest.importorskip("ecgdatakit", reason="carts' files need pulse-edge[formats]")

SIGNALS = samples()


def read(folder: Path, data: bytes) -> Recording:
    path = folder / "made.scp"
    path.write_bytes(data)
    return read_recording(path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("differences", [0, 1, 2])
def test_encodings_of_samples(tmp_path: Path, packed: bool, differences: int) -> None:
    record = read(tmp_path, scp_file(SIGNALS, packed=packed, differences=differences))
    assert record.leads == LEADS
    assert np.allclose(record.signals, millivolts(SIGNALS), atol=1e-6)


def test_eight_stored_leads_make_twelve(tmp_path: Path) -> None:
    record = read(tmp_path, scp_file(eight(SIGNALS)))
    assert record.derived == ("III", "aVR", "aVL", "aVF")
    assert record.missing == ()


def test_measurements_are_the_intervals_between_the_carts_boundaries(tmp_path: Path) -> None:
    cart = read(tmp_path, scp_file(SIGNALS)).cart
    assert cart.measurements == {
        "RR interval": 800,
        "PR interval": 148,
        "QRS duration": 120,
        "QT interval": 420,
        "P axis": 44,
        "QRS axis": -61,
    }
    assert (cart.filters.highpass, cart.filters.lowpass, cart.filters.notch) == (0.05, 150, 50)
    assert (cart.statements, cart.left_out) == (("Sinus rhythm",), 1)


@pytest.mark.parametrize("rate", [240, 250, 400, 500, 1000])
def test_rates_are_those_of_the_interval(tmp_path: Path, rate: int) -> None:
    record = read(tmp_path, scp_file(samples(10, rate), rate=rate))
    assert record.rate == pytest.approx(1e6 / (1_000_000 // rate))


def test_leads_that_begin_later_are_drawn_later(tmp_path: Path) -> None:
    late = {lead: row[1250:2500] if lead == "V1" else row for lead, row in SIGNALS.items()}
    record = read(tmp_path, scp_file(late, starts={"V1": 1251}))
    row = record.signals[record.leads.index("V1")]
    assert np.isfinite(row).sum() == 1250
    assert np.allclose(row[1250:2500], millivolts(SIGNALS)[6][1250:2500])


def test_a_reference_beat_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="holds only an averaged beat; expected a rhythm"):
        read(tmp_path, scp_file(SIGNALS, rhythm=False))


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="its checksum differs"):
        read(tmp_path, scp_file(SIGNALS, checksums=False))


def test_no_turned_bit_is_drawn_in_silence(tmp_path: Path) -> None:
    data = scp_file(SIGNALS)
    rng = np.random.default_rng(1)
    for place in rng.integers(2, len(data), 40):
        changed = bytearray(data)
        changed[int(place)] ^= 1 << int(rng.integers(8))
        with pytest.raises(RecordingError):
            read(tmp_path, bytes(changed))


@pytest.mark.parametrize("cut", [1, 100, 60_000, 127_000])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(RecordingError, match=r"cut off|not a readable SCP-ECG|not a waveform"):
        read(tmp_path, scp_file(SIGNALS)[:-cut])


def test_a_lead_of_billions_of_samples_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="a lead of 4,294,967,295 samples"):
        read(tmp_path, _with_range(scp_file(SIGNALS), 1, 0xFFFFFFFF))


def _with_range(data: bytes, first: int, last: int) -> bytes:
    """The first lead of section 3 with another range, and no checksums: 0 stands for none."""
    changed = bytearray(data)
    changed[:2] = bytes(2)
    place = struct.unpack_from("<HII", data, 22 + 10 * 3)[2] - 1
    changed[place : place + 2] = bytes(2)
    struct.pack_into("<II", changed, place + 18, first, last)
    return bytes(changed)


def test_huffman_codes_that_would_take_seconds_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = {lead: rng.integers(-300, 300, 10_000) for lead in LEADS}
    with pytest.raises(RecordingError, match="bytes of Huffman codes; expected at most 262,144"):
        read(tmp_path, scp_file(noise, packed=True))
