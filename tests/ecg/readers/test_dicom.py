"""DICOM waveforms: pydicom's genuine one, and damaged copies of it."""

from __future__ import annotations

import builtins
import contextlib
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulse_edge.ecg.drawing import draw_page
from pulse_edge.ecg.readers import dicom, registry
from pulse_edge.ecg.readers.registry import HEAD, is_recording, read_recording
from pulse_edge.ecg.recording import LEADS
from pulse_edge.errors import RecordingError


@pytest.fixture(scope="module")
def sample() -> Path:
    """A 12-lead ECG of 10 s, and a median beat; recorded on a Mortara cart, anonymous."""
    data = pytest.importorskip("pydicom.data")
    path = data.get_testdata_file("waveform_ecg.dcm", download=False)
    if path is None:
        pytest.skip("this pydicom comes without its sample waveform")
    return Path(path)


@pytest.fixture
def edit(sample: Path, tmp_path: Path) -> Callable[[Callable[[Any], object]], Path]:
    """Save a copy of the sample after a change to its dataset."""
    import pydicom

    def edited(change: Callable[[Any], object]) -> Path:
        dataset = pydicom.dcmread(sample)
        change(dataset)
        dataset.save_as(tmp_path / "edited.dcm")
        return tmp_path / "edited.dcm"

    return edited


def test_genuine_recording(sample: Path) -> None:
    record = read_recording(sample)
    assert (record.leads, record.rate, record.duration, record.missing) == (LEADS, 1000, 10, ())
    assert record.signals.shape == (12, 10_000)
    assert record.signals.dtype == np.float32
    by_lead = dict(zip(record.leads, record.signals, strict=True))
    assert by_lead["II"].max() == pytest.approx(1.1375)  # 910 steps of 1.25 uV
    assert by_lead["V1"].min() == pytest.approx(-1.125)
    # Einthoven: the limb leads are combinations of two of them; the file rounds each to its step.
    assert np.abs(by_lead["I"] + by_lead["III"] - by_lead["II"]).max() < 0.01
    assert np.abs(by_lead["aVR"] + (by_lead["I"] + by_lead["II"]) / 2).max() < 0.01
    # The device measured a mean RR interval of 982 ms.
    above = by_lead["II"] > 0.7
    beats = np.flatnonzero(above[1:] & ~above[:-1])
    beats = beats[np.diff(beats, prepend=-1000) > 200]
    assert len(beats) == 10
    assert np.diff(beats).mean() == pytest.approx(982, abs=5)
    assert draw_page(record).size == (2200, 1700)


