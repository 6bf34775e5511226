"""What the acceptance run asks of a GPU, in order of value: a table, and the command of each row.

An item prints its results through `emit.py`, and ends with 0 when it could answer its question.
Three results mean more:

    {"result": "product", "name": "int4", "path": …}   a model that later items need
    {"result": "skipped", "reason": …}                 alone: a package is missing, for one
    {"result": "summary", …}                           what the table shows of the item
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.gpu.layout import ROOT, Layout

PRODUCT, SKIPPED = "product", "skipped"
CHECKPOINT = "checkpoint"  # the product that compare needs
Command = Callable[[Layout], list[str]]  # arguments of Python
Results = Iterator[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        limit_s: seconds after which it is stopped.
        needs: products that must be there. What needs none may run while the background item does.
        background: makes products on the CPU while others use the GPU.
        collect: reads results from files when the process has ended.
    """

    name: str
    question: str
    limit_s: float
    command: Command
    needs: tuple[str, ...] = ()
    background: bool = False
    collect: Callable[[Layout], Results] | None = None


def _module(name: str) -> Command:
    """A module of this package over WORK."""
    return lambda plan: ["-m", f"benchmarks.gpu.{name}", str(plan.work), *_dry(plan)]


def _on_bundle(name: str, precision: str) -> Command:
    """A module of this package over an exported bundle."""

    def command(plan: Layout) -> list[str]:
        bundle = ["--bundle", str(plan.products[precision]), "--variant", plan.variants[precision]]
        return ["-m", f"benchmarks.gpu.{name}", str(plan.work), *bundle, *_dry(plan)]

    return command


def _compare(record: str, *entries: str, decode: bool = False) -> Command:
    """Peers against each other.

    Args:
        record: name of the file that the whole record goes to.
        entries: int4 and fp16 are ours, and `int4+native` by our kernels; in a dry run the others
            are fakes.
        decode: decode steps first, and less of the rest.
    """

    def command(plan: Layout) -> list[str]:
        ours = [_ours(plan, entry) for entry in entries if entry.split("+")[0] in plan.variants]
        if plan.dry_run:  # the kernels need a GPU
            ours = [entry for entry in ours if not entry.endswith(":native")]
        peers = [entry for entry in entries if entry.split("+")[0] not in plan.variants]
        if plan.dry_run:
            peers = [f"fake:{1000 + number}" for number, _ in enumerate(peers)]
        options = ["--run", ",".join(ours + peers), "--record", str(plan.out / f"{record}.json")]
        options += ["--patience", str(plan.patience), *(["--decode"] if decode else [])]
        return ["-m", "benchmarks.gpu.compare", str(plan.work), *options, *_dry(plan)]

    return command


def _ours(plan: Layout, entry: str) -> str:
    precision, _, engine = entry.partition("+")
    return ":".join(["ours", plan.variants[precision], *([engine] if engine else [])])


def _dry(plan: Layout) -> list[str]:
    return ["--dry-run"] if plan.dry_run else []


