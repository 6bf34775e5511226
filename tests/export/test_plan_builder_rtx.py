"""Plans built by TensorRT-RTX ahead of time, which needs no GPU; running them does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from support.fixture_types import Bundles

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
pytest.importorskip(
    "tensorrt_rtx", reason="building engines needs TensorRT-RTX: pip install tensorrt-rtx"
)

import tensorrt_rtx as trt

from benchmarks import engines
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, VISION_GRAPH
from pulse_edge.bundle.plans import (
    DECODER_PLAN,
    VISION_PLAN,
    PlanKey,
    error_log,
    open_plans,
    plan_directory,
)
from pulse_edge.bundle.sealed_folder import PLANS
from pulse_edge.cli import cli
from pulse_edge.errors import ExportError
from pulse_edge.measure.devices import PLAN_DEVICES
from pulse_export.plan import builder as plan_builder

from support.rtx import GEOMETRY, KERNELS, complaints

pytestmark = pytest.mark.tensorrt

KEY = PlanKey("tensorrt_rtx", trt.__version__, 89)


def opened(bundles: Bundles, precision: str, tmp_path: Path) -> Bundle:
    source = bundles(precision, 128 if precision == "int4" else None, "standard", **GEOMETRY)
    return open_bundle(shutil.copytree(source, tmp_path / precision))


@pytest.mark.parametrize("device", ["a10", "l4"])
@pytest.mark.parametrize(
    ("precision", "profiles", "step", "several"),
    [("fp16", 2, 1, 1), ("int8", 3, 1, 2), ("w8a8", 2, 1, 1), ("int4", 3, 1, 2)],
)
def test_plans_hold_the_weights_once(
    bundles: Bundles,
    tmp_path: Path,
    precision: str,
    profiles: int,
    step: int,
    several: int,
    device: str,
) -> None:
    """And a profile of single tokens, whose attention reads the cache in place, where it costs no
    second copy.
    """
    bundle, told = opened(bundles, precision, tmp_path), []
    key = replace(KEY, capability=PLAN_DEVICES[device].capability)
    built = plan_builder.build_plans(bundle, device, progress=lambda *step: told.append(step))
    assert complaints(error_log(trt, fresh=False)) == []
    index = open_plans(bundle, key).index
    assert (index.prefill_rows, index.logit_rows, index.views) == (512, 16, 5)
    assert (index.step_profile, index.several_profile) == (step, several)
    assert built.files == {f.path: f.size for f in index.files}
    assert built.files.keys() == {VISION_PLAN, DECODER_PLAN}
    weights = bundle.file(f"{DECODER_GRAPH}.data").stat().st_size
    assert weights < built.files[DECODER_PLAN] < weights + profiles * KERNELS
    assert built.files[VISION_PLAN] < bundle.file(f"{VISION_GRAPH}.data").stat().st_size + KERNELS
    listing = (plan_directory(bundle, key) / DECODER_PLAN).read_bytes()
    layers = bundle.manifest.model.text.layers
    assert (
        listing.count(b"function={ name=_gemm_mha_v2 ") == 2 * layers
    )  # a prompt's, and a few tokens'
    assert listing.count(b"function={ name=_gemv_mha_v1 ") == layers * (profiles - 2)
    for graph in ("vision", "decoder"):
        steps = [(done, total) for name, done, total in told if name == graph]
        assert steps[0][0] == 0
        assert sum(done for done, _ in steps) <= steps[0][1]


def test_a_plan_that_would_hold_its_weights_twice_is_built_with_other_profiles(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As fp16 would with a profile of single tokens, which is tried for a library that is not known
    to do so.
    """
    bundle, builds = opened(bundles, "fp16", tmp_path), []
    builder = plan_builder.choose_builder(bundle, "l4")
    unknown = plan_builder.Builder(
        builder.library, replace(builder.key, library="tensorrt"), builder.ahead
    )
    assert [
        len(p.spans) for p in plan_builder.profile_choices(bundle, builder, DECODER_GRAPH, 64)
    ] == [2, 1]
    choices = plan_builder.profile_choices(bundle, unknown, DECODER_GRAPH, 64)
    assert [len(p.spans) for p in choices] == [3, 2, 1]
    monkeypatch.setattr(plan_builder, "profile_choices", lambda *_: choices)
    write = plan_builder.PlanWriter.write

    def count(
        self: plan_builder.PlanWriter, plan: Path, profiles: Sequence[plan_builder.Spans]
    ) -> None:
        write(self, plan, profiles)
        builds.append((len(profiles), plan.stat().st_size))

    monkeypatch.setattr(plan_builder.PlanWriter, "write", count)
    made = plan_builder.write_plan(bundle, builder, DECODER_GRAPH, tmp_path / "plan", 64)
    assert (made.step, made.several) == (1, 1)
    weights = bundle.file(f"{DECODER_GRAPH}.data").stat().st_size
    (three, large), (two, small) = builds
    assert (three, two) == (3, 2)
    assert large > small + 0.7 * weights


