"""GE MUSE XML."""

from __future__ import annotations

import base64
import zlib

import numpy as np
from numpy.typing import NDArray

from support.carts.signals import OTHER, PERSON, RATE, SECRET, STEP, Signals


def muse_file(
    signals: Signals,
    *,
    rate: int = RATE,
    step: float = STEP,
    unit: str = "MICROVOLTS",
    kinds: tuple[str, ...] = ("Median", "Rhythm"),
    statements: tuple[str, ...] = ("Sinus rhythm", f"Confirmed by {PERSON}"),
    prolog: str = '<?xml version="1.0" encoding="UTF-8"?><!-- exported -->',
    checksums: bool = True,
    encoding: str = "utf-8",
) -> bytes:
    """An export.

    Args:
        signals: counts by lead.
        rate: samples per second.
        step: of a count, in `unit`.
        unit: MUSE's word.
        kinds: of waveforms; a median beat is 600 ms of the same leads, twice as large.
        statements: of the cart.
        prolog: before the root.
        checksums: whether they are right.
        encoding: of the text.
    """
    waveforms = "".join(_waveform(kind, signals, rate, step, unit, checksums) for kind in kinds)
    said = "".join(
        f"<DiagnosisStatement><StmtFlag>ENDSLINE</StmtFlag><StmtText>{text}</StmtText>"
        "</DiagnosisStatement>"
        for text in statements
    )
    text = f"""{prolog}<RestingECG>
<MuseInfo><MuseVersion>9</MuseVersion></MuseInfo>
<PatientDemographics><PatientID>{SECRET}</PatientID><PatientLastName>{PERSON}</PatientLastName>
<PatientFirstName>{OTHER}</PatientFirstName><DateofBirth>02-13-1987</DateofBirth>
</PatientDemographics>
<TestDemographics><OverreaderLastName>{PERSON}</OverreaderLastName><Status>CONFIRMED</Status>
<ReferringMDLastName>{OTHER}</ReferringMDLastName><SiteName>{PERSON} Hospital</SiteName>
<AcquisitionDate>02-13-1987</AcquisitionDate></TestDemographics>
<Order><HISOrderNumber>{SECRET}</HISOrderNumber></Order>
<RestingECGMeasurements><VentricularRate>75</VentricularRate><PRInterval>148</PRInterval>
<QRSDuration>90</QRSDuration><QTInterval>380</QTInterval><QTCorrected>410</QTCorrected>
<PAxis>40</PAxis><RAxis>50</RAxis><TAxis>0</TAxis></RestingECGMeasurements>
<Diagnosis><Modality>RESTING</Modality>{said}</Diagnosis>{waveforms}</RestingECG>"""
    return text.encode(encoding)


def _waveform(
    kind: str, signals: Signals, rate: int, step: float, unit: str, checksums: bool
) -> str:
    median = kind == "Median"
    leads = "".join(
        _lead(lead, 2 * row[: rate * 3 // 5] if median else row, step, unit, checksums)
        for lead, row in signals.items()
    )
    return (
        f"<Waveform><WaveformType>{kind}</WaveformType><SampleBase>{rate}</SampleBase>"
        "<SampleExponent>0</SampleExponent><HighPassFilter>56</HighPassFilter>"
        f"<LowPassFilter>150</LowPassFilter><ACFilter>50</ACFilter>{leads}</Waveform>"
    )


def _lead(lead: str, row: NDArray[np.int64], step: float, unit: str, checksums: bool) -> str:
    data = row.astype("<i2").tobytes()
    checksum = zlib.crc32(data) ^ (0 if checksums else 1)
    return (
        f"<LeadData><LeadByteCountTotal>{len(data)}</LeadByteCountTotal>"
        f"<LeadSampleCountTotal>{len(row)}</LeadSampleCountTotal>"
        f"<LeadAmplitudeUnitsPerBit>{step}</LeadAmplitudeUnitsPerBit>"
        f"<LeadAmplitudeUnits>{unit}</LeadAmplitudeUnits><LeadSampleSize>2</LeadSampleSize>"
        f"<LeadDataCRC32>{checksum}</LeadDataCRC32><LeadID>{lead}</LeadID>"
        f"<WaveFormData>{base64.b64encode(data).decode()}</WaveFormData></LeadData>"
    )