def test_recognised_by_mark_or_suffix(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "no_suffix").write_bytes(sample.read_bytes())
    (tmp_path / "page.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert is_recording(sample, sample.read_bytes())
    assert is_recording(tmp_path / "no_suffix", (tmp_path / "no_suffix").read_bytes()[:HEAD])
    assert is_recording(tmp_path / "absent.DCM", b"")
    assert not is_recording(tmp_path / "page.png", (tmp_path / "page.png").read_bytes()[:HEAD])
    assert not is_recording(tmp_path, b"")
    assert read_recording(tmp_path / "no_suffix").duration == 10
    for path, why in (
        ("page.png", "known: DICOM"),
        ("absent.dcm", "no such file"),
        (".", "no such file"),
    ):
        with pytest.raises(RecordingError, match=why):
            read_recording(tmp_path / path)


def test_units_factors_and_baseline(sample: Path, edit: Callable[..., Path]) -> None:
    plain = read_recording(sample).signals

    def change(dataset: Any) -> None:
        channels = dataset.WaveformSequence[0].ChannelDefinitionSequence
        channels[6].ChannelSensitivityUnitsSequence[0].CodeValue = "mV"
        channels[6].ChannelSensitivity = "0.0025"
        channels[7].ChannelSensitivityCorrectionFactor = 2
        channels[8].ChannelBaseline = 500
        channels[9].ChannelSensitivityUnitsSequence[0].CodeValue = "V"
        channels[9].ChannelSensitivity = "3.75e-6"
        del channels[10].ChannelSensitivityCorrectionFactor, channels[10].ChannelBaseline

    changed = read_recording(edit(change)).signals
    factors = np.ones(12)
    factors[[6, 7, 9]] = 2, 2, 3
    assert np.allclose(changed[8], plain[8] + 0.5, rtol=1e-5)
    factors[8] = np.nan
    for lead in np.flatnonzero(np.isfinite(factors)):
        assert np.allclose(changed[lead], factors[lead] * plain[lead], rtol=1e-5)


def test_samples_of_every_kind(edit: Callable[..., Path]) -> None:
    for form, code in (
        ("SB", "i1"),
        ("UB", "u1"),
        ("SS", "i2"),
        ("US", "u2"),
        ("SL", "i4"),
        ("UL", "u4"),
    ):
        raw = np.arange(60 * 12).reshape(60, 12) % 100

        def change(dataset: Any, form: str = form, code: str = code, raw: Any = raw) -> None:
            group = dataset.WaveformSequence[0]
            group.WaveformSampleInterpretation, group.WaveformBitsAllocated = form, 8 * int(code[1])
            group.NumberOfWaveformSamples = 60
            group.WaveformData = raw.astype("<" + code).tobytes()
            padding = np.array(99, "<" + code).tobytes()
            group.add_new("WaveformPaddingValue", "OB" if len(padding) == 1 else "OW", padding)
            del dataset.WaveformSequence[1]

        signals = read_recording(edit(change)).signals
        expected = np.where(raw == 99, np.nan, raw * 0.00125).T
        assert np.allclose(signals, expected, equal_nan=True), form


def test_big_endian(sample: Path, tmp_path: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(sample)
    for group in dataset.WaveformSequence:
        group.WaveformData = np.frombuffer(group.WaveformData, "<i2").astype(">i2").tobytes()
    for element in list(dataset):  # private words would need swapping as well
        if element.tag.is_private:
            del dataset[element.tag]
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    pydicom.dcmwrite(
        tmp_path / "big.dcm", dataset, implicit_vr=False, little_endian=False, force_encoding=True
    )
    assert (read_recording(tmp_path / "big.dcm").signals == read_recording(sample).signals).all()


def test_rhythm_is_chosen_over_median_beat(edit: Callable[..., Path]) -> None:
    assert read_recording(edit(lambda data: data.WaveformSequence.reverse())).duration == 10

    def unlabelled(dataset: Any) -> None:
        dataset.WaveformSequence.reverse()
        for group in dataset.WaveformSequence:
            del group.MultiplexGroupLabel, group.WaveformOriginality

    assert read_recording(edit(unlabelled)).duration == 10
    with pytest.raises(RecordingError, match="averaged beat"):
        read_recording(edit(lambda data: data.WaveformSequence.pop(0)))


def test_leads_by_code_by_name_and_unknown(edit: Callable[..., Path]) -> None:
    def change(dataset: Any) -> None:
        channels = dataset.WaveformSequence[0].ChannelDefinitionSequence
        channels[0].ChannelSourceSequence[0].CodeMeaning = "Ableitung nach Einthoven"
        channels[1].ChannelSourceSequence[0].CodeValue = "2:2"
        channels[2].ChannelSourceSequence[0].CodeValue = "MDC_ECG_LEAD_III"
        channels[3].ChannelSourceSequence[0].CodeValue = "5.6.3-9-65"
        channels[3].ChannelSourceSequence[0].CodeMeaning = "Lead -aVR"
        del channels[4].ChannelSourceSequence
        channels[4].ChannelLabel = "avl"

    record = read_recording(edit(change))
    assert record.leads == ("I", "II", "III", "Lead -aVR", *LEADS[4:])
    assert record.missing == ("aVR",)


def first(dataset: Any) -> Any:
    return dataset.WaveformSequence[0]


def second_channel(dataset: Any) -> Any:
    return first(dataset).ChannelDefinitionSequence[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: delattr(data, "WaveformSequence"), r"\(ECG\) without a waveform"),
        (lambda data: setattr(first(data), "WaveformSampleInterpretation", "MB"), "MB/16"),
        (lambda data: setattr(first(data), "WaveformBitsAllocated", 8), "SS/8"),
        (lambda data: setattr(first(data), "WaveformData", bytes(1000)), "cut off: 1000 bytes"),
        (lambda data: setattr(first(data), "NumberOfWaveformChannels", 11), "11 channels, but 12"),
        (lambda data: setattr(first(data), "NumberOfWaveformSamples", 0), "averaged|no samples"),
        (lambda data: setattr(first(data), "SamplingFrequency", "-5"), "rate of -5"),
        (lambda data: delattr(first(data), "SamplingFrequency"), "no Sampling Frequency"),
        (lambda data: delattr(first(data), "WaveformData"), "no Waveform Data"),
        (
            lambda data: delattr(first(data).ChannelDefinitionSequence[6], "ChannelSensitivity"),
            r"7 \(V1\) has no Ch",
        ),
        (
            lambda data: setattr(
                second_channel(data).ChannelSensitivityUnitsSequence[0], "CodeValue", "mm"
            ),
            r"2 \(II\) is in 'mm'; expected one of",
        ),
        (
            lambda data: setattr(second_channel(data).ChannelSourceSequence[0], "CodeValue", "2:1"),
            "more than one signal is named I",
        ),
    ],
)
def test_bad_files_are_refused(
    edit: Callable[..., Path], change: Callable[[Any], object], message: str
) -> None:
    with pytest.raises(RecordingError, match=message) as caught:
        read_recording(edit(change))
    assert "edited.dcm" in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=40, deadline=None)