def test_profiles_cover_what_the_runtime_asks_for(bundles: Bundles, tmp_path: Path) -> None:
    """A prompt's pieces, single tokens, and drafts with the token before them; also where pieces
    are short.
    """
    bundle = opened(bundles, "int4", tmp_path)
    builder = plan_builder.choose_builder(bundle, "l4")
    for rows in (512, 64, 4, 1):
        for profiles in plan_builder.profile_choices(bundle, builder, DECODER_GRAPH, rows):
            whole, step, several = (
                profiles.spans[at] for at in (0, profiles.step, profiles.several)
            )
            for spans in profiles.spans:
                assert all(least <= best <= most for least, best, most in spans.values())
            assert (whole["rows"][0], whole["rows"][2]) == (1, rows)
            assert step["rows"][0] <= 1 <= step["rows"][2]
            most = min(plan_builder.LOGIT_ROWS, rows)
            assert several["rows"][2] >= most
            assert several["logit_rows"][2] == most


def test_the_benchmark_of_builds(bundles: Bundles, tmp_path: Path) -> None:
    """Built in a process of its own, which is watched; a line of JSON for each plan, which is
    thrown away.
    """
    bundle, results = opened(bundles, "int4", tmp_path), tmp_path / "results" / "engines.jsonl"
    command = [str(bundle.path), "--device", "l4", "--part", "decoder", "--append", str(results)]
    done = CliRunner().invoke(engines.main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "decoder int4, 2 layers, tensorrt_rtx " in done.stdout
    (made,) = map(json.loads, results.read_text().splitlines())
    assert (made["kind"], made["part"], made["device"], made["profiles"]) == (
        "engine",
        "decoder",
        "l4",
        3,
    )
    assert made["weights_size"] < made["plan_size"] < made["weights_size"] + 3 * KERNELS
    if sys.platform == "linux":
        assert made["weights_size"] < made["peak_allocated"] <= made["peak_resident"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".engines")] == []


def test_ctrl_c_ends_a_build(bundles: Bundles, tmp_path: Path) -> None:
    """By the signal, whose handler is the one of before afterwards."""
    bundle, before = opened(bundles, "int4", tmp_path), signal.getsignal(signal.SIGINT)

    def interrupt(graph: str, done: int, total: int) -> None:
        if graph == "decoder" and done:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        plan_builder.build_plans(
            bundle, plan_builder.choose_builder(bundle, "l4"), progress=interrupt
        )
    assert list((bundle.path / PLANS).iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is before


def test_what_a_callback_raises_does_not_pass_through_tensorrt(
    bundles: Bundles, tmp_path: Path
) -> None:
    bundle = opened(bundles, "int4", tmp_path)

    def stumble(graph: str, done: int, total: int) -> None:
        raise RuntimeError("in the progress bar")

    with pytest.raises(RuntimeError, match="in the progress bar"):
        plan_builder.build_plans(
            bundle, plan_builder.choose_builder(bundle, "l4"), progress=stumble
        )
    assert list((bundle.path / PLANS).iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without room")
def test_a_disk_that_fills_up(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, write = opened(bundles, "int4", tmp_path), plan_builder.PlanWriter.write
    full = Path("/dev/full")
    monkeypatch.setattr(
        plan_builder.PlanWriter, "write", lambda self, _, profiles: write(self, full, profiles)
    )
    with pytest.raises(ExportError, match="No space left on device"):
        plan_builder.build_plans(bundle, plan_builder.choose_builder(bundle, "l4"))
    assert list((bundle.path / PLANS).iterdir()) == []


def test_a_graph_that_does_not_parse(bundles: Bundles, tmp_path: Path) -> None:
    bundle = opened(bundles, "int4", tmp_path)
    bundle.file(DECODER_GRAPH).write_bytes(b"no graph")
    with pytest.raises(
        ExportError, match=r"decoder.onnx: tensorrt_rtx .*: parse_from_file failed \(.+\)"
    ):
        plan_builder.build_plans(bundle, plan_builder.choose_builder(bundle, "l4"))


def test_from_the_command_line(bundles: Bundles, checkpoint: Path, tmp_path: Path) -> None:
    """Exported with plans for an L4; those for a Jetson are left to the device, which is said and
    no failure.
    """
    out = tmp_path / "out"
    command = [
        "export",
        str(checkpoint),
        str(out),
        "--target",
        "tensorrt",
        "--precision",
        "int4",
        "--force",
    ]
    done = CliRunner().invoke(cli, [*command, "--device", "l4", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["target"] == "standard"
    assert open_plans(open_bundle(out), KEY).index.prefill_rows == 512
    done = CliRunner().invoke(cli, [*command, "--device", "orin-nano"])
    assert done.exit_code == 0, done.output
    assert f"copy {out} to the device and run there: pulse-edge build out" in done.stderr
    assert not (out / PLANS).exists()
    done = CliRunner().invoke(cli, ["build", str(out), "--device", "l4", "--prefill-rows", "64"])
    assert done.exit_code == 0, done.output
    assert "peak memory about 30" in done.stderr
    assert open_plans(open_bundle(out), KEY).index.prefill_rows == 64
    refused = CliRunner().invoke(cli, ["build", str(out), "--device", "orin-nano"])
    assert isinstance(refused.exception, plan_builder.CannotBuildHere)
