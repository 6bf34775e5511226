"""`pulse-edge draw`: a recording as an ECG page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pulse_edge.cli.sources import csv_options
from pulse_edge.cli.terminal import show
from pulse_edge.ecg.layout import GAINS, LAYOUTS, SPEEDS, PageStyle, parse_strips
from pulse_edge.errors import PulseEdgeError

if TYPE_CHECKING:
    from pulse_edge.ecg.readers.registry import CsvTerms


@click.command("draw")
@click.argument("recording", type=click.Path())
@click.argument("out", type=click.Path())
@click.option("--layout", type=click.Choice(list(LAYOUTS)), default="3x4", show_default=True)
@click.option(
    "--speed",
    type=click.Choice([str(speed) for speed in SPEEDS]),
    default="25",
    show_default=True,
    help="mm/s",
)
@click.option(
    "--gain",
    type=click.Choice([str(gain) for gain in GAINS]),
    default="10",
    show_default=True,
    help="mm/mV",
)
@click.option(
    "--strips",
    metavar="N|LEADS",
    help="Rhythm strips: 0, 1 (II), 3 (V1, II, V5), or leads as V1,II,V5 [default: the layout's].",
)
@click.option("--dpi", default=200, show_default=True)
@click.option("--header", help="Text above the traces; nothing is printed there otherwise.")
@csv_options
def draw_command(
    recording: str,
    out: str,
    layout: str,
    speed: str,
    gain: str,
    strips: str | None,
    dpi: int,
    header: str | None,
    csv: CsvTerms | None,
) -> None:
    """Draw the 12-lead RECORDING as the ECG page OUT (.png).

    RECORDING is DICOM, GE MUSE XML, HL7 aECG, SCP-ECG, Philips Sierra XML, WFDB, EDF, or CSV with
    its rate, unit and leads.
    """
    from pulse_edge.ecg.drawn import DrawnRecording
    from pulse_edge.ecg.readers.registry import read_recording

    style = PageStyle(
        layout=layout,
        speed=float(speed),
        gain=float(gain),
        strips=None if strips is None else parse_strips(strips),
        dpi=dpi,
    )
    leads = read_recording(recording, csv)
    drawn = DrawnRecording(leads, style, header)
    page = drawn.draw()
    try:
        page.save(out, dpi=(dpi, dpi))
    except (OSError, ValueError) as error:  # ValueError: a suffix that Pillow does not know
        raise PulseEdgeError(f"{out}: cannot be written ({error})") from None
    for note in drawn.notes:
        show(f"note: {note}", err=True)
    width, height = style.size
    whole = "" if drawn.seconds == leads.duration else f" of {leads.duration:.1f}"
    show(f"{out}: {width} x {height} pixels, {drawn.seconds:.1f}{whole} s at {leads.rate:g} Hz")