def gpu_tests() -> list[str]:
    """The files that have tests for a GPU: others would only be collected."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    marked = [file for file in files if re.search(r"pytest\.mark\.gpu\b", file.read_text())]
    return [str(file.relative_to(ROOT)) for file in marked]


def _tests(plan: Layout) -> list[str]:
    _junit(plan).unlink(missing_ok=True)  # of a run before
    # So that pytest ends by itself, with its report, before it is stopped.
    one, all_of_them = int(60 * plan.patience), int(220 * plan.patience)
    timeouts = [f"--timeout={one}", f"--session-timeout={all_of_them}"]
    installed = importlib.util.find_spec("pytest_timeout") is not None
    options = ["-m", "gpu", "-v", "-p", "no:cacheprovider", f"--junitxml={_junit(plan)}"]
    return ["-m", "pytest", *options, *(timeouts if installed else []), *gpu_tests()]


def _keep_traces(plan: Layout) -> Results:
    """Copies the raw events to OUT, which is what is sent; they are no results of their own."""
    for trace in plan.work.glob("trace-*.json"):
        shutil.copy(trace, plan.out)
    yield from ()


def _junit(plan: Layout) -> Path:
    return plan.logs.absolute() / "tests.xml"


def _test_results(plan: Layout) -> Results:
    """Counts, and what failed, from pytest's report in JUnit's format, else from its output."""
    if not _junit(plan).exists():
        yield "tests", _from_output((plan.logs / "tests.log").read_text(errors="replace"))
        return
    cases = list(ElementTree.parse(_junit(plan)).iter("testcase"))
    failed = []
    skipped = set()
    for case in cases:
        trouble = case.find("failure") if case.find("failure") is not None else case.find("error")
        if trouble is not None:
            message = (trouble.get("message") or "").strip().splitlines()
            name = f"{case.get('classname')}::{case.get('name')}"
            failed.append({"name": name, "message": message[0][:300] if message else ""})
        reason = case.find("skipped")
        if reason is not None:
            skipped.add((reason.get("message") or "")[:300])
    count = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - count - len(failed)
    yield (
        "tests",
        {
            "passed": passed,
            "failed": len(failed),
            "skipped": count,
            "failures": failed,
            "skip_reasons": sorted(skipped),
        },
    )


def _from_output(text: str) -> dict[str, Any]:
    """Of a pytest that was stopped before its report: what ran until then."""
    last = text[text.rfind("test session starts") :]
    outcomes = re.findall(r"^(\S+::\S.*?) (PASSED|FAILED|ERROR|SKIPPED)\b", last, re.MULTILINE)
    failed = [name for name, outcome in outcomes if outcome in ("FAILED", "ERROR")]
    return {
        "passed": sum(outcome == "PASSED" for _, outcome in outcomes),
        "failed": len(failed),
        "skipped": sum(outcome == "SKIPPED" for _, outcome in outcomes),
        "failures": [{"name": name, "message": ""} for name in failed],
        "skip_reasons": [],
    }


ITEMS: tuple[Item, ...] = (
    Item(
        "prepare",
        "a model with PULSE-7B's shapes and random weights, exported in int4 and fp16",
        300,
        _module("prepare"),
        background=True,
    ),
    Item(
        "compare",
        "prefill, decode and the vision tower next to transformers in fp16",
        210,
        _compare("compare", "int4", "fp16", "transformers:fp16"),
        needs=(CHECKPOINT,),
    ),
    Item(
        "gemv",
        "milliseconds that the int4 products of a decode step take with kernels of our own",
        90,
        _module("gemv"),
    ),
    Item(
        "step",
        "milliseconds of a step of our kernels by themselves, and what tuning gains",
        90,
        _module("step"),
    ),
    Item(
        "native",
        "decode steps by our own kernels next to ONNX Runtime's",
        90,
        _on_bundle("native", "int4"),
        needs=("int4",),
    ),
    Item(
        "stages-int4",
        "page to first token in int4, stage by stage",
        75,
        _on_bundle("stages", "int4"),
        needs=("int4",),
    ),
    Item(
        "stages-fp16",
        "page to first token in fp16, stage by stage",
        75,
        _on_bundle("stages", "fp16"),
        needs=("fp16",),
    ),
    Item(
        "trace-int4",
        "kernels of a decode step in int4: names, counts, times, gaps",
        75,
        _on_bundle("trace", "int4"),
        needs=("int4",),
        collect=_keep_traces,
    ),
    Item("tests", "is it correct on this GPU (pytest -m gpu)", 240, _tests, collect=_test_results),
    Item(
        "nano", "does pulse-nano, which is trained, answer here as on the CPU", 60, _module("nano")
    ),
    Item(
        "sweep",
        "which of ONNX Runtime's options are the fastest",
        150,
        _on_bundle("sweep", "int4"),
        needs=("int4",),
    ),
    Item(
        "compiled",
        "decode next to transformers with a static cache and torch.compile",
        180,
        _compare("compiled", "int4", "transformers:fp16:compiled", decode=True),
        needs=(CHECKPOINT, "int4"),
    ),
    Item(
        "torch-int4",
        "decode next to torch's own int4 kernel with a static cache, compiled",
        150,
        _compare("torch-int4", "int4", "int4+native", "torch-int4:int4", decode=True),
        needs=(CHECKPOINT, "int4"),
    ),
    Item(
        "trace-fp16",
        "kernels of a decode step in fp16",
        75,
        _on_bundle("trace", "fp16"),
        needs=("fp16",),
        collect=_keep_traces,
    ),
    Item(
        "tensorrt-rtx",
        "does TensorRT-RTX build and run on this GPU",
        60,
        _module("tensorrt_rtx"),
    ),
)
