"""ecgdatakit: runs one of its parsers, and takes signals and the cart's words from its result.

Only `ecgdatakit.parsing` is imported. Its warnings and messages quote files, so none of them gets
further, and whatever it lets through is checked by the rules of this package.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import numpy as np
from numpy.typing import NDArray

from pulse_edge.ecg.calibration import without_calibration
from pulse_edge.ecg.cart import CartFilters, CartReport, cart_report
from pulse_edge.ecg.coverage import PAGE_SECONDS, length_notes
from pulse_edge.ecg.leads import LEADS, canonical_lead
from pulse_edge.ecg.recording import Recording, check_rate
from pulse_edge.ecg.segments import MAX_SAMPLES, Segment, recording_of_segments
from pulse_edge.errors import RecordingError
from pulse_edge.privacy import without_requests

P = ParamSpec("P")

EXTRA = "formats"  # of pulse-edge
PARSERS = {
    "GE MUSE XML": ("ge_muse_xml", "GEMuseXMLParser"),
    "HL7 aECG": ("hl7_aecg", "HL7aECGParser"),
    "SCP-ECG": ("scp_ecg", "SCPECGParser"),
    "Philips Sierra XML": ("sierra_xml", "SierraXMLParser"),
    "WFDB": ("wfdb", "WFDBParser"),
    "EDF": ("edf", "EDFParser"),
}
MILLIVOLTS = {"nV": 1e-6, "uV": 1e-3, "mV": 1.0, "V": 1e3}
STEPS = (1e-6, 1.0)  # mV a count
# Names of signals that are no standard lead, which may be said. Any other text of a file may be a
# person's name.
_OTHER = re.compile(
    r"-?aV[RLF]|V[1-9]\d?R?|[XYZ]|M?C?L?(?:I{1,3}|[1-6])|C[CMSBR]\d?|[AE]S|AI|ECG ?\d{0,2}"
    r"|Ch ?\d{1,3}|RESP|ABP|ART|CVP|PAP|PLETH|SpO2|CO2|TEMP|EEG|EMG|EOG|GSR|BP|HR|PPG"
    r"|[A-Za-z0-9]{1,3}-cal",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"(?:ECG|EKG|Lead)[ _-]", re.IGNORECASE)
UNNAMED = "unnamed"
_COPIED = re.compile(r"_\d+$")  # the library calls a second lead II "II_2"
# Its name of a measurement -> the name that panels know.
_MEASUREMENTS = {
    "heart_rate": "heart rate",
    "rr_interval": "RR interval",
    "pr_interval": "PR interval",
    "qrs_duration": "QRS duration",
    "qt_interval": "QT interval",
    "qtc_bazett": "QTc interval (Bazett)",
    "qtc_fridericia": "QTc interval (Fridericia)",
    "p_axis": "P axis",
    "qrs_axis": "QRS axis",
    "t_axis": "T axis",
}


class StoredLead(NamedTuple):
    """A lead as a file stores it.

    Attributes:
        lead: its name, as the file writes it.
        samples: mV; not finite where nothing was recorded.
        rate: samples per second.
        step: mV of a count; 0 if the file stores mV.
        start: seconds from the beginning of the recording.
        group: which leads were recorded together, counted from 1.
    """

    lead: str
    samples: NDArray[np.float32]
    rate: float
    step: float
    start: float = 0.0
    group: int = 1


def parse_file(form: str, file: bytes | Path, source: str) -> Any:
    """Run a parser.

    Args:
        form: a key of `PARSERS`.
        file: its bytes, or the path of one that lies beside others.
        source: the file, for messages.

    Returns:
        ecgdatakit's record.

    Raises:
        RecordingError: the file is damaged, or of a kind that the library does not read.
        ImportError: ecgdatakit is not installed.
        Exception: nearly any, of a damaged file; see `guarded`.
    """
    module, name = PARSERS[form]
    with without_requests():
        parser = getattr(import_module(f"ecgdatakit.parsing.parsers.{module}"), name)
    # Its warnings name files and leads. They point at this module, whatever thread they are in.
    warnings.filterwarnings("ignore", module=re.escape(__name__))
    try:
        with _path_of(file) as path:
            return parser().parse(path)
    except Exception as error:
        if type(error).__module__.startswith("ecgdatakit"):  # its messages quote the file
            raise unreadable(form, source, "damaged, or of a kind not read") from None
        raise


def guarded(form: str) -> Callable[[Callable[P, Recording]], Callable[P, Recording]]:
    """Make a reader raise nothing but `RecordingError`, and `ImportError` without its package.

    Args:
        form: what it reads. The last argument of the reader is the file's name, or path.
    """

    def decorate(read: Callable[P, Recording]) -> Callable[P, Recording]:
        @functools.wraps(read)
        def guarded_read(*args: P.args, **kwargs: P.kwargs) -> Recording:
            try:
                return read(*args, **kwargs)
            except (RecordingError, ImportError):
                raise
            except MemoryError:
                raise RecordingError(f"{args[-1]}: too large for this machine's memory") from None
            except Exception as error:  # damaged files raise nearly anything, and messages quote
                raise unreadable(form, str(args[-1]), type(error).__name__) from None

        return guarded_read

    return decorate


def unreadable(form: str, source: str, reason: str) -> RecordingError:
    """An error for a damaged file.

    Args:
        form: what the file should be.
        source: its name.
        reason: in words that are not the file's.
    """
    return RecordingError(
        f"{source}: not a readable {form} file ({reason}); export the recording again"
    )


@contextmanager
def _path_of(file: bytes | Path) -> Iterator[Path]:
    """A path for a library that takes paths only. Where the system can, it is one in memory."""
    if isinstance(file, Path):
        yield file
    elif hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        descriptor = os.memfd_create("recording")
        try:
            with os.fdopen(os.dup(descriptor), "wb") as copy:
                copy.write(file)
            yield Path(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "recording")
            path.write_bytes(file)
            yield path


def stored_lead(lead: Any, source: str, start: float = 0.0, group: int = 1) -> StoredLead:
    """A lead of the library in mV.

    Args:
        lead: ecgdatakit's.
        source: the file, for messages.
        start: seconds from the beginning of the recording.
        group: which leads were recorded together.

    Raises:
        RecordingError: one of the 12 leads has no unit of voltage, or a scale that none can have.
    """
    name = known_lead(_COPIED.sub("", str(lead.label)))
    unit = str(lead.resolution_unit if lead.is_raw else lead.units).replace("µ", "u")
    unit = unit.replace("μ", "u")
    if unit not in MILLIVOLTS:
        if name not in LEADS:  # a pressure, which nobody draws
            nothing = np.full(1, np.nan, np.float32)
            return StoredLead(name, nothing, float(lead.sampling_rate), 0.0, start, group)
        raise RecordingError(
            f"{source}: lead {name} has no unit of voltage; expected one of "
            f"{', '.join(MILLIVOLTS)}; export it with its unit"
        )
    factor = MILLIVOLTS[unit]
    step = float(lead.resolution) * factor if lead.is_raw else 0.0
    if lead.is_raw and name in LEADS and not STEPS[0] <= abs(step) <= STEPS[1]:
        raise RecordingError(
            f"{source}: lead {name} has {step:g} mV a count; expected {STEPS[0]:g} to "
            f"{STEPS[1]:g} mV; correct its scale or unit"
        )
    samples = np.asarray(lead.samples, np.float64)
    if lead.is_raw:
        samples = samples * float(lead.resolution) + float(lead.offset)
    with np.errstate(over="ignore"):  # infinity is a gap
        millivolts = (samples * factor).astype(np.float32)
    return StoredLead(name, millivolts, float(lead.sampling_rate), abs(step), start, group)


def known_lead(name: str) -> str:
    """A lead's name, or "unnamed" if the text may be another thing than a lead's name.

    Args:
        name: as a file writes it.
    """
    name = canonical_lead(name)
    if name not in LEADS:
        name = canonical_lead(_PREFIX.sub("", name))
    return name if name in LEADS or _OTHER.fullmatch(name) else UNNAMED


def recording_of_leads(
    leads: Sequence[StoredLead],
    source: str,
    cart: CartReport,
    notes: Iterable[str] = (),
    seconds: float = 0.0,
) -> Recording:
    """One recording of a file's leads: calibration pulses cut, absent limb leads derived.

    Args:
        leads: of the file.
        source: the file, for messages.
        cart: what the file says beside the signals.
        notes: what the reader left out, a sentence each.
        seconds: length of the whole recording, if `leads` are only its beginning.

    Raises:
        RecordingError: there are no leads, or they cannot be an ECG.
    """
    if not leads or not all(len(lead.samples) for lead in leads):
        raise RecordingError(f"{source}: the recording holds no samples")
    if sum(len(lead.samples) for lead in leads) > MAX_SAMPLES:
        raise RecordingError(f"{source}: over {MAX_SAMPLES:,} samples; store a part")
    for lead in leads:
        check_rate(lead.rate, source)
    kept, said = _without_pulses(leads)
    end = max(seconds, *(lead.start + len(lead.samples) / lead.rate for lead in kept))
    if end > PAGE_SECONDS:
        said += length_notes(end)
    segments = [
        Segment(lead.lead, lead.start, lead.rate, lead.samples, lead.step, lead.group)
        for lead in kept
    ]
    return recording_of_segments(segments, source, (*notes, *said), cart, derive=True)


def _without_pulses(leads: Sequence[StoredLead]) -> tuple[list[StoredLead], tuple[str, ...]]:
    """Leads without calibration pulses, also those after what a page shows."""
    if len({(len(lead.samples), lead.rate, lead.start) for lead in leads}) > 1:
        return list(leads), ()
    rows = np.stack([lead.samples for lead in leads])
    names = [lead.lead for lead in leads]
    rows, said = without_calibration(rows, leads[0].rate, names)
    return [lead._replace(samples=row) for lead, row in zip(leads, rows, strict=True)], said


def report_of(record: Any, form: str, extra: dict[str, float] | None = None) -> CartReport:
    """What a record says beside the signals: filters, measurements and statements.

    Args:
        record: ecgdatakit's.
        form: the file's format.
        extra: measurements that the library does not have, by name.
    """
    filters = record.recording.acquisition.filters
    measurements = {
        name: getattr(record.measurements, field) for field, name in _MEASUREMENTS.items()
    }
    statements = [str(left) for left, _ in record.interpretation.statements]
    return cart_report(
        form,
        CartFilters(_hertz(filters.highpass), _hertz(filters.lowpass), _hertz(filters.notch)),
        {name: value for name, value in measurements.items() if value is not None} | (extra or {}),
        statements,
    )


def _hertz(value: object) -> float | None:
    if isinstance(value, int | float) and 0 < value < 1e6:
        return float(value)
    return None
