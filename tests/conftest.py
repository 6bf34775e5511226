"""Tiny checkpoints and bundles, made once per session. Copy one before changing it."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import pulse_edge
from pulse_edge import state
from pulse_edge.privacy import silence

from support import tiny
from support.fixture_types import Bundles, Checkpoints

os.umask(0o022)  # keys and rules that a group may write to are refused
silence("onnxruntime", "huggingface_hub")  # before any test imports them
os.environ[state.VARIABLE] = state.OFF  # of children, too

# No database of examples: it would be written into the tree, and make runs differ.
hypothesis.settings.register_profile("suite", database=None)
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reversed", action="store_true", help="run the last test first")


# What takes most of the suite's time: kernels in emulation, and processes started by the dozen.
# `make test` leaves it out; `make coverage`, which CI runs, does not. Files, or tests of files.
SLOW = (
    "benchmarks/gpu/",
    "benchmarks/test_accuracy.py",
    "benchmarks/test_compare.py",
    "benchmarks/test_deadlines.py",
    "benchmarks/test_page_checks.py",
    "benchmarks/test_real_recordings.py",
    "benchmarks/test_recipes.py",
    "benchmarks/test_report.py",
    "cli/test_bench_command.py::test_a_bundle_of_a_list",
    "cli/test_bench_command.py::test_lists",
    "cli/test_chat_terminal.py",
    "cli/test_ecgbench.py::test_scores_agree",
    "cli/test_signals.py",
    "cli/test_streams.py",
    "engines/native/test_attention_kernel.py",
    "engines/native/test_gemv_kernel.py",
    "engines/native/test_kernel_mutations.py",
    "engines/native/test_native_check.py",
    "engines/native/test_native_engine.py",
    "engines/native/test_native_steps.py",
    "engines/native/test_native_trust.py",
    "evaluate/ecgbench/",
    "evaluate/test_run.py::test_eval_scores_a_bundle",
    "export/test_quantize_recipes.py",
    "export/test_transaction.py::test_killed",
    "export/test_transaction.py::test_stopped",
    "fuzz/test_campaigns.py",
    "house/test_examples.py",
    "house/test_first_minutes.py::test_every_command",
    "house/test_readme.py::test_commands_run_in_order",
    "page/test_pdf.py::test_a_page_that_takes_too_long",
    "page/test_pdf.py::test_a_page_whose_operators_inflate_too_far_is_refused",
    "page/test_preflight.py",
    "test_model_slots.py::test_two_hundred_random_schedules",
    "test_model_soak.py",
    "test_soak_mixed.py",
    "test_worker_exit.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.removeprefix("tests/").startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    if config.getoption("--reversed"):
        items.reverse()


def pytest_collection_finish() -> None:
    """The collector leaves thousands of collected tests alone: going through them takes seconds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """No test finds what another one has remembered."""
    state.forget()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """`checkpoints(**options)`: a checkpoint directory; the options are those of
    `tiny.make_checkpoint`.
    """
    made: dict[str, Path] = {}

    def make(**options: Any) -> Path:
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = tiny.make_checkpoint(
                tmp_path_factory.mktemp("checkpoint") / "tiny", **options
            )
        return made[key]

    return make


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, checkpoints: Checkpoints) -> Bundles:
    """`bundles(precision, block_size, target, cache, **options)`: a bundle of the checkpoint that
    has these options.
    """
    pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
    from pulse_export.pipeline import export
    from pulse_export.quantize.recipe import Recipe

    made: dict[str, Path] = {}

    def make(
        precision: str = "fp32",
        block_size: int | None = None,
        target: str = "cpu",
        cache: str = "float",
        **options: Any,
    ) -> Path:
        key = repr((precision, block_size, target, cache, sorted(options.items())))
        if key not in made:
            out = tmp_path_factory.mktemp("bundle") / f"tiny-{precision}"
            calibration = Recipe(samples=2) if (precision, target) == ("w8a8", "standard") else None
            export(
                checkpoints(**options),
                out,
                precision=precision,
                block_size=block_size,
                target=target,
                cache=cache,
                calibration=calibration,
            )
            made[key] = out
        return made[key]

    return make


@pytest.fixture(scope="session")
def checkpoint(checkpoints: Checkpoints) -> Path:
    """The default one: LLaVA's published layout, anyres, flat merge, fp32."""
    return checkpoints()


@pytest.fixture(scope="session")
def bundle(bundles: Bundles) -> Path:
    """`checkpoint` in fp32 for the CPU."""
    return bundles()


@pytest.fixture
def model(bundle: Path) -> pulse_edge.Model:
    """`bundle`, loaded afresh for each test, so that nothing is cached from another one."""
    return pulse_edge.load(bundle, threads=1)
