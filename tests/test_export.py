"""The export as a whole: what it refuses, and that whatever happens to it, nothing half-made loads."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

import pulse_edge
from pulse_edge.bundle import MANIFEST, open_bundle
from pulse_edge.errors import BundleError, CheckpointError, ExportError
from pulse_edge.export import pipeline
from pulse_edge.export.pipeline import export

Checkpoints = Callable[..., Path]


def loadable(parent: Path) -> list[Path]:
    """Directories anywhere below `parent`, hidden ones too, that open as bundles."""
    found = []
    for directory in [parent, *(p for p in parent.rglob("*") if p.is_dir())]:
        try:
            open_bundle(directory)
        except BundleError:
            continue
        found.append(directory)
    return found


def code(checkpoint: Path, out: Path, before: str = "", **options: Any) -> list[str]:
    """A process that exports, after running `before`."""
    call = f"export({str(checkpoint)!r}, {str(out)!r}, **{options!r})"
    return [sys.executable, "-c", f"import os\nfrom pulse_edge.export.pipeline import export\n{before}\n{call}"]


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "again", precision="fp32")
    names = sorted(p.name for p in bundle.iterdir())
    assert names == sorted(p.name for p in (tmp_path / "again").iterdir())
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (bundle / name).read_bytes(), name


def test_summary_says_what_was_done(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    totals: list[int] = []

    def progress(total: int) -> Callable[[int], None]:
        totals.append(total)
        return seen.append

    summary = export(checkpoint, tmp_path / "out", precision="int4", block_size=64, progress=progress)
    assert summary.files == {
        p.name: p.stat().st_size for p in sorted((tmp_path / "out").iterdir()) if p.name != MANIFEST
    }
    assert totals == [summary.checkpoint_size] == [sum(seen)]
    manifest = open_bundle(tmp_path / "out").manifest
    assert (manifest.precision.decoder, manifest.precision.head, manifest.precision.block_size) == ("int4", "int8", 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int3"}, "'int3' is not one of fp32, fp16, int8, int4"),
        ({"precision": "int4", "block_size": 48}, "block size 48 must be one of 32, 64, 128"),
        ({"precision": "fp32", "block_size": 32}, "block size 32 must be left out for fp32"),
        ({"target": "tpu"}, "target 'tpu' is not one of"),
    ],
)
def test_bad_options_are_refused(checkpoint: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        export(checkpoint, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_an_existing_output_stays_without_force(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(checkpoint, out, precision="fp32")
    before = open_bundle(out).digest
    with pytest.raises(ExportError, match="exists; choose another name, or --force"):
        export(checkpoint, out, precision="int8")
    assert open_bundle(out).digest == before
    export(checkpoint, out, precision="int8", force=True)
    assert open_bundle(out).manifest.precision.name == "int8"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_force_never_removes_what_is_no_bundle(checkpoint: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "out" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(ExportError, match="not a bundle, so --force does not remove it"):
        export(checkpoint, thesis.parent, force=True)
    with pytest.raises(ExportError, match="not a bundle, so --force does not remove it"):
        export(checkpoint, thesis, force=True)
    assert thesis.read_text() == "years of work"
    with pytest.raises(ExportError, match="no such directory"):
        export(checkpoint, tmp_path / "not" / "there")


def test_a_disk_that_is_too_small_is_noticed_before(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 1000))  # type: ignore[attr-defined]
    with pytest.raises(ExportError, match=r"needs about 0\.0 GB, 0\.0 GB are free"):
        export(checkpoint, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_nothing(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipeline, "_write_embeddings", full)
    with pytest.raises(ExportError, match="the disk is full; nothing was left behind"):
        export(checkpoint, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_file_size_limit_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """The kernel's own refusal, in the middle of a write."""
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    done = subprocess.run(code(checkpoint, tmp_path / "out", limit), capture_output=True, text=True)
    assert "ExportError" in done.stderr
    assert "File too large" in done.stderr
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_are_refused(checkpoints: Checkpoints, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(checkpoints(), broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = np.inf
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"tensor layers\.1\.mlp\.up_proj\.weight holds values that are not finite"
    ):
        export(broken, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["broken"]


@pytest.mark.parametrize("fatal", ["Path.rename", "os.fsync", "Graph.save", "shutil.rmtree"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_killed_at_a_chosen_call_nothing_half_made_loads(
    checkpoint: Path, tmp_path: Path, fatal: str, call: int
) -> None:
    """The process ends (no clean-up runs) right before the n-th call of `fatal`, with an older bundle in the way."""
    out = tmp_path / "out"
    export(checkpoint, out, precision="fp32")
    owner = fatal.split(".")[0]
    imports = {"Path": "from pathlib import Path", "os": "", "Graph": "from pulse_edge.export.graph import Graph"}
    before = f"""{imports.get(owner, "import shutil")}
original, calls = {fatal}, []
def fatal(*arguments, **options):
    calls.append(1)
    if len(calls) == {call}:
        os._exit(9)
    return original(*arguments, **options)
{fatal} = fatal"""
    subprocess.run(code(checkpoint, out, before, precision="int8", force=True))
    assert loadable(tmp_path) in ([], [out])
    export(checkpoint, out, precision="int8", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"], "what the killed export left is cleaned up by the next"
    assert open_bundle(out).manifest.precision.name == "int8"


def test_killed_at_any_moment_nothing_half_made_loads(checkpoints: Checkpoints, tmp_path: Path) -> None:
    big = checkpoints(layers=6, vision_layers=6)
    started = time.perf_counter()
    subprocess.run(code(big, tmp_path / "whole"), check=True)
    whole = time.perf_counter() - started
    (tmp_path / "runs").mkdir()
    killed = 0
    for n in range(12):
        parent = tmp_path / "runs" / str(n)
        parent.mkdir()
        process = subprocess.Popen(code(big, parent / "out"))
        time.sleep(whole * (0.5 + 0.5 * n / 12))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        for directory in loadable(parent):
            assert directory == parent / "out"
            pulse_edge.load(directory, threads=1)
    assert killed >= 3, "the exports were too fast to be killed; the test shows nothing"


def test_interrupt_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    program = [Path(sys.executable).parent / "pulse-edge", "export", checkpoint, tmp_path / "out"]
    before = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(  # an export slow enough to be interrupted
        "import threading, time, os, signal, sys\n"
        "def later():\n"
        "    while 'pulse_edge.export.pipeline' not in sys.modules: time.sleep(0.001)\n"
        "    import pulse_edge.export.pipeline as p\n"
        "    while not hasattr(p, '_write_embeddings'): time.sleep(0.001)\n"
        "    p._write_embeddings = lambda *_: (os.kill(os.getpid(), signal.SIGINT), time.sleep(5))\n"
        "threading.Thread(target=later, daemon=True).start()\n"
    )
    done = subprocess.run(program, env=before, capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "interrupted"
    assert [p.name for p in tmp_path.iterdir()] == ["site"]


def test_peak_memory_does_not_grow_with_the_checkpoint(tmp_path: Path) -> None:
    """Five times the layers, the same largest tensor (1.5 MB in float32): the peak may grow by a few of those."""
    peaks = []
    for layers in (4, 20):
        wide = {"hidden": 256, "heads": 8, "ffn": 1536, "layers": layers}
        source = tiny.make_checkpoint(tmp_path / f"{layers}", dtype="float16", **wide)
        program = code(source, tmp_path / f"out-{layers}")
        program[-1] += "\nfrom pulse_edge.export.pipeline import peak_memory; print(peak_memory())"
        peaks.append(int(subprocess.run(program, check=True, capture_output=True, text=True).stdout) / 1e6)
    grown = sum(f.stat().st_size for f in (tmp_path / "20").iterdir()) / 1e6
    assert grown > 50  # MB: the larger checkpoint would show
    assert peaks[1] - peaks[0] < 10, f"MB: {peaks}"


def test_works_without_torch(checkpoint: Path, tmp_path: Path) -> None:
    block = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None"
    subprocess.run(code(checkpoint, tmp_path / "out", block), check=True)
    assert loadable(tmp_path) == [tmp_path / "out"]
