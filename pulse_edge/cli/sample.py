"""`pulse-edge sample`: a page and a recording to try out the other commands."""

from __future__ import annotations

from pathlib import Path

import click

from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.cli.terminal import show
from pulse_edge.errors import PulseEdgeError, RecordingError

PAGE, RECORDING = "sample.png", "sample.dcm"


@click.command("sample")
@click.argument("folder", type=click.Path(), default=".")
def sample_command(folder: str) -> None:
    """Write a sample page and a sample recording into FOLDER [default: here].

    Both are simulated: sinus rhythm at 74 a minute with right bundle branch block. No patient has
    had this heart.
    """
    from pulse_edge.simulation.dicom_file import sample_recording

    page = Path(folder) / PAGE
    recording = Path(folder) / RECORDING
    _write_sample(page, SAMPLE_PAGE.read_bytes())
    show(f"{page}: a page of a simulated ECG")
    try:
        content = sample_recording()
    except RecordingError as error:
        show(f"note: no {RECORDING}: {error}", err=True)
        return
    _write_sample(recording, content)
    show(f"{recording}: a simulated recording, DICOM")


def _write_sample(path: Path, content: bytes) -> None:
    """Write a new file. One with this very content may be there."""
    try:
        if path.exists() and path.read_bytes() == content:
            return
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise PulseEdgeError(f"{path} exists; name another folder") from None
    except OSError as error:
        why = error.strerror or error
        raise PulseEdgeError(f"{path}: cannot be written ({why}); name another folder") from None
