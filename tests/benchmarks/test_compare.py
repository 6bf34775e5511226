"""benchmarks/compare.py with fake peers, which are real processes, and with ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest

from benchmarks import compare
from benchmarks.peers import worker
from benchmarks.peers.worker import Kind, PeerError, Worker
from benchmarks.report.__main__ import page as report_page
from benchmarks.report.records import read_kind

from support.paths import ROOT
from support.scripts import SMALL, size_arguments

FEW = (
    "--threads",
    1,
    "--repetitions",
    2,
    "--warmup",
    1,
    "--prompt-lengths",
    8,
    "--depths",
    "0,16",
    "--steps",
    2,
    "--views",
    "",
)
CASES = ["pp8", "tg2 @ d0", "tg2 @ d16"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare") / "work"


def command(work: Path, run: str, out: Path, *more: object) -> list[str]:
    options = [work, "--run", run, "--append", out, *FEW, *size_arguments(**SMALL), *more]
    return [sys.executable, "-m", "benchmarks.compare", *map(str, options)]


def run(
    work: Path, peers: str, out: Path, *more: object
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    done = subprocess.run(
        command(work, peers, out, *more), capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    return done, json.loads(
        out.read_text().splitlines()[-1]
    ) if out.exists() and out.stat().st_size else {}


def calls(work: Path, variant: str) -> list[tuple[int, str]]:
    """(time, what) of a fake peer's calls of `feed`."""
    (log,) = work.glob(f"fake/*/{variant}/calls.log")
    pairs = (line.split(" ", 1) for line in log.read_text().splitlines())
    return [(int(at), what) for at, what in pairs]


def test_ours_next_to_a_fake_peer(work: Path, tmp_path: Path) -> None:
    """The whole script: checkpoint, export, rounds, tables, record; then the report over it."""
    out = tmp_path / "compare.jsonl"
    done, record = run(work, "ours:int8,fake:100", out)
    assert done.returncode == 0, done.stderr
    assert [e["name"] for e in record["entries"]] == ["ours int8", "fake 100"]
    ours, fake = record["entries"]
    assert list(ours["figures"]) == list(fake["figures"]) == CASES
    for entry in record["entries"]:
        assert all(
            len(f["samples"]) == 2 and f["min"] <= f["p50"] <= f["max"]
            for f in entry["figures"].values()
        )
        assert entry["peak_memory"] > 5e6
        assert len(entry["load"]) == 1
    assert ours["engine"]["engine"] == "onnxruntime"
    assert (
        50 < fake["figures"]["pp8"]["p50"] <= 100
    )  # sleeps 10 ms a token, and a machine can only be slower
    assert record["skipped"] == {}
    (row,) = (
        line.split() for line in done.stdout.splitlines() if line.startswith("int8 / fake 100")
    )
    assert row[4:] == [f"{compare.ratio(ours, fake, case):.2f}" for case in CASES]
    page = report_page({}, read_kind(tmp_path, compare.KIND))
    assert "ours int8" in page
    assert page.count("<svg") == len(CASES)


def test_the_tower_is_run_by_the_peers_that_have_one(work: Path, tmp_path: Path) -> None:
    done, record = run(work, "ours:int8,fake:4000", tmp_path / "out.jsonl", "--views", 2)
    assert done.returncode == 0, done.stderr
    ours, fake = record["entries"]
    assert list(ours["figures"]) == [*CASES, "vision2"]
    assert len(ours["figures"]["vision2"]["samples"]) == 2
    assert list(fake["figures"]) == CASES  # it has none, and is not skipped for it
    assert record["skipped"] == {}
    assert compare.ratio(ours, fake, "vision2") is None


def test_cpu_time_leaves_out_what_others_take(work: Path, tmp_path: Path) -> None:
    """A fake peer sleeps, which takes no time of the processor."""
    done, record = run(work, "fake:100", tmp_path / "out.jsonl", "--cpu-time")
    assert done.returncode == 0, done.stderr
    assert record["entries"][0]["figures"]["pp8"]["p50"] > 1000
    assert "1 threads, seconds of the processor, 2 repetitions" in done.stdout
    refused, _ = run(work, "fake:100", tmp_path / "no.jsonl", "--cpu-time", "--threads", 2)
    assert "goes with --threads 1" in refused.stderr


