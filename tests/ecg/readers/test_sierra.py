"""Philips Sierra XML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pulse_edge.ecg.readers.registry import read_recording
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError

from support.carts.sierra import lzw, sierra_file, xli
from support.carts.signals import LEADS, millivolts, samples

pytest.importorskip("ecgdatakit", reason="carts' files need pulse-edge[formats]")

SIGNALS = samples()


def read(folder: Path, data: bytes) -> Recording:
    path = folder / "made.xml"
    path.write_bytes(data)
    return read_recording(path)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("version", ["1.03", "1.04", "1.04.01", "1.04.02"])
def test_versions_and_compression(tmp_path: Path, version: str, packed: bool) -> None:
    data = sierra_file(SIGNALS, version=version, packed=packed)
    if version == "1.03":
        data = data.replace(b"PhilipsECG", b"SierraECG")
    record = read(tmp_path, data)
    assert record.leads == LEADS
    assert np.allclose(record.signals, millivolts(SIGNALS), atol=1e-6)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    assert read(tmp_path, sierra_file(SIGNALS, encoding=encoding)).duration == 10


@pytest.mark.parametrize("rate", [250, 500, 1000])
def test_rates(tmp_path: Path, rate: int) -> None:
    record = read(tmp_path, sierra_file(samples(10, rate), rate=rate))
    assert (record.rate, record.duration) == (rate, 10)


def test_filters_measurements_and_statements_are_the_carts(tmp_path: Path) -> None:
    cart = read(tmp_path, sierra_file(SIGNALS)).cart
    assert (cart.filters.highpass, cart.filters.lowpass) == (0.05, 150)
    assert cart.measurements["QTc interval (Bazett)"] == 410
    assert cart.statements == ("Sinus rhythm",)


def test_a_document_without_rhythm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="a Sierra document without rhythm waveforms"):
        read(tmp_path, sierra_file(SIGNALS, rhythm=False))


@pytest.mark.parametrize("leads", [12, 200])
def test_compressed_samples_that_inflate_too_far_are_refused(tmp_path: Path, leads: int) -> None:
    body = lzw(bytes(4_800_000 // leads))
    chunk = len(body).to_bytes(4, "little") + bytes(4) + body
    data = sierra_file(SIGNALS, data=chunk * leads)
    assert len(data) < 1 << 20
    with pytest.raises(RecordingError, match="the compressed samples inflate to over 4 MiB"):
        read(tmp_path, data)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b'dataencoding="Base64" comp', b'dataencoding="Hex" comp'),
        lambda data: data.replace(b'compression="XLI"', b'compression="ZIP"'),
        lambda data: data.replace(b'samplespersecond="500"', b'samplespersecond="-1"'),
        lambda data: data.replace(b"durationperchannel", b"duration"),
        lambda data: data.replace(b'durationperchannel="10000"', b'durationperchannel="99999999"'),
        lambda data: data.replace(b"<documenttype>PhilipsECG", b"<documenttype>Other"),
        lambda data: data.replace(b"<documentversion>1.04", b"<documentversion>2.0"),
        lambda data: data.replace(b"parsedwaveforms", b"waves"),
        lambda data: data.replace(b'leadlabels="I II', b'leadlabels="I I'),
        lambda data: data[:-40],
    ],
)
def test_damage_is_refused_in_one_line(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    data = sierra_file(SIGNALS)
    assert change(data) != data
    with pytest.raises(RecordingError) as caught:
        read(tmp_path, change(data))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("cut", [1, 7, 8, 100, 5000])
def test_compressed_samples_that_are_cut_off_are_refused(tmp_path: Path, cut: int) -> None:
    data = xli([SIGNALS[lead] for lead in LEADS])
    with pytest.raises(RecordingError, match="not a readable Philips Sierra XML file"):
        read(tmp_path, sierra_file(SIGNALS, data=data[:-cut]))