@given(
    at=st.integers(132, 40_000),
    junk=st.binary(min_size=1, max_size=40),
    cut=st.integers(0, 290_000),
)
def test_damaged_bytes_never_raise_anything_else(
    sample: Path, at: int, junk: bytes, cut: int
) -> None:
    data = sample.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.dcm"
        path.write_bytes(data[:at] + junk + data[at + len(junk) : len(data) - cut])
        with contextlib.suppress(RecordingError):
            assert len(read_recording(path).signals)


def test_pydicom_is_optional(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "pydicom":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RecordingError, match=re.escape("pip install 'pulse-edge[ecg]'")):
        read_recording(sample)


def test_what_pydicom_says_of_damage_becomes_one_short_line(
    sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data: bytes) -> Any:
        raise KeyError("x" * 300 + "\nsecond line")

    def say(data: bytes) -> Any:
        raise ValueError("first line\nsecond line")

    def exhaust(data: bytes) -> Any:
        raise MemoryError

    for damaged, message in (
        (fail, f"file: not a readable DICOM file: KeyError: '{'x' * 99}"),
        (say, "file: not a readable DICOM file: ValueError: first line"),
        (exhaust, "file: too large for this machine's memory"),
    ):
        monkeypatch.setattr(dicom, "read_items", damaged)
        with pytest.raises(RecordingError) as caught:
            dicom.read_dicom(sample.read_bytes(), "file")
        assert str(caught.value) == message


def test_a_package_that_is_missing_is_named(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ImportError("pydicom is broken", name="pydicom"), ImportError("pydicom")):

        def fail(data: bytes, source: str, error: ImportError = error) -> Any:
            raise error

        readers = (registry.READERS[0]._replace(read=fail),)
        monkeypatch.setattr(registry, "READERS", readers)
        with pytest.raises(
            RecordingError, match=r"dcm: DICOM needs pydicom: pip install 'pulse-ed"
        ):
            read_recording(sample)
