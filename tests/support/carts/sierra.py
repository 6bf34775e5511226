"""Philips Sierra XML, with samples as they are or compressed by XLI."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from support.carts.signals import LEADS, OTHER, PERSON, RATE, SECRET, STEP, Signals

_BITS = 10
_LAST = (1 << _BITS) - 2


def sierra_file(
    signals: Signals,
    *,
    version: str = "1.04",
    packed: bool = True,
    rate: int = RATE,
    step: float = STEP,
    encoding: str = "utf-8",
    rhythm: bool = True,
    data: bytes | None = None,
) -> bytes:
    """A document.

    Args:
        signals: counts of all 12 leads.
        version: of the document.
        packed: whether samples are compressed.
        rate: samples per second.
        step: uV of a count.
        encoding: of the text.
        rhythm: whether there are waveforms, besides representative beats.
        data: in the place of the samples.
    """
    rows = [signals[lead] for lead in LEADS]
    milliseconds = 1000 * len(rows[0]) // rate
    if data is None:
        data = xli(rows) if packed else b"".join(row.astype("<i2").tobytes() for row in rows)
    text = base64.b64encode(data).decode()
    compression = 'compression="XLI"' if packed else 'compression="Uncompressed"'
    waveforms = (
        f'<parsedwaveforms dataencoding="Base64" {compression} samplespersecond="{rate}" '
        f'durationperchannel="{milliseconds}" resolution="{step}" leadlabels="{" ".join(LEADS)}" '
        f'numberofleads="12" hipass="0.05" lowpass="150">{text}</parsedwaveforms>'
    )
    document = f"""<?xml version="1.0" encoding="{encoding}"?>
<restingecgdata xmlns="http://www3.medical.philips.com">
<documentinfo><documentname>{PERSON}.xml</documentname><documenttype>PhilipsECG</documenttype>
<documentversion>{version}</documentversion><editor id="{OTHER}">{PERSON}</editor></documentinfo>
<orderinfo><orderingclinician>{OTHER}</orderingclinician></orderinfo>
<patient><generalpatientdata><patientid>{SECRET}</patientid><name><lastname>{PERSON}</lastname>
<firstname>{OTHER}</firstname></name><age><dateofbirth>1987-02-13</dateofbirth></age>
</generalpatientdata></patient>
<dataacquisition date="1987-02-13"><acquirer><operator id="{SECRET}">{PERSON}</operator>
<institutionname>{OTHER}</institutionname></acquirer><signalcharacteristics>
<resolution>{step}</resolution><samplingrate>{rate}</samplingrate>
<numberchannelsallocated>12</numberchannelsallocated></signalcharacteristics></dataacquisition>
<interpretations><interpretation><mdsignatureline>{PERSON}, MD</mdsignatureline>
<globalmeasurements><heartrate>75</heartrate><print>148</print><qtcb>410</qtcb>
</globalmeasurements><statement><leftstatement>Sinus rhythm</leftstatement>
<rightstatement>normal</rightstatement></statement></interpretation></interpretations>
<waveforms>{waveforms if rhythm else ""}<repbeats dataencoding="Base64" samplespersec="{rate}"
 resolution="{step}"/></waveforms></restingecgdata>"""
    return document.encode(encoding)


def xli(rows: list[NDArray[np.int64]]) -> bytes:
    """Leads as XLI: residuals of the limb leads, second differences, and LZW."""
    one, two, three, right, left, foot = rows[:6]
    residuals = [
        one,
        two,
        two - one - three,
        -right - (one + two) // 2,
        (one - three) // 2 - left,
        (two + three) // 2 - foot,
        *rows[6:],
    ]
    return b"".join(_chunk(row.tolist()) for row in residuals)


def _chunk(values: list[int]) -> bytes:
    codes = values[:2]
    for place in range(2, len(values)):
        last = 2 * values[place - 1] - values[place - 2] - values[place]
        codes.append(last)  # stands for the step after the next one
    # A decoder uses code n, less 64, for sample n + 1: the first is in the head.
    first = codes[2] if len(codes) > 2 else 0
    stored = codes[:2] + [code + 64 for code in codes[3:]] + [64]
    words = np.array(stored, np.int64).astype(">i2").tobytes()
    body = lzw(words[0::2] + words[1::2])
    return (
        len(body).to_bytes(4, "little") + b"\0\0" + first.to_bytes(2, "little", signed=True) + body
    )


def lzw(data: bytes) -> bytes:
    """Codes of 10 bits."""
    table = {bytes([value]): value for value in range(256)}
    codes = []
    string = b""
    for value in data:
        longer = string + bytes([value])
        if longer in table:
            string = longer
            continue
        codes.append(table[string])
        if len(table) <= _LAST:
            table[longer] = len(table)
        string = bytes([value])
    codes += [table[string], _LAST + 1]
    bits = "".join(f"{code:010b}" for code in codes)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
