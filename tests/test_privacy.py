"""What silences the libraries that report. That nothing is sent is shown in tests/house."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from pulse_edge.privacy import SILENT, silence, silent_variables, without_requests
from pulse_edge.simulation.dicom_file import sample_recording

from support.process import run


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    values: dict[str, str] = {}
    monkeypatch.setattr("pulse_edge.privacy.os", SimpleNamespace(environ=values))
    return values


@pytest.mark.parametrize("value", [None, "", "0", "2", "false", "off", "no", "1", "true"])
def test_a_value_of_the_users_is_replaced(environment: dict[str, str], value: str | None) -> None:
    """ONNX Runtime reports with most values that are not 1."""
    if value is not None:
        environment["ORT_DISABLE_TELEMETRY"] = value
    silence("onnxruntime")
    assert environment == {"ORT_DISABLE_TELEMETRY": "1"}


@pytest.mark.parametrize("library", SILENT)
def test_only_what_is_named_is_silenced(environment: dict[str, str], library: str) -> None:
    silence(library)
    assert environment == SILENT[library] != {}


def test_several_at_once(environment: dict[str, str]) -> None:
    silence(*SILENT)
    assert environment == silent_variables()


def test_an_unknown_library(environment: dict[str, str]) -> None:
    with pytest.raises(KeyError, match="nothing"):
        silence("nothing")


def test_loading_onnx_runtime_silences_it_first() -> None:
    script = """
    import os, sys
    os.environ["ORT_DISABLE_TELEMETRY"] = "0"

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "onnxruntime":
                print("imported with", os.environ["ORT_DISABLE_TELEMETRY"])

    sys.meta_path.insert(0, Finder())
    from pulse_edge.engines.onnxruntime_library import load_onnxruntime
    load_onnxruntime()
    """
    assert run(script).stdout == "imported with 1\n"


def test_a_program_that_imported_onnx_runtime_itself_is_silenced_as_far_as_it_can_be() -> None:
    script = """
    import onnxruntime
    onnxruntime.disable_telemetry_events = lambda: print("disabled")
    from pulse_edge.engines.onnxruntime_library import load_onnxruntime
    assert load_onnxruntime() is onnxruntime
    """
    assert run(script).stdout == "disabled\n"


READ = """
import sys
from pathlib import Path
import pulse_edge.{module} as module

{call}
assert "requests" not in sys.modules
import requests
print(requests.MARK)
"""
CALLS = {
    "simulation.dicom_file": "module.sample_recording()",
    "ecg.readers.dicom": "module.read_dicom(Path(sys.argv[1]).read_bytes(), 'sample.dcm')",
    "ecg.readers.dicom_items": "module.read_items(Path(sys.argv[1]).read_bytes())",
}


@pytest.mark.parametrize("module", CALLS)
def test_readers_of_dicom_do_not_import_requests(module: str, tmp_path: Path) -> None:
    """pydicom would, to download test files; urllib3 then opens a socket. A program that needs it
    imports it afterwards."""
    pytest.importorskip("pydicom")
    recording = tmp_path / "sample.dcm"
    recording.write_bytes(sample_recording())
    (tmp_path / "requests.py").write_text("MARK = 'imported'\n")
    code = READ.format(module=module, call=CALLS[module])
    done = subprocess.run(
        [sys.executable, "-c", code, recording],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("imported\n", 0), done.stderr


def test_what_a_program_imported_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    there = ModuleType("requests")
    monkeypatch.setitem(sys.modules, "requests", there)
    with without_requests():
        assert sys.modules["requests"] is there
    assert sys.modules["requests"] is there


def test_what_is_hidden_is_there_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "requests", raising=False)
    with pytest.raises(ImportError), without_requests():
        import requests  # type: ignore[import-untyped]  # noqa: F401
    assert "requests" not in sys.modules
