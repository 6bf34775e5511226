"""Data sets in every encoding, without a preamble, damaged or hostile."""

from __future__ import annotations

import io
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.ecg.readers.registry import HEAD, is_recording, read_recording
from pulse_edge.ecg.recording import LEADS
from pulse_edge.errors import RecordingError

from support.dicom_files import LEADS as NAMES
from support.dicom_files import Read, channel, dataset, ecg, group, millivolts, save

pydicom = pytest.importorskip("pydicom")

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG = "1.2.840.10008.1.2.2"
UNDEFINED = 0xFFFFFFFF


def bare(syntax: str, whole: Any = None) -> bytes:
    """The elements of a data set alone."""
    buffer = io.BytesIO()
    order = syntax != BIG
    pydicom.dcmwrite(
        buffer,
        dataset() if whole is None else whole,
        implicit_vr=syntax == IMPLICIT,
        little_endian=order,
        force_encoding=True,
    )
    return buffer.getvalue()


def big_endian() -> Any:
    return dataset(group(ecg(), dtype=">i2"))


def read_bytes(path: Path, data: bytes) -> Any:
    path.write_bytes(data)
    return read_recording(path)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED])
def test_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    record = read_recording(save(tmp_path / "made.dcm", dataset(), syntax))
    assert np.allclose(record.signals, millivolts(ecg()))


def test_a_syntax_of_compressed_images_is_explicit(tmp_path: Path) -> None:
    data = save(tmp_path / "made.dcm", dataset()).read_bytes()
    other = data.replace(EXPLICIT.encode() + b"\0", b"1.2.840.10008.1.2.4\0", 1)
    assert read_bytes(tmp_path / "other.dcm", other).leads == LEADS


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
@pytest.mark.parametrize("suffix", ["dcm", "bin"])
@pytest.mark.parametrize("preamble", [b"", b"DICM", bytes(128) + b"DICM", b"x" * 128 + b"DICM"])
def test_files_without_preamble_mark_or_meta_header(
    tmp_path: Path, syntax: str, suffix: str, preamble: bytes
) -> None:
    data = preamble + bare(syntax, big_endian() if syntax == BIG else None)
    path = tmp_path / f"made.{suffix}"
    record = read_bytes(path, data)
    assert is_recording(path, path.read_bytes()[:HEAD])
    assert np.allclose(record.signals, millivolts(ecg()))


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED])
def test_a_meta_header_without_preamble(tmp_path: Path, syntax: str) -> None:
    data = save(tmp_path / "made.dcm", dataset(), syntax).read_bytes()
    assert read_bytes(tmp_path / "bare", data[132:]).leads == LEADS


@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"BM", b""])
def test_images_and_others_are_no_recordings(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "page").write_bytes(head + bytes(300))
    assert not is_recording(tmp_path / "page", (tmp_path / "page").read_bytes()[:HEAD])
    (tmp_path / "page.dcm").write_bytes(head + bytes(300))
    with pytest.raises(RecordingError, match=r"not a readable DICOM file: .*first element"):
        read_recording(tmp_path / "page.dcm")


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("which", ["all", "groups", "channels"])
def test_sequences_of_undefined_length(tmp_path: Path, syntax: str, which: str) -> None:
    whole = dataset()

    def undefine(item: Any, depth: int) -> None:
        item.is_undefined_length_sequence_item = which == "all" or depth == 1
        for element in item:
            if element.VR == "SQ":
                undefined = {"all": True, "groups": depth == 0, "channels": depth == 1}[which]
                element.is_undefined_length = undefined
                for child in element.value:
                    undefine(child, depth + 1)

    undefine(whole, 0)
    assert struct.pack("<I", UNDEFINED) in bare(syntax, whole)
    record = read_recording(save(tmp_path / "made.dcm", whole, syntax))
    assert np.allclose(record.signals, millivolts(ecg()))


