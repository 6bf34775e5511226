"""DICOM waveforms (PS3.3 A.34.3 and C.10.9)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pulse_edge.ecg.cart import CartReport
from pulse_edge.ecg.coverage import PAGE_SECONDS, length_notes
from pulse_edge.ecg.leads import shown_names
from pulse_edge.ecg.readers.dicom_channels import skew_of
from pulse_edge.ecg.readers.dicom_groups import Group, group_of, is_averaged, segments_of
from pulse_edge.ecg.readers.dicom_items import DicomItem, first_element, read_items
from pulse_edge.ecg.readers.dicom_report import report_of_dicom
from pulse_edge.ecg.recording import Recording
from pulse_edge.ecg.segments import Segment, recording_of_segments
from pulse_edge.errors import RecordingError
from pulse_edge.privacy import without_requests

_PDF_TYPE = b"application/pdf"
MOST_GROUPS = 64  # of a file; the standard allows 5
_BEAT = 2.0  # seconds; an averaged beat is shorter, a group of a 3x4 page is not


def is_dicom(head: bytes) -> bool:
    """Whether a file's first bytes are those of DICOM.

    That is a preamble of 128 bytes and a mark, or without them the first element of a data set.
    """
    return first_element(head) is not None


def pdf_of_dicom(data: bytes) -> bytes | None:
    """The PDF that a DICOM file encapsulates (PS3.3 A.45.1).

    Args:
        data: of the file.

    Returns:
        None if this is no such file, or one that cannot be read.

    Raises:
        ImportError: pydicom is not installed.
    """
    if not is_dicom(data[:256]) or _PDF_TYPE not in data:
        return None
    try:
        return read_items(data).data("EncapsulatedDocument")
    except ImportError:
        raise
    except Exception:  # damaged: `read_dicom` says so
        return None


def read_dicom(data: bytes, source: str) -> Recording:
    """Read the rhythm recording of a DICOM file.

    Multiplex groups are put together by lead and time. Averaged beats are left out, and so are
    derived leads that were recorded as well.

    Args:
        data: of the file.
        source: its name, for messages.

    Raises:
        RecordingError: the file is damaged, holds no such recording, or contradicts itself.
        ImportError: pydicom is not installed.
    """
    with without_requests():
        import pydicom.filereader  # noqa: F401  # here: a damaged file raises no ImportError

    try:
        return _from_items(read_items(data), source)
    except RecordingError:
        raise
    except MemoryError:
        raise RecordingError(f"{source}: too large for this machine's memory") from None
    except Exception as error:  # damaged files raise nearly anything
        reason = str(error).split("\n")[0][:100]
        raise RecordingError(
            f"{source}: not a readable DICOM file: {type(error).__name__}: {reason}"
        ) from error


def _from_items(dataset: DicomItem, source: str) -> Recording:
    """The rhythm recording of a DICOM file, in mV."""
    items = dataset.items("WaveformSequence")
    if not items:
        kind = shown_names([dataset.text("Modality") or "unknown"])
        raise RecordingError(
            f"{source}: a DICOM file ({kind}) without a waveform; expected a 12-lead ECG"
        )
    if len(items) > MOST_GROUPS:
        raise RecordingError(
            f"{source}: {len(items)} multiplex groups; expected at most {MOST_GROUPS}"
        )
    numbered = [pair for pair in enumerate(items, 1) if not is_averaged(pair[1])]
    if not numbered:
        raise RecordingError(f"{source}: holds only an averaged beat; expected a rhythm recording")
    groups = [group_of(item, number, source) for number, item in numbered]
    return _from_groups(_rhythm(groups), source, report_of_dicom(dataset))


def _rhythm(groups: Sequence[Group]) -> list[Group]:
    """Groups without those that hold averaged beats but do not say so, the longest first."""
    kept: list[Group] = []
    for group in sorted(groups, key=lambda group: -group.seconds):
        repeats = group.leads and any(
            group.leads <= other.leads and 0 <= group.offset - other.offset < other.seconds
            for other in kept
            if other.seconds >= _BEAT
        )
        if group.seconds >= _BEAT or not repeats:
            kept.append(group)
    return kept


def _from_groups(groups: Sequence[Group], source: str, cart: CartReport) -> Recording:
    """One recording of the groups' leads."""
    recorded = frozenset[str]().union(*(group.leads for group in groups if not group.derived))
    wanted = {
        group.number: group.leads - recorded if group.derived else group.leads for group in groups
    }
    used = [group for group in groups if wanted[group.number]]
    if not used:  # none of the 12 leads: whoever draws it lists what there is
        used = [max(groups, key=lambda group: group.seconds)]
    notes = _left_out(groups, used)
    origin = min(group.offset for group in used)
    used, late = _on_page(used, origin, source)
    notes += late
    notes += _derived_notes(used, wanted)
    segments: list[Segment] = []
    for group in sorted(used, key=lambda group: group.number):
        segments += segments_of(group, wanted[group.number], group.offset - origin)
        notes += _channel_notes(group, wanted[group.number])
    end = max(group.offset - origin + group.seconds for group in used)
    if end > PAGE_SECONDS:
        notes += length_notes(end)
    recording = recording_of_segments(_from_zero(segments), source, tuple(notes), cart)
    # Last, because a lead that is there twice is the plainer reason.
    for group in used:
        for channel in group.channels:
            if channel.doubt is not None:
                raise channel.refusal(channel.doubt)
    return recording


