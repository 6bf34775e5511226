"""Real files of carts, where they are at hand. The suite does not need them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pulse_edge.ecg.drawing import draw_ink
from pulse_edge.ecg.readers.registry import read_recording

from support.paths import ROOT

SAMPLES = ROOT.parent / "shared" / "samples"
pytestmark = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="needs the sample files of carts in ../shared/samples"
)
ONE = ("one_recording.dcm", "one_recording.scp", "one_recording_aecg.xml",
       "one_recording_aecg_fda.xml")  # fmt: skip


@pytest.mark.parametrize("name", ONE[1:])
def test_files_of_one_recording_give_one_page(name: str) -> None:
    pytest.importorskip("ecgdatakit", reason="carts' files need pulse-edge[formats]")
    first = np.asarray(draw_ink(read_recording(SAMPLES / ONE[0])))
    other = np.asarray(draw_ink(read_recording(SAMPLES / name)))
    assert (first != other).mean() < 0.001
    cart = read_recording(SAMPLES / name).cart
    assert (cart.measurements["PR interval"], cart.measurements["QRS duration"]) == (148, 120)


@pytest.mark.parametrize("name", ["philips_1_03.xml", "philips_1_04_01.xml"])
def test_the_pulse_at_the_end_of_a_sierra_file_is_cut(name: str) -> None:
    pytest.importorskip("ecgdatakit", reason="carts' files need pulse-edge[formats]")
    record = read_recording(Path(SAMPLES, name))
    assert record.notes[0].startswith("Calibration pulse cut, in samples 5,350 to 5,499: I, II,")
    assert record.missing == ()
    draw_ink(record)