def test_nothing_of_a_patient_reaches_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    whole = dataset()
    data = save(tmp_path / "made.dcm", whole).read_bytes()
    # An unknown character set, a malformed date and age: pydicom warns of each.
    odd = dataset()
    odd.add_new("SpecificCharacterSet", "LO", "ISO_IR 999")
    odd.add_new("PatientBirthDate", "LO", "Planted^Date")
    odd.add_new("PatientAge", "LO", "Planted Age of a patient, far too long")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = save(tmp_path / "odd.dcm", odd)
    capfd.readouterr()
    caplog.clear()
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        assert read_recording(path).leads == LEADS
        for cut in (200, 400, 5000, len(data) - 10):
            with pytest.raises(RecordingError) as caught:
                read_bytes(tmp_path / "cut.dcm", data[:cut])
            assert "Planted" not in str(caught.value)
    assert [str(item.message) for item in raised] == []
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    path = save(tmp_path / "made.dcm", dataset())
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda _: read_recording(path), range(16)))
    assert all((record.signals == records[0].signals).all() for record in records)
    assert warnings.filters == before


def element(tag: int, value: bytes, length: int | None = None, kind: bytes = b"SQ") -> bytes:
    head = struct.pack("<HH2s2xI", tag >> 16, tag & 0xFFFF, kind, length or len(value))
    return head + value


def item(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, length or len(value)) + value


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: deep(5000), id="nested sequences"),
        pytest.param(lambda: element(0x00091010, item(b"") * 120_000, UNDEFINED), id="items"),
        pytest.param(lambda: element(0x54000100, item(b"") * 120_000), id="groups"),
        pytest.param(lambda: b"\x09\0\x10\x10LO\0\0" * 120_000, id="elements"),
        pytest.param(lambda: element(0x00091010, b"", 0xFFFFFFF0, b"OB"), id="a length"),
    ],
)
def test_hostile_files_are_refused_quickly(tmp_path: Path, make: Any) -> None:
    """Measured: at most 0.5 s. 2 s of the processor are the limit."""
    start = time.process_time()
    with pytest.raises(RecordingError, match=r"made\.dcm"):
        read_bytes(tmp_path / "made.dcm", bytes(128) + b"DICM" + first_bytes() + make())
    assert time.process_time() - start < 4


def first_bytes() -> bytes:
    return b"\x08\0\x60\0CS\x04\0ECG "


def deep(levels: int) -> bytes:
    """Sequences of undefined length, one in another."""
    return (element(0x54000100, b"", UNDEFINED) + item(b"", UNDEFINED)) * levels


def test_a_deflated_bomb_is_refused_before_it_inflates(tmp_path: Path) -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(65)) + bomb.flush()
    assert len(packed) < 100_000
    data = save(tmp_path / "made.dcm", dataset(), DEFLATED).read_bytes()
    meta = data[: 132 + 12 + struct.unpack("<I", data[140:144])[0]]
    with pytest.raises(RecordingError, match="inflates to over 64 MiB"):
        read_bytes(tmp_path / "bomb.dcm", meta + packed)


@pytest.mark.parametrize("at", range(0, 200, 8))
def test_cut_files_are_refused(tmp_path: Path, at: int) -> None:
    data = save(tmp_path / "made.dcm", dataset()).read_bytes()
    with pytest.raises(RecordingError):
        read_bytes(tmp_path / "cut.dcm", data[: len(data) * at // 200])


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("SamplingFrequency", "fast"),
        ("SamplingFrequency", "250\\500"),
        ("NumberOfWaveformSamples", "many"),
        ("NumberOfWaveformChannels", "1e99"),
        ("MultiplexGroupTimeOffset", "soon"),
    ],
)
def test_numbers_that_are_none_are_refused(read: Read, keyword: str, value: str) -> None:
    broken = group(ecg())
    broken.add_new(keyword, "LO", value)
    with pytest.raises(RecordingError, match=r"not a readable DICOM file|channel definitions"):
        read(dataset(broken))


def test_numbers_in_other_representations(read: Read) -> None:
    definitions = [channel(name) for name in NAMES]
    for definition in definitions:
        definition.add_new("ChannelSensitivity", "FD", 5.0)
        definition.add_new("WaveformBitsStored", "UL", 16)
    item_ = group(ecg(), definitions)
    item_.add_new("SamplingFrequency", "FL", 250.0)
    assert np.allclose(read(dataset(item_)).signals, millivolts(ecg()))