def _left_out(groups: Iterable[Group], used: Sequence[Group]) -> list[str]:
    """What to say of groups that hold no lead that is wanted."""
    rest = [group for group in groups if group not in used]
    foreign = [channel.lead for group in rest for channel in group.channels if not group.leads]
    return [f"Found but not drawn: {shown_names(foreign)}."] if foreign else []


def _on_page(groups: Sequence[Group], origin: float, source: str) -> tuple[list[Group], list[str]]:
    """Groups that begin on a page, and what to say of the others.

    Raises:
        RecordingError: a lead is in none of the groups that begin on a page.
    """
    early = [group for group in groups if group.offset - origin < PAGE_SECONDS]
    leads = frozenset[str]().union(*(group.leads for group in early))
    notes = []
    for group in groups:
        start = group.offset - origin
        if group in early:
            continue
        if not group.leads <= leads:
            names = " ".join(channel.lead for channel in group.channels if channel.is_standard)
            raise RecordingError(
                f"{source}: group {group.number} ({names}) begins {start:.1f} s after the first; "
                f"expected less than {PAGE_SECONDS} s, which a page shows; correct its Multiplex "
                "Group Time Offset (ms)"
            )
        notes.append(f"Not drawn: group {group.number}, which begins after {start:.1f} s.")
    return early, notes


def _derived_notes(groups: Iterable[Group], wanted: dict[int, frozenset[str]]) -> list[str]:
    derived = [
        channel.lead
        for group in groups
        if group.derived
        for channel in group.channels
        if channel.lead in wanted[group.number]
    ]
    return [f"Derived by the cart, not recorded: {' '.join(derived)}."] if derived else []


def _channel_notes(group: Group, leads: frozenset[str]) -> list[str]:
    """What to say of a group's channels: those moved in time, and those that the cart doubts."""
    notes = []
    for channel in group.channels:
        if channel.lead not in leads:
            continue
        skew = skew_of(channel, group.rate)
        if abs(skew) * group.rate >= 1:
            notes.append(f"{channel.lead} was moved by its skew of {1000 * skew:g} ms.")
        if channel.status is not None:
            notes.append(f"The cart marks {channel.lead} as {channel.status}.")
    return notes


def _from_zero(segments: Sequence[Segment]) -> list[Segment]:
    """Segments whose earliest begins at 0 or later: a negative skew moves all the others."""
    first = min(0.0, *(segment.start for segment in segments))
    return [
        Segment(
            segment.lead,
            segment.start - first,
            segment.rate,
            segment.signal,
            segment.step,
            segment.group,
        )
        for segment in segments
    ]
