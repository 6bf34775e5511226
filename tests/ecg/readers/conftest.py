"""DICOM files of the readers' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulse_edge.ecg.readers.registry import read_recording

from support.dicom_files import Read, save


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a data set and read it."""
    pytest.importorskip("pydicom")
    return lambda whole: read_recording(save(tmp_path / "made.dcm", whole))
