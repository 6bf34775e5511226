"""`pulse-edge draw`: a recording as an ECG page."""

from __future__ import annotations

import click

from pulse_edge.cli.terminal import show
from pulse_edge.ecg.layout import GAINS, LAYOUTS, SPEEDS, PageStyle
from pulse_edge.errors import PulseEdgeError


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
@click.option("--dpi", default=200, show_default=True)
@click.option("--header", help="Text above the traces; nothing is printed there otherwise.")
def draw_command(
    recording: str, out: str, layout: str, speed: str, gain: str, dpi: int, header: str | None
) -> None:
    """Draw the 12-lead RECORDING (DICOM waveform) as the ECG page OUT (.png)."""
    from pulse_edge.ecg.drawing import draw_page
    from pulse_edge.ecg.readers.registry import read_recording

    style = PageStyle(layout=layout, speed=float(speed), gain=float(gain), dpi=dpi)
    leads = read_recording(recording)
    page = draw_page(leads, style, header)
    try:
        page.save(out, dpi=(dpi, dpi))
    except (OSError, ValueError) as error:  # ValueError: a suffix that Pillow does not know
        raise PulseEdgeError(f"{out}: cannot be written ({error})") from None
    width, height = style.size
    for note in leads.notes:
        show(f"note: {note}", err=True)
    show(f"{out}: {width} x {height} pixels, {leads.duration:.1f} s at {leads.rate:g} Hz")
