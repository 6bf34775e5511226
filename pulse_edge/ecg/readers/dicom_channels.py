"""A channel of a DICOM multiplex group: its lead, scale and time (PS3.3 C.10.9.1.4)."""

from __future__ import annotations

import math
from typing import NamedTuple

from pulse_edge.ecg.leads import LEADS, canonical_lead, lead_of_code, shown_names
from pulse_edge.ecg.readers.dicom_items import DicomItem
from pulse_edge.errors import RecordingError

# UCUM codes, case-sensitive; the micro sign and the Greek letter are common in their place.
MILLIVOLTS = {"nV": 1e-6, "uV": 1e-3, "µV": 1e-3, "μV": 1e-3, "mV": 1.0, "V": 1e3}
STEPS = (1e-6, 1.0)  # mV a bit. Carts write 0.1 to 5 uV; 8 bits of +-5 mV take 40 uV.
LARGEST_BASELINE = 2.0**32  # mV: 32 bits at the largest step
LONGEST_SKEW = 10.0  # seconds, the length of a page


class Channel(NamedTuple):
    """A channel of a multiplex group.

    Attributes:
        number: counted from 1.
        lead: its name, one of `LEADS` or another.
        doubt: why its lead is not certain; None if it is.
        definition: its item of the file.
        where: the file and the channel, for messages.
    """

    number: int
    lead: str
    doubt: str | None
    definition: DicomItem
    where: str

    def refusal(self, reason: str) -> RecordingError:
        """An error about this channel."""
        return RecordingError(f"{self.where} {reason}")

    @property
    def is_standard(self) -> bool:
        """Whether its lead is one of the twelve."""
        return self.lead in LEADS

    @property
    def status(self) -> str | None:
        """What the cart says of the channel, if it is not "OK"."""
        status = self.definition.text("ChannelStatus")
        return None if status in (None, "OK") else shown_names([str(status)])


class Scale(NamedTuple):
    """mV of a sample: `step` * sample + `baseline`."""

    step: float
    baseline: float


def channel_of(definition: DicomItem, number: int, source: str) -> Channel:
    """A channel by its definition.

    The lead is that of the code if the scheme is known, because names come in any language; else
    that of the name.

    Args:
        definition: item of the ChannelDefinitionSequence.
        number: of the channel, from 1.
        source: the file, for messages.
    """
    sources = definition.items("ChannelSourceSequence")
    code = meaning = None
    if sources:
        code = sources[0].text("CodeValue")
        meaning = sources[0].text("CodeMeaning")
    name = canonical_lead(meaning or definition.text("ChannelLabel") or "unnamed")
    coded = lead_of_code(code) if code else None
    lead, doubt = name, None
    if coded:
        lead = coded
    if coded is not None and name in LEADS and name != coded:
        doubt = f"has the code {shown_names([str(code)])} of {coded or 'another lead'}, but the "
        doubt += f"name {name}; expected one lead"
        lead = coded or f"{name} ({code})"
    return Channel(number, lead, doubt, definition, f"{source}: channel {number} ({_shown(lead)})")


def _shown(lead: str) -> str:
    return shown_names([lead])


def scale_of(channel: Channel) -> Scale:
    """The scale of a channel's samples.

    Raises:
        RecordingError: it is missing, in no unit of voltage, or no number that can be.
    """
    definition = channel.definition
    sensitivity = _number_of(channel, "ChannelSensitivity")
    units = definition.items("ChannelSensitivityUnitsSequence")
    if not units:
        raise channel.refusal("has no Channel Sensitivity Units Sequence")
    unit = units[0].text("CodeValue") or ""
    if unit not in MILLIVOLTS:
        legal = ", ".join(MILLIVOLTS)
        raise channel.refusal(f"is in {shown_names([unit])!r}; expected one of {legal}")
    factor = definition.number("ChannelSensitivityCorrectionFactor")
    baseline = definition.number("ChannelBaseline") or 0.0
    step = sensitivity * (1.0 if factor is None else factor) * MILLIVOLTS[unit]
    if factor is not None and not (0 < factor < math.inf):
        raise channel.refusal(
            f"has the Channel Sensitivity Correction Factor {factor:g}; expected over 0"
        )
    if not STEPS[0] <= step <= STEPS[1]:  # also what is no number
        raise channel.refusal(
            f"has a Channel Sensitivity of {sensitivity:g} {unit}, {step:g} mV a bit; expected "
            f"{STEPS[0]:g} to {STEPS[1]:g} mV; correct the sensitivity or its unit"
        )
    baseline *= MILLIVOLTS[unit]
    if not abs(baseline) <= LARGEST_BASELINE:  # also what is no number
        raise channel.refusal(
            f"has a Channel Baseline of {baseline:g} mV; expected a number from "
            f"-{LARGEST_BASELINE:g} to {LARGEST_BASELINE:g}"
        )
    return Scale(step, baseline)


def skew_of(channel: Channel, rate: float) -> float:
    """Seconds from the beginning of a channel's group to its first sample.

    Channel Time Skew, or Channel Sample Skew, says when the first sample was taken. Channel Offset
    says how far into its samples the presentation begins.

    Raises:
        RecordingError: it is no number, or longer than a page.
    """
    seconds = channel.definition.number("ChannelTimeSkew")
    samples = channel.definition.number("ChannelSampleSkew")
    offset = channel.definition.number("ChannelOffset") or 0.0
    if seconds is None or (seconds == 0 and samples):
        seconds = (samples or 0.0) / rate
    elif samples and abs(samples / rate - seconds) > 1 / rate:
        raise channel.refusal(
            f"has a Channel Time Skew of {seconds:g} s and a Channel Sample Skew of {samples:g}; "
            "expected one, or equal ones"
        )
    skew = seconds - offset
    if not abs(skew) <= LONGEST_SKEW:  # also what is no number
        raise channel.refusal(
            f"has a skew of {skew:g} s; expected -{LONGEST_SKEW:g} to {LONGEST_SKEW:g} s"
        )
    return skew


def _number_of(channel: Channel, keyword: str) -> float:
    value = channel.definition.number(keyword)
    if value is None:
        raise channel.refusal(f"has no {words_of(keyword)}")
    return value


def words_of(keyword: str) -> str:
    """ "ChannelSensitivity" -> "Channel Sensitivity"."""
    return "".join(f" {letter}" if letter.isupper() else letter for letter in keyword).strip()
