"""DICOM waveform files that tests make: a plain 12-lead ECG, and changes to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.ecg.recording import Recording

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
STEP = 5.0  # uV a bit
RATE = 250.0  # Hz
Read = Callable[[Any], Recording]  # writes a data set and reads it


def ecg(seconds: float = 10, rate: float = RATE, start: float = 0) -> dict[str, NDArray[np.int64]]:
    """Samples of 5 uV by lead: beats of Gaussian waves, 75 a minute, that obey Einthoven's law."""
    time = start + np.arange(round(seconds * rate)) / rate

    def beats(*waves: tuple[float, float, float]) -> NDArray[np.float64]:
        phase = time % 0.8
        total = np.zeros(len(time))
        for centre, width, height in waves:
            total += height * np.exp(-(((phase - centre) / width) ** 2))
        return total

    one = np.rint(beats((0.1, 0.03, 16), (0.25, 0.012, 120), (0.5, 0.06, 30)))
    two = np.rint(beats((0.1, 0.03, 24), (0.25, 0.012, 200), (0.28, 0.01, -36), (0.5, 0.06, 44)))
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    chest = [
        beats((0.1, 0.03, 10), (0.25, 0.012, 40 * n), (0.28, 0.012, 90 * n - 500), (0.5, 0.06, 50))
        for n in range(1, 7)
    ]
    rows = (np.rint(row).astype(np.int64) for row in (*limb, *chest))
    return dict(zip(LEADS, rows, strict=True))


def channel(name: str, code: str | None = None, unit: str = "uV", **values: Any) -> Any:
    """A channel definition of 5 uV a bit; `values` by keyword, None removes one."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    source, units, definition = Dataset(), Dataset(), Dataset()
    source.CodeMeaning = name
    if code is not None:
        source.CodeValue = code
    units.CodeValue = unit
    units.CodingSchemeDesignator = "UCUM"
    definition.ChannelSourceSequence = Items([source])
    definition.ChannelSensitivityUnitsSequence = Items([units])
    standard = {
        "ChannelSensitivity": str(STEP),
        "ChannelSensitivityCorrectionFactor": "1",
        "ChannelBaseline": "0",
        "WaveformBitsStored": 16,
    }
    for keyword, value in (standard | values).items():
        if value is not None:
            setattr(definition, keyword, value)
    return definition


def group(
    signals: dict[str, NDArray[np.int64]],
    channels: Sequence[Any] | None = None,
    rate: float = RATE,
    dtype: str = "<i2",
    form: str = "SS",
    **values: Any,
) -> Any:
    """A multiplex group. `values` by keyword, as MultiplexGroupTimeOffset."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    samples = np.stack(list(signals.values()), axis=1).astype(dtype)
    item = Dataset()
    item.WaveformOriginality = "ORIGINAL"
    item.NumberOfWaveformChannels = samples.shape[1]
    item.NumberOfWaveformSamples = samples.shape[0]
    item.SamplingFrequency = f"{rate:g}"
    item.MultiplexGroupLabel = "RHYTHM"
    item.ChannelDefinitionSequence = Items(channels or [channel(name) for name in signals])
    item.WaveformBitsAllocated = 8 * samples.itemsize
    item.WaveformSampleInterpretation = form
    item.add_new("WaveformData", "OB" if samples.itemsize == 1 else "OW", samples.tobytes())
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def dataset(*groups: Any) -> Any:
    """A data set of these groups, by default one of 12 leads and 10 s."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    whole = Dataset()
    whole.SOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    whole.SOPInstanceUID = "1.2.3"
    whole.Modality = "ECG"
    whole.PatientName = "Planted^Name"
    whole.WaveformSequence = Items(groups or [group(ecg())])
    return whole


def save(path: Path, whole: Any, syntax: str = "1.2.840.10008.1.2.1") -> Path:
    """Write a data set as a DICOM file of a transfer syntax."""
    import pydicom

    whole.file_meta = pydicom.dataset.FileMetaDataset()
    whole.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, whole, enforce_file_format=True)
    return path


def millivolts(signals: dict[str, NDArray[np.int64]]) -> NDArray[np.float64]:
    """Samples of 5 uV in mV, [leads, samples]."""
    return np.stack(list(signals.values())) * STEP / 1000
