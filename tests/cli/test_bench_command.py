"""`pulse-edge bench` around the measuring: lists, formats, comparisons, exit codes."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.cli.main import main
from pulse_edge.engines.options import EngineOptions
from pulse_edge.measure import bench
from pulse_edge.measure.sweep import Settings

from support.command import command as run_program
from support.records import scaled, steady

Capture = pytest.CaptureFixture[str]
Record = dict[str, Any]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def measured(bundle: Path) -> Record:
    settings = Settings(2, 0, 0, 3, (16,), (0,), quick=True)
    record = steady(json.loads(json.dumps(bench.run(bundle, EngineOptions(threads=1), settings))))
    record["contention"] |= {"others": 0.0, "steal": 0.0, "throttled": None, "pace": [0.005]}
    return record


@pytest.fixture
def command(
    measured: Record, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> Command:
    """Runs the command, whose measuring gives `record`."""

    def run(*arguments: object, record: Record | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(bench, "run", lambda *_: copy.deepcopy(record or measured))
        with pytest.raises(SystemExit) as end:
            main(["bench", str(bundle), *map(str, arguments)])
        code = end.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (("--json",), "{"),
        (("-o", "json"), "{"),
        (("--output", "jsonl"), "{"),
        (("--csv",), "time,commit,machine,"),
        (("-o", "csv"), "time,commit,machine,"),
        (("--markdown",), "| median"),
        (("-o", "md"), "| median"),
        ((), ""),
    ],
)
def test_formats(command: Command, arguments: tuple[str, ...], first: str) -> None:
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith(first)
    assert out.endswith("\n")
    if first == "{":
        assert json.loads(out)["schema"] == 3
    if "csv" in "".join(arguments):
        assert {row["figure"] for row in csv.DictReader(io.StringIO(out))} >= {"tpot", "pp16"}


@pytest.mark.parametrize("output", ["md", "csv", "text"])
def test_doubts_are_said_beside_every_table(
    command: Command, measured: Record, output: str
) -> None:
    """On stderr where stdout is for programs or for pasting. JSON has them as fields."""
    record = copy.deepcopy(measured)
    record["contention"]["others"] = 0.5
    record["warmup"]["requests"] |= {"repetitions": 3, "stable": False}
    code, out, err = command("--output", output, record=record)
    assert code == 0
    shown = out if output == "text" else err
    assert "BUSY machine: other processes took 50%" in shown
    assert "Not yet stable when the warm-up ended: requests" in shown
    assert (err == "") == (output == "text")


@pytest.mark.parametrize(
    ("factor", "busy", "code", "says"),
    [
        (1.0, 0.0, 0, None),
        (1.5, 0.0, 9, "error: 1 of"),
        (0.5, 0.0, 0, None),
        (1.5, 0.5, 14, "error: no verdict: this run: other processes took 50%"),
        (1.0, 0.5, 14, "error: no verdict: this run: other processes took 50%"),
    ],
)
def test_the_gate(
    command: Command,
    measured: Record,
    tmp_path: Path,
    factor: float,
    busy: float,
    code: int,
    says: str | None,
) -> None:
    before = tmp_path / "before.jsonl"
    assert command("--append", before)[0] == 0
    now = scaled(measured, tpot=factor)
    now["contention"]["others"] = busy
    ended, out, err = command("--compare", before, record=now)
    assert ended == code
    assert "worse by" in out
    assert ("REGRESSED" in out) == (code == 9)
    assert err.startswith(says or "")
    assert bool(err) == bool(says)
    ended, out, err = command("--json", "--compare", before, record=now)
    assert ended == code
    assert json.loads(out)["schema"] == 3  # the table is not in the way
    assert "worse by" in err


def test_an_interrupted_run_is_printed_kept_and_not_compared(
    command: Command, measured: Record, tmp_path: Path
) -> None:
    file = tmp_path / "all.jsonl"
    partial = measured | {"interrupted": "sweeps"}
    code, out, err = command("--json", "--append", file, "--compare", _write(measured, tmp_path),
                             record=partial)  # fmt: skip
    assert (code, err) == (130, "interrupted\n")
    assert json.loads(out)["interrupted"] == "sweeps"
    assert json.loads(file.read_text())["interrupted"] == "sweeps"
    code, out, _ = command(record=partial)
    assert code == 130
    assert "INTERRUPTED at its sweeps" in out


def _write(record: Record, folder: Path) -> Path:
    path = folder / "written.json"
    path.write_text(json.dumps(record))
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threads", "one"), "not a list of whole numbers"),
        (("--threads", "-1"), "threads is -1"),
        (("--goodput", "ttft"), "milliseconds above 0"),
        (("--goodput", "itl:5"), "one of ttft, tpot, e2el"),
        (("-o", "xml"), "xml"),
        (("-r", "0"), "repetitions is 0"),
        (("--fail-over", "much", "--compare", "none"), "cannot be read"),
    ],
)
def test_mistakes_are_found_before_measuring(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    def measure(*_: object) -> None:
        raise AssertionError("it was measured")

    monkeypatch.setattr(bench, "run", measure)
    with pytest.raises(SystemExit) as end:
        main(["bench", str(bundle), *arguments])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err


def test_objectives_as_vllm_writes_them(
    bundle: Path, measured: Record, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    asked: list[Any] = []

    def run(*arguments: Any) -> Record:
        asked.append((str(arguments[0]), arguments[-1]))
        return measured

    monkeypatch.setattr(bench, "run", run)
    slo = ["ttft:3000", "tpot:100"]
    for words in (
        [str(bundle), "--goodput", *slo],
        ["--goodput", slo[0], str(bundle), "--goodput", slo[1]],
        ["--goodput", ",".join(slo), str(bundle)],
        ["--goodput", " ".join(slo), str(bundle)],
    ):
        with pytest.raises(SystemExit):
            main(["bench", *words])
    assert asked == [(str(bundle), {"ttft": 3000.0, "tpot": 100.0})] * 4
    capsys.readouterr()


def test_lists_of_bundles_and_threads(bundle: Path, tmp_path: Path) -> None:
    """Each in a process of its own: records in order, appended, one table."""
    file = tmp_path / "all.jsonl"
    few = ("--quick", "-r", 1, "--warmup", 0, "-n", 2, "--prompt-lengths", "8", "--depths", "")
    done = run_program("bench", bundle, "--threads", "1,2", *few, "--json", "--append", file)
    assert (done.returncode, done.stderr) == (0, "")
    records = json.loads(done.stdout)
    assert [r["provenance"]["engine"]["threads"] for r in records] == [1, 2]
    assert [json.loads(line) for line in file.read_text().splitlines()] == records
    memory = [r["figures"]["peak_memory"]["p50"] for r in records]
    assert memory[1] < 1.5 * memory[0]


def test_a_bundle_of_a_list_that_fails_ends_it(bundle: Path, tmp_path: Path) -> None:
    few = ("--quick", "-r", 1, "--warmup", 0, "-n", 2, "--prompt-lengths", "8", "--depths", "")
    done = run_program("bench", bundle, tmp_path / "none", *few, "--csv")
    assert done.returncode == 4
    said = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(said) == 1  # the warnings are of a busy machine
    assert said[0].startswith("error: ")
    assert {row["threads"] for row in csv.DictReader(io.StringIO(done.stdout))} == {"0"}


def test_no_point_that_fits_is_an_error(bundle: Path) -> None:
    done = run_program("bench", bundle, "--quick", "--prompt-lengths", "500000")
    assert (done.returncode, done.stdout) == (2, "")
    assert "none of the prompt lengths fits the context" in done.stderr
    assert "pp500000" in done.stderr
