"""A simulated recording as a DICOM file, to try out what takes recordings."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.ecg.recording import LEADS
from pulse_edge.errors import RecordingError
from pulse_edge.privacy import without_requests
from pulse_edge.simulation.ecg import RBBB, EcgSpec
from pulse_edge.simulation.simulator import simulate

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TWELVE_LEAD = "1.2.840.10008.5.1.4.1.1.9.1.1"  # 12-lead ECG Waveform Storage, PS3.4 B.5
STEP_UV = 5.0  # microvolts of one count
HZ = 500
SEED = 3
# What is on the sample page.
SAMPLE = EcgSpec(rate_bpm=74.0, qrs_ms=140.0, conduction=(RBBB,))


def sample_recording() -> bytes:
    """Ten seconds of twelve leads: sinus rhythm at 74 a minute with right bundle branch block.

    The same version of this package always gives the same bytes.

    Raises:
        RecordingError: pydicom, which writes it, is not installed.
    """
    try:
        with without_requests():
            import pydicom
    except ImportError:
        raise RecordingError(
            "a recording takes pydicom, which is not installed; pip install 'pulse-edge[ecg]'"
        ) from None
    file = io.BytesIO()
    pydicom.dcmwrite(file, _data_set(_counts()), enforce_file_format=True)
    return file.getvalue()


def _counts() -> NDArray[np.int16]:
    """Samples int16 [12, samples], whose limb leads obey Einthoven's law to the count."""
    millivolts = simulate(SAMPLE, SEED, HZ).signal
    counts = np.rint(millivolts * 1000 / STEP_UV)
    one, two = counts[0], counts[1]
    counts[2] = two - one
    counts[3] = -(one + two) / 2
    counts[4] = one - two / 2
    counts[5] = two - one / 2
    return np.rint(counts).astype(np.int16)


def _data_set(counts: NDArray[np.int16]) -> Dataset:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    def uid(what: str) -> UID:
        return generate_uid(entropy_srcs=["pulse-edge sample", what])

    record = Dataset()
    record.file_meta = FileMetaDataset()
    record.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    record.file_meta.MediaStorageSOPClassUID = UID(TWELVE_LEAD)
    record.SOPClassUID = UID(TWELVE_LEAD)
    record.file_meta.MediaStorageSOPInstanceUID = record.SOPInstanceUID = uid("instance")
    record.StudyInstanceUID = uid("study")
    record.SeriesInstanceUID = uid("series")
    record.Modality = "ECG"
    record.Manufacturer = "pulse-edge simulator"
    record.PatientName = "Simulated"
    record.PatientID = ""
    record.StudyDate = record.StudyTime = record.AccessionNumber = ""
    record.WaveformSequence = [_waveform(counts)]
    return record


def _waveform(counts: NDArray[np.int16]) -> Dataset:
    from pydicom.dataset import Dataset

    group = Dataset()
    group.WaveformOriginality = "ORIGINAL"
    group.NumberOfWaveformChannels = len(LEADS)
    group.NumberOfWaveformSamples = counts.shape[1]
    group.SamplingFrequency = str(HZ)
    group.ChannelDefinitionSequence = [_channel(lead) for lead in LEADS]
    group.WaveformBitsAllocated = 16
    group.WaveformSampleInterpretation = "SS"
    group.WaveformData = counts.T.astype("<i2").tobytes()
    return group


def _channel(lead: str) -> Dataset:
    from pydicom.dataset import Dataset

    def code(value: str, scheme: str, meaning: str) -> Any:
        item = Dataset()
        item.CodeValue = value
        item.CodingSchemeDesignator = scheme
        item.CodeMeaning = meaning
        return item

    channel = Dataset()
    channel.ChannelSourceSequence = [code(f"LEAD {lead}", "99PULSE", f"Lead {lead}")]
    channel.ChannelSensitivity = str(STEP_UV)
    channel.ChannelSensitivityUnitsSequence = [code("uV", "UCUM", "microvolt")]
    channel.ChannelSensitivityCorrectionFactor = "1"
    channel.ChannelBaseline = "0"
    channel.WaveformBitsStored = 16
    return channel
