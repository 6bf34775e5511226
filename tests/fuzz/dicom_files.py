"""Small DICOM recordings, and a plain second reading of them."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

NAMES = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MILLIVOLTS = {"uV": 1e-3, "mV": 1.0, "V": 1e3, "nV": 1e-6}
GENERAL_ECG = "1.2.840.10008.5.1.4.1.1.9.1.2"


@dataclass(frozen=True)
class Form:
    """How a seed stores its samples.

    Attributes:
        code: numpy's type of a sample.
        interpretation: DICOM's word for it.
        unit: of the sensitivity.
        sensitivity: of one step, in the unit.
        rate: samples per second.
        seconds: of the recording.
        median: whether a group of averaged beats follows.
        implicit: whether elements have no types.
    """

    code: str = "<i2"
    interpretation: str = "SS"
    unit: str = "uV"
    sensitivity: float = 5.0
    rate: int = 100
    seconds: float = 3.0
    median: bool = False
    implicit: bool = False


FORMS = (
    Form(),
    Form(median=True),
    Form(unit="mV", sensitivity=0.0025, rate=250, implicit=True),
    Form(code="<i4", interpretation="SL", sensitivity=1.25, rate=500, seconds=1.5),
    Form(unit="nV", sensitivity=5000.0, seconds=10.0),
)


def signals(form: Form) -> NDArray[np.float64]:
    """Steps [12, samples] of beats that obey Einthoven's law."""
    seconds = np.arange(int(form.rate * form.seconds)) / form.rate
    beat = np.exp(-(((seconds % 0.8) - 0.4) ** 2) / 0.001)
    wave = 0.15 * np.sin(2 * np.pi * seconds / 0.8)
    rng = np.random.default_rng(7)
    one, two = 0.6 * beat + wave, 0.9 * beat + 0.5 * wave
    limbs = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    chest = [(0.3 + 0.2 * i) * beat - 0.4 * wave for i in range(6)]
    noise = [0.02 * rng.standard_normal(len(seconds)) for _ in chest]
    millivolts = np.array([*limbs, *(a + b for a, b in zip(chest, noise, strict=True))])
    return np.rint(millivolts / (form.sensitivity * MILLIVOLTS[form.unit]))


def dicom_file(form: Form) -> bytes:
    """A 12-lead recording as carts write them."""
    dataset: Any = Dataset()
    dataset.SOPClassUID = GENERAL_ECG
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.PatientName = "Nobody^None"
    dataset.StudyDate = "20260101"
    dataset.Modality = "ECG"
    group = _group(form, signals(form), "ORIGINAL")
    dataset.WaveformSequence = [group]
    if form.median:
        short = signals(form)[:, : form.rate // 2]
        dataset.WaveformSequence.append(_group(form, short, "DERIVED"))
    meta: Any = FileMetaDataset()
    meta.MediaStorageSOPClassUID = GENERAL_ECG
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if form.implicit else ExplicitVRLittleEndian
    dataset.file_meta = meta
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def _group(form: Form, steps: NDArray[np.float64], originality: str) -> Dataset:
    group = Dataset()
    group.WaveformOriginality = originality
    group.NumberOfWaveformChannels = len(NAMES)
    group.NumberOfWaveformSamples = steps.shape[1]
    group.SamplingFrequency = form.rate
    group.MultiplexGroupLabel = "RHYTHM" if originality == "ORIGINAL" else "MEDIAN BEAT"
    group.ChannelDefinitionSequence = [_channel(form, name) for name in NAMES]
    group.WaveformBitsAllocated = 8 * int(form.code[2])
    group.WaveformSampleInterpretation = form.interpretation
    group.add_new("WaveformData", "OW", steps.T.astype(form.code).tobytes())
    return group


def _channel(form: Form, name: str) -> Dataset:
    channel, source, unit = Dataset(), Dataset(), Dataset()
    source.CodeValue = f"lead {name}"[:16]
    source.CodingSchemeDesignator = "99TEST"
    source.CodeMeaning = f"Lead {name}"
    unit.CodeValue = form.unit
    unit.CodingSchemeDesignator = "UCUM"
    unit.CodeMeaning = form.unit
    channel.ChannelSourceSequence = [source]
    channel.ChannelSensitivity = form.sensitivity
    channel.ChannelSensitivityUnitsSequence = [unit]
    channel.ChannelSensitivityCorrectionFactor = 1
    channel.ChannelBaseline = 0
    channel.WaveformBitsStored = 8 * int(form.code[2])
    return channel


def facts_of(data: bytes) -> list[Any] | None:
    """What a file says of its waveforms, by pydicom alone, numbers as numbers; None if pydicom
    cannot read it. Two files with equal facts hold the same recording."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            return [_facts(group) for group in dataset.WaveformSequence]
    except Exception:  # pydicom raises nearly anything on damaged files
        return None


def _facts(dataset: Any) -> list[Any]:
    found = []
    for tag in sorted(dataset.keys()):
        try:
            value = _fact(dataset[tag])
        except Exception:  # of a type that pydicom does not read
            value = repr(dataset.get_item(tag))
        found.append((int(tag), value))
    return found


def _fact(element: Any) -> Any:
    if element.VR == "SQ":
        return [_facts(item) for item in element.value]
    if element.VR in ("DS", "IS", "US", "FL", "FD", "UL"):
        return str(float(element.value))
    return repr(element.value)
