"""Exports that end early: full disks, kills at any moment, Ctrl-C. Also their memory."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_export.graph import Graph

from support import tiny

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.manifest import MANIFEST
from pulse_edge.bundle.tensors import TENSORS
from pulse_edge.errors import BundleError, ExportError
from pulse_export import pipeline, transaction
from pulse_export.pipeline import export

from support.command import ended, started
from support.process import run

Bundles = Callable[..., Path]


def refused(*args: Any, **options: Any) -> str:
    with pytest.raises(ExportError) as caught:
        export(*args, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def loadable(path: Path) -> list[Path]:
    """Every directory below that opens as a bundle."""
    found = []
    for directory, _, _ in os.walk(path):
        try:
            open_bundle(directory)
        except BundleError:
            continue
        found.append(Path(directory))
    return found


# -- disks that are full


def test_a_disk_too_small_is_noticed_first(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)
    )
    assert "GB are free" in refused(checkpoint, tmp_path / "out")
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_write_that_fails_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    for owner, name in (
        (Graph, "save"),
        (pipeline, "write_embeddings"),
        (os, "fsync"),
        (Path, "rename"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            message = refused(checkpoint, tmp_path / "out", precision="int8")
        assert ("the disk is full" in message) == (code != errno.EIO)
        assert names(tmp_path) == [], name
    gc.collect()  # a file left open would be reported here, and not in whichever test comes later


def test_a_file_that_may_not_grow_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """A real failing write, in the middle of the decoder's weights."""
    script = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        from pulse_edge.cli import main
        main(["export", {str(checkpoint)!r}, {str(tmp_path / "out")!r}, "--precision", "fp32"])
    """
    done = run(script)
    assert done.returncode == 8, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(": File too large\n")
    assert done.stderr.count("\n") == 1
    assert names(tmp_path) == []


# -- killed, at any moment


# Exports in forked children over a copy of a bundle, ending child n dead at the n-th of the calls
# that matter.
STAGES = """
    import os, shutil, sys
    from pathlib import Path
    from pulse_export import pipeline

    checkpoint, bundle, home = sys.argv[1:]
    calls = (
        (pipeline.Graph, ["save", "__init__"]), (os, ["fsync"]),
        (Path, ["rename", "unlink", "mkdir", "write_bytes"]),
        (shutil, ["copyfile", "rmtree"]), (pipeline, ["write_embeddings", "sha256_file"]),
    )

    def step():
        step.left -= 1
        if not step.left:
            os._exit(9)

    def stepping(original):
        def call(*args, **options):
            step()
            result = original(*args, **options)
            step()
            return result
        return call

    def child(last, out):
        step.left = last
        for owner, names in calls:
            for name in names:
                setattr(owner, name, stepping(getattr(owner, name)))
        pipeline.export(checkpoint, out, precision="int8", force=True)

    last = code = 1
    while code:
        out = shutil.copytree(bundle, Path(home) / str(last) / "out")
        if not (pid := os.fork()):
            child(last, out)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, 9), (last, code)
        last += 1
"""


def test_stopped_dead_at_every_stage(
    checkpoint: Path, bundle: Path, bundles: Bundles, tmp_path: Path
) -> None:
    """Whatever is left, only whole bundles load: the old one before, none for a moment, the new one
    after.
    """
    done = run(STAGES, checkpoint, bundle, tmp_path)
    assert done.returncode == 0, done.stderr
    before, after = open_bundle(bundle).digest, open_bundle(bundles("int8")).digest
    homes = sorted(tmp_path.iterdir(), key=lambda p: int(p.name))
    assert len(homes) > 30
    seen = []
    for home in homes:
        found = loadable(home)
        assert found in ([], [home / "out"])
        seen.append(open_bundle(found[0]).digest if found else None)
    assert list(dict.fromkeys(seen)) == [before, None, after]
    assert seen == sorted(seen, key=[before, None, after].index)
    for home in homes[::5]:  # what was left is no obstacle, and is cleared away
        export(checkpoint, home / "out", precision="int8", force=True)
        assert open_bundle(home / "out").digest == after
        assert names(home) == ["out"]


@pytest.fixture(scope="module")
def slow_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that its export takes a while: 10 layers of 1.3 million weights."""
    path = tmp_path_factory.mktemp("slow") / "checkpoint"
    return tiny.make_checkpoint(path, hidden=256, heads=8, ffn=1024, layers=10)