def test_rounds_alternate_and_begin_with_another_peer(work: Path, tmp_path: Path) -> None:
    done, _ = run(work, "fake:2000,fake:2001", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    merged = sorted((at, peer, what) for peer in ("2000", "2001") for at, what in calls(work, peer))
    order = [peer for _, peer, what in merged if what == "feed 8 to 8"]
    assert order == [
        "2000",
        "2001",
        "2001",
        "2000",
        "2000",
        "2001",
    ]  # three rounds, the first one a warm-up
    deep = [
        (peer, what)
        for _, peer, what in merged
        if (peer == "2000" and "to 16" in what) or "to 18" in what
    ]
    # 16 tokens are fed once, then every run goes back there
    assert [what for peer, what in deep if peer == "2000"] == ["feed 16 to 16"] + 3 * [
        "feed 1 to 18"
    ]


def test_one_at_a_time_loads_anew_each_round(work: Path, tmp_path: Path) -> None:
    done, record = run(work, "fake:3000,fake:3001", tmp_path / "out.jsonl", "--one-at-a-time")
    assert done.returncode == 0, done.stderr
    assert [len(e["load"]) for e in record["entries"]] == [3, 3]
    assert [what for _, what in calls(work, "3000")].count("feed 16 to 16") == 3
    first, second = ([at for at, _ in calls(work, peer)] for peer in ("3000", "3001"))
    per_round = len(first) // 3
    assert first[per_round - 1] < second[0]  # the whole of a round, then the other's
    assert (
        second[2 * per_round - 1] < first[per_round]
        or second[per_round - 1] < second[per_round] < first[per_round]
    )


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        ("fake:inconvertible", "convert: ValueError: unknown architecture"),
        ("fake:unloadable", "load: RuntimeError: bad magic"),
        ("fake:raise", "pp8: prefill: MemoryError: no room for the cache"),
        ("fake:crash", "pp8: prefill: the worker ended with 3 (fake: assertion failed; all in "),
        ("fake-noise", "convert: the worker said 'not JSON', which is no JSON object"),
    ],
)
def test_a_peer_that_fails_is_skipped_with_the_reason(
    work: Path, tmp_path: Path, peer: str, reason: str
) -> None:
    done, record = run(work, f"{peer},fake:4000", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    name = peer.replace(":", " ") if ":" in peer else f"{peer} 1000"
    assert record["skipped"][name].startswith(reason)
    assert f"skipped {name}: {reason}" in done.stdout
    good = next(e for e in record["entries"] if e["name"] == "fake 4000")
    assert [len(f["samples"]) for f in good["figures"].values()] == [2, 2, 2]


def test_a_crash_keeps_what_was_measured_before(work: Path, tmp_path: Path) -> None:
    """The third call: one warm-up and one repetition are through."""
    _, record = run(work, "fake:crash,fake:4000", tmp_path / "out.jsonl")
    crashed, good = record["entries"]
    assert len(crashed["figures"]["pp8"]["samples"]) == 1
    assert compare.ratio(crashed, good, "pp8") is None  # not the same rounds


def test_nothing_that_runs_is_a_failure(work: Path, tmp_path: Path) -> None:
    done, record = run(work, "fake:unloadable", tmp_path / "out.jsonl")
    assert done.returncode == 1
    assert "nothing was measured" in done.stdout
    assert "bad magic" in done.stdout
    assert record == {}


def test_a_failed_conversion_leaves_nothing_to_run(work: Path, tmp_path: Path) -> None:
    run(work, "fake:inconvertible", tmp_path / "out.jsonl")
    assert not list(work.glob("fake/*/inconvertible"))


def test_no_answer_in_time_ends_the_worker(work: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    done, record = run(work, "fake:hang,fake:4000", tmp_path / "out.jsonl", "--limit", 1)
    assert record["skipped"] == {"fake hang": "pp8: prefill: no answer in 1 s"}
    assert time.monotonic() - begun < 60
    assert done.returncode == 0


def test_install_failures_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installs = (("--no-index", "no-such-thing-here"),)
    monkeypatch.setitem(worker.PEERS, "missing", Kind("fake", ("1000",), installs))
    entry = compare.Entry("missing", "1000")
    compare.prepare(entry, tmp_path, tmp_path / "checkpoint")
    assert entry.reason is not None
    assert entry.reason.startswith(
        "cannot be installed: install --disable-pip-version-check --no-index no-such-thing"
    )
    assert "No matching distribution found for no-such-thing-here" in entry.reason
    assert not (tmp_path / "missing/venv/installed.json").exists()


def test_environments_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(worker.PEERS, "empty", Kind("fake", ("1000",), ()))
    python = worker.python_of("empty", tmp_path)
    assert (
        subprocess.run(
            [python, "-c", "import sys; sys.exit(sys.prefix == sys.base_prefix)"]
        ).returncode
        == 0
    )
    made = python.lstat().st_mtime_ns
    assert worker.python_of("empty", tmp_path) == python
    assert python.lstat().st_mtime_ns == made


def test_a_peer_of_this_environment(tmp_path: Path) -> None:
    """What runs where nothing can be installed."""
    assert worker.python_of("transformers", tmp_path, installed=True) == Path(sys.executable)
    assert not list(tmp_path.iterdir())


def test_a_gpu_s_memory_beside_the_host_s(work: Path, tmp_path: Path) -> None:
    """The variant for a GPU is exported for one, and says why it does not run without."""
    done, record = run(work, "ours:int8:cuda,fake:4000", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    (manifest,) = work.glob("ours/*/int8-cuda/manifest.json")
    assert json.loads(manifest.read_text())["target"] == "cuda"
    if record["skipped"]:
        assert "GPU" in record["skipped"]["ours int8:cuda"]
    assert "GPU memory" not in compare.speed_table(record)[0]
    record["entries"][0]["device_memory"] = 3 * 10**9
    head, row, *_ = compare.speed_table(record)
    assert row[head.index("GPU memory")] == "3 GB"


@pytest.mark.parametrize("value", ["x", None, True, [1]])
def test_answers_of_the_wrong_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    with Worker("fake", Path(sys.executable), tmp_path / "log") as process:
        monkeypatch.setattr(Worker, "__call__", lambda *_, **__: {"seconds": value})
        with pytest.raises(PeerError, match="no number"):
            process.number("prefill", "seconds", 1, tokens=1)


def test_interrupt_ends_the_workers_and_records_nothing(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    process = subprocess.Popen(
        command(work, "fake:hang,fake:4000", out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    seen = ""
    while "round 1" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    time.sleep(0.3)
    children = _children(process.pid)
    assert len(children) == 2
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 1  # click's
    assert "Aborted" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert out.read_text() == ""
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def _children(pid: int) -> list[int]:
    if not Path("/proc/self/task").exists():
        pytest.skip("needs /proc")
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [
        int(child)
        for task in tasks
        for child in task.read_text().split()
        if os.path.exists(f"/proc/{child}")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [("nobody", "not one of ours"), ("", "nothing to run"), ("fake,fake:1000", "twice")],
)
def test_peers_that_are_none(text: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        compare.parse(text)


def test_all_variants_of_a_peer() -> None:
    names = [e.name for e in compare.parse("llama.cpp, ours:int4:128,ours:w8a8")]
    assert names == ["llama.cpp q4_0", "llama.cpp q8_0", "ours int4:128", "ours w8a8"]


def test_peers_are_told_not_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the caller's environment says nothing: ONNX Runtime reads it when it is loaded."""
    asked: dict[str, str] = {}
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    real = subprocess.Popen

    def popen(command: Any, **options: Any) -> Any:
        asked.update(options["env"])
        return real(command, **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    with worker.Worker("fake", Path(sys.executable), tmp_path / "log"):
        pass
    assert asked["ORT_DISABLE_TELEMETRY"] == "1"


def test_engines_over_one_bundle_share_it(tmp_path: Path) -> None:
    """A variant that only names an engine is not exported again."""
    plain, native = (
        compare.Entry("ours", variant) for variant in ("int4:128:cuda", "int4:128:cuda:native")
    )
    paths = [compare.converted_path(e, tmp_path, Path("checkpoint")) for e in (plain, native)]
    assert paths[0] == paths[1]
    assert paths[0].name == "int4-128-cuda"
