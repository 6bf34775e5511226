"""The acceptance run (benchmarks/gpu) over items that behave badly, which are real processes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks import compare as peers
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import compare, emit, items, layout, report
from benchmarks.gpu.items import Item
from benchmarks.gpu.layout import Layout

Table = Callable[..., None]
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

OK = "emit('figure', value=1)"
CRASH = "import os, signal; emit('before', value=2); os.kill(os.getpid(), signal.SIGSEGV)"
HANG = "import time; emit('before', value=3); time.sleep(600)"
OUT_OF_MEMORY = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
block = bytearray(1 << 34)
"""
# A grandchild in a session of its own, as compare's workers are.
GRANDCHILD = """
import subprocess, sys, time
command = [sys.executable, "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(command, start_new_session=True)
emit("grandchild", pid=child.pid)
"""


def item(name: str, code: str, limit_s: float = 60, **more: Any) -> Item:
    """An item that runs a piece of Python, which may emit."""
    text = f"from benchmarks.gpu.emit import emit\n{code}"
    return Item(name, "?", limit_s, lambda _: ["-c", text], **more)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`table(*items)` takes the place of the real one."""

    def put(*rows: Item) -> None:
        monkeypatch.setattr(items, "ITEMS", rows)

    return put


def call(out: Path, *options: object) -> Result:
    arguments = [str(out), *map(str, options)]
    return CliRunner().invoke(command.main, arguments, catch_exceptions=False)


def lines(out: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in layout.read(out / "results.jsonl") if line["kind"] == kind]


def ends(out: Path) -> dict[str, dict[str, Any]]:
    return {line["item"]: line for line in lines(out, "item")}


def results(out: Path, name: str) -> list[dict[str, Any]]:
    return [line["values"] for line in lines(out, "result") if line["item"] == name]


def runs(pid: int) -> bool:
    """Whether it is neither gone nor a zombie."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_what_fails_costs_its_own_time_and_nothing_else(table: Table, tmp_path: Path) -> None:
    """A hang, a crash, no memory, an error, a missing module: the run goes on after each."""
    missing = Item("missing", "?", 60, lambda _: ["-m", "benchmarks.gpu.no_such_module"])
    broken = Item("broken", "?", 60, lambda plan: [str(plan.products["nothing"])])
    table(
        item("hangs", HANG, limit_s=6),
        item("crashes", CRASH),
        item("memory", OUT_OF_MEMORY),
        item("kill", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
        item("raises", "raise RuntimeError('no such kernel')"),
        missing,
        broken,
        item("skips", "emit('skipped', reason='no package x')"),
        item("good", OK),
    )
    out = tmp_path / "out"
    done = call(out, "--patience", 0.5)
    assert done.exit_code == 1
    found = ends(out)
    statuses = {name: line["status"] for name, line in found.items()}
    assert statuses == {
        "hangs": "timed out",
        "crashes": "failed",
        "memory": "failed",
        "kill": "failed",
        "raises": "failed",
        "missing": "failed",
        "broken": "failed",
        "skips": "skipped",
        "good": "done",
    }
    assert found["hangs"]["reason"] == "stopped at its limit of 3 s"
    assert "SIGSEGV" in found["crashes"]["reason"]
    assert found["memory"]["reason"].startswith("out of memory: MemoryError")
    assert "out of memory" in found["kill"]["reason"]
    assert found["raises"]["reason"] == "exit code 1: RuntimeError: no such kernel"
    assert any("Traceback" in line for line in found["raises"]["tail"])
    assert "no_such_module" in found["missing"]["reason"]
    assert found["broken"]["reason"] == "cannot be started: KeyError: 'nothing'"
    assert found["skips"]["reason"] == "no package x"
    # What was measured before the end is kept.
    assert results(out, "hangs") == [{"value": 3}]
    assert results(out, "crashes") == [{"value": 2}]
    assert "no such kernel" in (out / "logs/raises.log").read_text()
    (machine,) = lines(out, "machine")
    assert {"card", "cuda", "versions", "commit", "host"} <= machine["machine"].keys()
    assert machine["machine"]["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {line["run"] for line in layout.read(out / "results.jsonl")} == {machine["run"]}
    for name, line in found.items():  # the table comes last, and has all of them
        rows = [row for row in done.stdout.splitlines() if row.split()[:1] == [name]]
        assert line["status"] in rows[0]
    assert report.text(out / "results.jsonl") in done.stdout


@needs_proc
@pytest.mark.parametrize("how", ["waits", "left", "crashed"])
def test_a_grandchild_in_its_own_session_ends_too(table: Table, tmp_path: Path, how: str) -> None:
    after = {"waits": "time.sleep(600)", "left": "", "crashed": "import os; os.abort()"}[how]
    table(item("parent", GRANDCHILD + after, limit_s=3), item("good", OK))
    out = tmp_path / "out"
    call(out)
    status = {"waits": "timed out", "left": "done", "crashed": "failed"}[how]
    assert ends(out)["parent"]["status"] == status
    assert ends(out)["parent"]["seconds"] < 30  # did not wait for 600
    assert ends(out)["good"]["status"] == "done"
    (grandchild,) = results(out, "parent")
    assert not runs(grandchild["pid"])


def test_resume_runs_again_what_failed_and_only_that(table: Table, tmp_path: Path) -> None:
    flag = tmp_path / "repaired"
    late = f"import sys, os; sys.exit(0 if os.path.exists({str(flag)!r}) else 'not yet')"
    table(item("good", OK), item("late", late))
    out = tmp_path / "out"
    assert call(out).exit_code == 1
    refused = call(out)
    assert refused.exit_code == 2
    assert "--resume" in refused.output
    flag.touch()
    with (out / "results.jsonl").open("a") as file:
        file.write('{"kind": "result", "it')  # a run that was killed while it wrote
    again = call(out, "--resume")
    assert again.exit_code == 0
    assert [(line["item"], line["status"]) for line in lines(out, "item")] == [
        ("good", "done"),
        ("late", "failed"),
        ("late", "done"),
    ]
    assert len(lines(out, "machine")) == 2
    assert "2 done" in again.stdout


def test_a_folder_is_of_one_gpu_and_one_kind_of_run(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(item("good", OK))
    out = tmp_path / "out"
    assert call(out, "--dry-run").exit_code == 0
    assert "has results of a dry run" in call(out, "--resume").output
    other = command.describe(None) | {"card": {"name": "NVIDIA Other"}}
    monkeypatch.setattr(command, "describe", lambda _: other)
    refused = call(out, "--resume", "--dry-run")
    assert refused.exit_code == 2
    assert "NVIDIA Other" in refused.output


def test_minutes_cut_the_run(table: Table, tmp_path: Path) -> None:
    """What runs is stopped when they are over; what would have too little left is not begun."""
    table(item("long", HANG, limit_s=6), item("later", OK, limit_s=60))
    out = tmp_path / "out"
    done = call(out, "--minutes", 0.05)
    found = ends(out)
    assert found["long"]["status"] == "timed out"
    assert found["long"]["seconds"] < 6
    assert found["later"]["status"] == "skipped"
    assert found["later"]["cause"] == "time"
    assert "s were left, and it may need 60" in found["later"]["reason"]
    assert done.exit_code == 1


def test_only_what_needs_products_waits_for_them(table: Table, tmp_path: Path) -> None:
    """`free` runs while the maker waits for it; `second` is skipped with the maker's reason."""
    flag = tmp_path / "flag"
    product = f"emit('product', name='one', path={str(tmp_path / 'one')!r})"
    wait = f"import os, time\nwhile not os.path.exists({str(flag)!r}): time.sleep(0.05)"
    path = Item(
        "first",
        "?",
        60,
        lambda plan: ["-c", f'print(\'{{"result": "path", "value": "{plan.products["one"]}"}}\')'],
        needs=("one",),
    )
    table(
        item("maker", f"{wait}\n{product}\nraise SystemExit('two: no room')", background=True),
        path,
        item("second", OK, needs=("one", "two")),
        item("free", f"open({str(flag)!r}, 'w'); emit('free')"),
    )
    out = tmp_path / "out"
    call(out)
    order = [line["item"] for line in lines(out, "item")]
    assert set(order[:2]) == {"free", "maker"}  # which ends first is left to the machine
    assert order[2:] == ["first", "second"]
    assert results(out, "first") == [{"value": str(tmp_path / "one")}]
    assert ends(out)["second"]["status"] == "skipped"
    why = "needs two, which maker did not make (failed: exit code 1: two: no room)"
    assert ends(out)["second"]["reason"] == why


def test_the_maker_runs_with_what_needs_it(table: Table, tmp_path: Path) -> None:
    """Also when it is not named, and again with --resume: its models may be gone."""
    product = f"emit('product', name='one', path={str(tmp_path)!r})"
    table(
        item("maker", product, background=True),
        item("user", OK, needs=("one",)),
        item("free", OK),
    )
    out = tmp_path / "out"
    assert call(out, "--items", "free").exit_code == 0
    assert ends(out).keys() == {"free"}
    assert call(out, "--items", "user", "--resume").exit_code == 0
    assert ends(out).keys() == {"free", "maker", "user"}
    assert call(out, "--resume").exit_code == 0  # nothing is left
    assert len(lines(out, "item")) == 3


@pytest.mark.parametrize("names", ["nobody", "gemv,nobody", ""])
def test_an_unknown_item_is_a_usage_error(tmp_path: Path, names: str) -> None:
    refused = call(tmp_path / "out", "--items", names)
    assert refused.exit_code == 2
    assert "there are prepare, compare" in refused.output
    assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_what_runs_and_shows_the_table(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(item("hangs", f"import os\nemit('pid', pid=os.getpid())\n{HANG}"), item("later", OK))
    out = tmp_path / "out"
    sleep = time.sleep

    def interrupting(seconds: float) -> None:
        sleep(seconds)
        if len(results(out, "hangs")) == 2:
            monkeypatch.setattr(time, "sleep", sleep)
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupting)
    done = call(out)
    assert done.exit_code == 1
    assert ends(out)["hangs"]["reason"] == "interrupted"
    assert "later" not in ends(out)
    assert "hangs" in done.stdout
    with pytest.raises(ProcessLookupError):
        os.kill(results(out, "hangs")[0]["pid"], 0)


def test_the_table_is_in_order_and_complete() -> None:
    names = [row.name for row in items.ITEMS]
    assert len(set(names)) == len(names)
    assert names[0] == "prepare"
    assert [row.name for row in items.ITEMS if row.background] == ["prepare"]
    made = {*layout.VARIANTS, items.CHECKPOINT}
    assert all(set(row.needs) <= made for row in items.ITEMS)
    plan = Layout(Path("out"), Path("work"), True, products={name: Path(name) for name in made})
    for row in items.ITEMS:
        arguments = row.command(plan)
        assert arguments[0] == "-m"
        assert "--dry-run" in arguments or row.name == "tests"
    assert "tests/engines/test_onnxruntime_gpu.py" in items.gpu_tests()


def test_a_dry_run_of_some_items(tmp_path: Path) -> None:
    """Models are written and exported, peers are compared, the GPU's tests are skipped."""
    out = tmp_path / "out"
    done = call(out, "--dry-run", "--items", "compare,torch-int4,tests")
    assert done.exit_code == 0, done.output
    assert {line["status"] for line in lines(out, "item")} == {"done"}
    assert {line["name"] for line in results(out, "prepare")} == {"checkpoint", "int4", "fp16"}
    ratios = [v for v in results(out, "compare") if "ratio" in v]
    prefills = {v["ours"] for v in ratios if v["case"] == "pp48"}
    assert prefills == {"ours int4:128", "ours fp32"}
    record = json.loads((out / "compare.json").read_text())
    assert record["kind"] == "compare"
    assert len(record["entries"]) == 3
    (tests,) = results(out, "tests")
    assert tests["failed"] == 0
    assert tests["passed"] + tests["skipped"] > 0
    assert done.stdout.startswith("DRY RUN") or "DRY RUN" in done.stdout


def test_a_peer_that_is_unknown_or_not_there_is_left_out(tmp_path: Path) -> None:
    entries, unknown = compare.entries_of("fake:1000,nobody:int4,ours:int8")
    assert [entry.name for entry in entries] == ["fake 1000", "ours int8"]
    assert "not one of" in unknown["nobody:int4"]
    checkpoint = peers.checkpoint_path(tmp_path, layout.TINY)
    checkpoint.mkdir()
    (checkpoint / "config.json").touch()
    compare.prepare(entries, tmp_path, dry_run=True)
    assert entries[0].reason is None
    assert entries[1].reason == "its export is not there"


def machine_line() -> dict[str, Any]:
    card = {"name": "NVIDIA Test", "driver_version": "1.2"}
    what = {"card": card, "cuda": "13.0", "versions": {"torch": "2"}, "items": ["compare", "gemv"]}
    return {"kind": "machine", "run": "a", "time": "now", "machine": what}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    common = {"run": "a", "time": "now"}
    path.write_text("".join(json.dumps(common | row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("ratio", "step", "verdicts"), [(1.4, 1.2, "met"), (1.05, 1.7, "missed")])
def test_the_bars(tmp_path: Path, ratio: float, step: float, verdicts: str) -> None:
    ratios = [
        {
            "kind": "result",
            "item": "compare",
            "result": "ratio",
            "values": {
                "ours": f"ours {ours}",
                "peer": "transformers fp16",
                "case": case,
                "ratio": value,
            },
        }
        for ours in layout.VARIANTS.values()
        for case, value in (("pp2933", ratio), ("pp512", 9.0), ("tg32 @ d0", 9.0))
    ]
    kernel = {"rows": 1, "gb_per_s": 2000.0, "variant": "best", "early": False}
    steps = [kernel | {"ms": step}, kernel | {"ms": 9.0}, kernel | {"ms": 0.1, "rows": 8}]
    steps.append({"variant": "default", "failed": "wrong numbers"})
    gemv = [{"kind": "result", "item": "gemv", "result": "gemv step", "values": v} for v in steps]
    end = {"kind": "item", "status": "done", "seconds": 1.0}
    ended = [end | {"item": name} for name in ("compare", "gemv")]
    text = report.text(write(tmp_path / "results.jsonl", machine_line(), *ratios, *gemv, *ended))
    bars = [line for line in text.splitlines() if ">=" in line or "<=" in line]
    assert [verdicts in line for line in bars] == [True, True, False, True]
    assert f"{ratio:.3g} x" in bars[0]
    assert "not measured" in bars[2]
    assert f"a step of 1: {step} ms, 2000 GB/s (best)" in text
    assert "1 variants failed" in text
    assert text.startswith("NVIDIA Test, driver 1.2, CUDA 13.0, torch 2")


def test_a_report_of_results_it_does_not_know(tmp_path: Path) -> None:
    odd = {"kind": "result", "item": "gemv", "result": "tests", "values": {"passed": 3}}
    end = {"kind": "item", "item": "gemv", "status": "failed", "seconds": 2, "reason": "x" * 500}
    text = report.text(write(tmp_path / "results.jsonl", machine_line(), odd, end))
    assert "cannot be shown" in text
    assert "x" * 100 in text
    assert "has no results" in report.text(tmp_path / "nothing.jsonl")
    done = CliRunner().invoke(report.main, [str(tmp_path)])
    assert done.output.strip() == text


def test_tests_are_counted_and_failures_named(tmp_path: Path) -> None:
    plan = Layout(tmp_path, tmp_path)
    plan.logs.mkdir()
    (plan.logs / "tests.xml").write_text(
        '<testsuites><testsuite><testcase classname="tests.test_a" name="one"/>'
        '<testcase classname="tests.test_a" name="two">'
        '<failure message="assert 1 == 2&#10;more"/></testcase>'
        '<testcase classname="tests.test_a" name="three"><skipped message="no GPU"/></testcase>'
        '<testcase classname="tests.test_b" name="four"><error message="fixture"/></testcase>'
        "</testsuite></testsuites>"
    )
    (row,) = (row for row in items.ITEMS if row.name == "tests")
    assert row.collect is not None
    ((name, values),) = row.collect(plan)
    assert name == "tests"
    assert (values["passed"], values["failed"], values["skipped"]) == (1, 2, 1)
    assert values["failures"] == [
        {"name": "tests.test_a::two", "message": "assert 1 == 2"},
        {"name": "tests.test_b::four", "message": "fixture"},
    ]
    assert values["skip_reasons"] == ["no GPU"]


def test_tests_that_were_stopped_are_counted_from_the_output(tmp_path: Path) -> None:
    plan = Layout(tmp_path, tmp_path)
    plan.logs.mkdir()
    (plan.logs / "tests.log").write_text(
        "== test session starts ==\ntests/test_a.py::old PASSED [ 50%]\n"
        "== test session starts ==\n"
        "tests/test_a.py::one PASSED           [ 25%]\n"
        "tests/test_a.py::two[('int4', 32)] FAILED [ 50%]\n"
        "tests/test_a.py::three SKIPPED (no GPU) [ 75%]\n"
        "tests/test_a.py::four "
    )
    (row,) = (row for row in items.ITEMS if row.name == "tests")
    assert row.collect is not None
    ((_, values),) = row.collect(plan)
    assert (values["passed"], values["failed"], values["skipped"]) == (1, 1, 1)
    assert values["failures"][0]["name"] == "tests/test_a.py::two[('int4', 32)]"


def test_reasons(table: Table, tmp_path: Path) -> None:
    """Why an item failed: its last words, or the line that says that memory ran out."""
    memory = "torch.OutOfMemoryError: CUDA out of memory."
    buffer = "RUNTIME_EXCEPTION : Failed to allocate memory for buffer"
    endings = {
        "memory": (f"print({memory!r}); print('[W] bye'); sys.exit(1)", "out of memory: torch.Out"),
        "buffer": (f"print({buffer!r}); sys.exit(1)", "out of memory: RUN"),
        "code-137": ("sys.exit(137)", "killed (SIGKILL)"),
        "kill": ("print('loading', flush=True); os.kill(os.getpid(), 9)", "killed (SIGKILL)"),
        "abort": (
            "print('terminate called', flush=True); os.abort()",
            "ended by SIGABRT: terminate called",
        ),
        "silent": ("sys.exit(2)", "exit code 2: it said nothing"),
    }
    table(*(item(name, f"import os, sys; {code}") for name, (code, _) in endings.items()))
    call(tmp_path / "out")
    for name, line in ends(tmp_path / "out").items():
        assert line["reason"].startswith(endings[name][1]), name


@pytest.mark.parametrize("line", ["", "loading", '{"result"', '{"result": 1', '{"other": 1}'])
def test_other_output_is_log(line: str) -> None:
    assert emit.parse(line) is None
