"""HL7 aECG XML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from support.carts.signals import OTHER, PERSON, RATE, SECRET, STEP, Signals


class Stretch(NamedTuple):
    """A sequence set: leads that were recorded together.

    Attributes:
        signals: counts by lead.
        start: seconds from the beginning.
    """

    signals: Signals
    start: float = 0.0


def aecg_file(
    stretches: Sequence[Stretch],
    *,
    increment: str = f"{1 / RATE:g}",
    step: float = STEP,
    unit: str = "uV",
    series: str = "RHYTHM",
    beat: bool = True,
    prefix: str = "",
    absolute: bool = True,
    statement: str = "Sinus rhythm",
) -> bytes:
    """A document.

    Args:
        stretches: of the rhythm.
        increment: seconds of a sample.
        step: of a count, in `unit`.
        unit: UCUM's.
        series: the code of the series.
        beat: whether a representative beat follows.
        prefix: of the names of elements.
        absolute: whether stretches say when they begin by date, or else in seconds.
        statement: of the cart.
    """
    sets = "".join(_set(each, increment, step, unit, absolute) for each in stretches)
    derived = ""
    if beat:
        short = Stretch({lead: 2 * row[:300] for lead, row in stretches[0].signals.items()})
        derived = (
            '<derivation><derivedSeries><code code="REPRESENTATIVE_BEAT"/>'
            f"{_set(short, increment, step, unit, False)}</derivedSeries></derivation>"
        )
    text = f"""<?xml version="1.0"?><AnnotatedECG xmlns="urn:hl7-org:v3"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><id root="{SECRET}"/>
<componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject>
<id extension="{SECRET}"/><subjectDemographicPerson><name>{PERSON}</name>
<birthTime value="19870213"/></subjectDemographicPerson></trialSubject></subject>
</subjectAssignment></componentOf></timepointEvent></componentOf>
<component><series><code code="{series}"/><author><seriesAuthor><assignedAuthoringPerson>
<name><family>{OTHER}</family></name></assignedAuthoringPerson></seriesAuthor></author>
<controlVariable><controlVariable><code code="MDC_ECG_CTL_VBL_ATTR_FILTER_LOW_PASS"/><component>
<controlVariable><code code="MDC_ECG_CTL_VBL_ATTR_FILTER_CUTOFF_FREQ"/>
<value value="150" unit="Hz"/></controlVariable></component></controlVariable></controlVariable>
{sets}{derived}<subjectOf><annotationSet><author><assignedEntity><assignedAuthorType>
<assignedPerson><name>{PERSON}</name></assignedPerson></assignedAuthorType></assignedEntity>
</author>{_annotation("MDC_ECG_HEART_RATE", 'value="75" unit="bpm"')}
{_annotation("MDC_ECG_TIME_PD_PR", 'value="148" unit="ms"')}
{_annotation("MDC_ECG_TIME_PD_QTc", 'value="410" unit="ms"')}
{_annotation("MDC_ECG_INTERPRETATION_COMMENT", 'unit="1"', f"seen by {PERSON}")}
{_annotation("MDC_ECG_INTERPRETATION_STATEMENT", 'unit="1"', statement)}
</annotationSet></subjectOf></series></component></AnnotatedECG>"""
    if prefix:
        text = text.replace("</", f"</{prefix}:").replace("<", f"<{prefix}:")
        text = text.replace(f"<{prefix}:/{prefix}:", f"</{prefix}:")
        text = text.replace(f"<{prefix}:?xml", "<?xml").replace("xmlns=", f"xmlns:{prefix}=")
    return text.encode()


def _annotation(code: str, value: str, text: str = "") -> str:
    return (
        f'<component><annotation><code code="{code}"/><value {value}>{text}</value>'
        "</annotation></component>"
    )


def _set(stretch: Stretch, increment: str, step: float, unit: str, absolute: bool) -> str:
    seconds = f"{stretch.start:06.3f}"
    head = f'value="198702130910{seconds}"' if absolute else f'value="{seconds}" unit="s"'
    time = "TIME_ABSOLUTE" if absolute else "TIME_RELATIVE"
    leads = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}"/><value>'
        f'<origin value="0" unit="{unit}"/><scale value="{step}" unit="{unit}"/>'
        f"<digits>{' '.join(map(str, row.tolist()))}</digits></value></sequence></component>"
        for lead, row in stretch.signals.items()
    )
    return (
        f'<component><sequenceSet><component><sequence><code code="{time}"/><value>'
        f'<head {head}/><increment value="{increment}" unit="s"/></value></sequence></component>'
        f"{leads}</sequenceSet></component>"
    )