def start(checkpoint: Path, out: Path) -> subprocess.Popen[str]:
    # A shell's background job has SIGINT ignored, and its children with it.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{listen}; import sys; from pulse_edge.cli import main; main(sys.argv[1:])"
    command = [
        sys.executable,
        "-c",
        script,
        "export",
        str(checkpoint),
        str(out),
        "--precision",
        "fp32",
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until_staged(home: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while (
        not list(home.glob(".out.partial-*/bundle/*"))
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.002)


def test_killed_at_random_moments(slow_checkpoint: Path, tmp_path: Path) -> None:
    caught, out = 0, tmp_path / "out"
    for delay in np.linspace(0, 0.3, 8):
        process = start(slow_checkpoint, out)
        wait_until_staged(tmp_path, process)
        time.sleep(float(delay))
        process.kill()
        process.communicate(timeout=30)
        if process.returncode == -signal.SIGKILL and not out.exists():
            caught += 1
            assert loadable(tmp_path) == []
        elif (out / MANIFEST).exists():
            assert loadable(tmp_path) == [out]
        shutil.rmtree(out, ignore_errors=True)
    assert caught >= 3
    assert (
        len(list(tmp_path.glob(".out.partial-*"))) <= 1
    )  # each clears away what the one before left
    export(slow_checkpoint, out, precision="fp32")
    assert names(tmp_path) == ["out"]


def test_interrupted(slow_checkpoint: Path, tmp_path: Path) -> None:
    process = start(slow_checkpoint, tmp_path / "out")
    wait_until_staged(tmp_path, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.strip().splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert names(tmp_path) == []


def test_an_export_that_still_runs_is_not_cleared_away(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once into the same place: the second to finish is refused, and the first is whole."""
    write = pipeline.write_files

    def nested(*args: Any) -> Any:
        monkeypatch.setattr(pipeline, "write_files", write)
        export(checkpoint, tmp_path / "out", precision="int4")
        return write(*args)

    monkeypatch.setattr(pipeline, "write_files", nested)
    assert "exists" in refused(checkpoint, tmp_path / "out", precision="int8")
    assert open_bundle(tmp_path / "out").manifest.precision.name == "int4"
    assert names(tmp_path) == ["out"]


# -- thrift


def peak(checkpoint: Path, out: Path, precision: str) -> float:
    """Largest resident set of an export, MB."""
    script = f"""
        from pulse_export.pipeline import export
        print(export({str(checkpoint)!r}, {str(out)!r}, precision={precision!r}).peak_memory / 1e6)
    """
    done = run(script)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Checkpoints of 14 and 64 MB whose largest tensors are 1 MB."""
    home = tmp_path_factory.mktemp("deep")
    sizes: dict[str, Any] = {"hidden": 256, "heads": 8, "ffn": 1024, "vision_layers": 2}
    small, large = (tiny.make_checkpoint(home / str(n), layers=n, **sizes) for n in (3, 15))
    yield small, large
    shutil.rmtree(home)


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_memory_does_not_grow_with_the_checkpoint(
    deep: tuple[Path, Path], tmp_path: Path, precision: str
) -> None:
    sizes = [sum(p.stat().st_size for p in c.glob("*.safetensors")) / 1e6 for c in deep]
    assert sizes[1] - sizes[0] > 50
    small, large = (peak(c, tmp_path / str(i), precision) for i, c in enumerate(deep))
    assert large - small < 10, f"peaks of {small:.0f} and {large:.0f} MB"


def test_no_torch(checkpoint: Path, tmp_path: Path) -> None:
    """The export runs where torch cannot be imported, and does not try."""
    script = f"""
        import sys

        class Blocked:
            def find_spec(self, name, path=None, target=None):
                heavy = ("torch", "transformers", "optimum", "onnxruntime")
                assert name.split(".")[0] not in heavy, name

        sys.meta_path.insert(0, Blocked())
        from pulse_export.pipeline import export
        export({str(checkpoint)!r}, {str(tmp_path / "out")!r}, precision="int4")
    """
    done = run(script)
    assert done.returncode == 0, done.stderr
    open_bundle(tmp_path / "out")


# -- at once


# Exports in forked children that all begin when the last of them is ready. Prints how each ended.
AT_ONCE = """
    import os, sys
    from pulse_edge.errors import ExportError
    from pulse_export.pipeline import export

    checkpoint, home, count, force = sys.argv[1:]
    precisions = ("int8", "int4", "w8a8", "fp32")
    read, write = os.pipe()

    def child(number):
        os.close(write)
        os.read(read, 1)  # until all are there
        try:
            precision = precisions[number % 4]
            export(checkpoint, home + "/out", precision=precision, force=force == "force")
            line = precision
        except ExportError as error:
            line = f"refused {error}"
        except BaseException as error:
            line = f"failed {error!r}"
        os.write(1, f"{line}\\n".encode())  # whole, beside those of others
        os._exit(0)

    children = []
    for number in range(int(count)):
        pid = os.fork()
        if not pid:
            child(number)
        children.append(pid)
    os.close(write)
    for pid in children:
        os.waitpid(pid, 0)
"""


def test_exports_at_once_make_one_bundle(checkpoint: Path, tmp_path: Path) -> None:
    """The others are told that it exists, whenever they find out."""
    for attempt in range(2):
        home = tmp_path / str(attempt)
        home.mkdir()
        done = run(AT_ONCE, checkpoint, home, 4, "no")
        results = done.stdout.splitlines()
        refusals = [line for line in results if line.startswith("refused")]
        winners = set(results) - set(refusals)
        assert len(results) == 4, done.stderr
        assert len(refusals) == 3, results
        assert all(f"{home / 'out'} exists; choose another" in line for line in refusals)
        assert winners == {open_bundle(home / "out").manifest.precision.name}
        assert names(home) == ["out"]


def test_exports_at_once_that_replace_all_succeed(checkpoint: Path, tmp_path: Path) -> None:
    done = run(AT_ONCE, checkpoint, tmp_path, 4, "force")
    assert sorted(done.stdout.splitlines()) == ["fp32", "int4", "int8", "w8a8"], done.stdout
    assert open_bundle(tmp_path / "out").manifest.precision.name in done.stdout
    assert names(tmp_path) == ["out"]


def test_a_directory_that_stays_locked_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "LOCK_SECONDS", 0.01)
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert "keeps it locked" in refused(checkpoint, tmp_path / "out", precision="int8")
    os.close(handle)
    assert names(tmp_path) == []


def test_a_file_system_without_locks_will_do(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing counts as stale there, so what a killed export has left stays."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / ".out.partial-old").mkdir()
    export(checkpoint, tmp_path / "out", precision="int8")
    assert "exists" in refused(checkpoint, tmp_path / "out", precision="int8")
    assert names(tmp_path) == [".out.partial-old", "out"]


# -- durable


def test_everything_is_written_through_in_order(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files and their directory before the rename into place, both directories after theirs."""
    events: list[str] = []
    sync, rename = os.fsync, Path.rename

    def logged_sync(handle: int) -> None:
        events.append(f"sync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        sync(handle)

    def logged_rename(self: Path, target: Path) -> Path:
        events.append(f"rename {self.name} {Path(target).name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", logged_sync)
    monkeypatch.setattr(Path, "rename", logged_rename)
    export(checkpoint, tmp_path / "out", precision="int8")
    place = events.index("rename bundle out")
    files = {transaction.PENDING, *names(tmp_path / "out")} - {MANIFEST}
    assert set(events[: place - 1]) == {f"sync {name}" for name in files}
    assert events[place - 1] == "sync bundle"
    assert events[place + 1 :] == [
        f"sync {tmp_path.name}",
        f"rename {transaction.PENDING} {MANIFEST}",
        "sync out",
    ]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_directories_that_cannot_be_written_through_are_no_failure(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    sync = os.fsync

    def files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        sync(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    export(checkpoint, tmp_path / "out", precision="int8")
    assert loadable(tmp_path) == [tmp_path / "out"]


# -- places


def test_a_replacement_that_fails_brings_the_old_bundle_back(
    checkpoint: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of the renames before the new one is in place."""
    rename = Path.rename
    shutil.copytree(bundle, tmp_path / "out")
    for failing in range(3):
        calls: list[Path] = []

        def fail(self: Path, target: Path, failing: int = failing, calls: Any = calls) -> Path:
            calls.append(self)
            if len(calls) == failing + 1:
                raise OSError(errno.EIO, "Input/output error")
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", fail)
            refused(checkpoint, tmp_path / "out", precision="int8", force=True)
        assert open_bundle(tmp_path / "out").digest == open_bundle(bundle).digest
        assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("manifest.json", '{"name": "a web application", "icons": []}'),
        ("manifest.json", "[1, 2]"),
        ("manifest.json", "not JSON"),
        ("manifest.json", ""),
        ("manifest.json", "[" * 100_000),
        ("manifest.json", '{"schema_version": 1}'),
        ("decoder.onnx", "somebody else's"),
        ("tokenizer.model", "somebody else's"),
        ("notes.txt", "precious"),
        (".hidden", "precious"),
    ],
)
def test_a_directory_that_is_no_bundle_is_never_replaced(
    checkpoint: Path, tmp_path: Path, file: str, text: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / file).write_text(text)
    assert "--force replaces bundles only" in refused(checkpoint, tmp_path / "out", force=True)
    assert (tmp_path / "out" / file).read_text() == text
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["decoder.onnx", "manifest.json", "notes"])
def test_a_folder_with_a_files_name_is_no_part_of_a_bundle(
    checkpoint: Path, bundle: Path, tmp_path: Path, name: str
) -> None:
    out = Path(shutil.copytree(bundle, tmp_path / "out"))
    (out / name).unlink(missing_ok=True)
    (out / name).mkdir()
    (out / name / "precious").touch()
    assert f"holds {name}, which is no part" in refused(checkpoint, out, force=True)
    assert (out / name / "precious").exists()


def test_every_part_of_a_bundle_may_be_replaced(
    checkpoint: Path, bundles: Bundles, tmp_path: Path
) -> None:
    """Of a target with an index of tensors, with plans and signatures."""
    out = Path(shutil.copytree(bundles("int8", target="cuda"), tmp_path / "out"))
    assert (out / TENSORS).exists()
    (out / "plans").mkdir()
    (out / "signatures").mkdir()
    export(checkpoint, out, precision="int4", force=True)
    assert open_bundle(out).manifest.precision.name == "int4"


def test_a_mount_point_is_not_replaced(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "out")
    assert "exists" in refused(checkpoint, tmp_path / "out")
    assert "is a mount point" in refused(checkpoint, tmp_path / "out", force=True)


@pytest.mark.parametrize("name", ["out/", "out//", "./out", "x/../out", "out/."])
def test_a_name_may_be_written_in_many_ways(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    export(checkpoint, name, precision="int8")
    assert names(tmp_path) == ["out"]
    assert "exists" in refused(checkpoint, name, precision="int8")


def test_a_directory_that_may_not_be_written_to(checkpoint: Path, tmp_path: Path) -> None:
    script = f"""
        import os
        from pulse_edge.errors import ExportError
        from pulse_export.pipeline import export

        export  # imported before the rights are gone
        if os.geteuid() == 0:
            import pulse_export.transaction as transaction

            def forbidden(*args, **options):
                raise PermissionError(13, "Permission denied")

            transaction.tempfile.mkdtemp = forbidden  # root may write anywhere
        os.chmod({str(tmp_path)!r}, 0o555)
        try:
            export({str(checkpoint)!r}, {str(tmp_path / "out")!r}, precision="int8")
        except ExportError as error:
            print(error)
    """
    done = run(script)
    tmp_path.chmod(0o755)
    assert done.stdout == f"{tmp_path}: cannot be written to (Permission denied)\n", done.stderr
    assert names(tmp_path) == []


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_ended_by_a_signal(slow_checkpoint: Path, tmp_path: Path, name: str, code: int) -> None:
    process = started("export", slow_checkpoint, tmp_path / "out", "--precision", "fp32")
    wait_until_staged(tmp_path, process)
    assert ended(process, getattr(signal, name))[0] == code
    assert names(tmp_path) == []
