"""Which library builds plans for which device, and what stops a build. No TensorRT is needed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from support.fixture_types import Bundles

pytest.importorskip("onnx", "1.19", reason="opset 24 is written by onnx 1.19 and newer")

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH
from pulse_edge.bundle.plans import (
    PlanKey,
)
from pulse_edge.bundle.sealed_folder import PLANS
from pulse_edge.cli import cli
from pulse_edge.engines.chunk import plan_rows, scratch
from pulse_edge.errors import ExportError
from pulse_edge.measure.devices import PLAN_DEVICES
from pulse_export.plan import builder as plan_builder

KEY = PlanKey("tensorrt", "10.16.1", 87)


@pytest.fixture
def bundle(bundles: Bundles, tmp_path: Path) -> Bundle:
    copy = tmp_path / "bundle"
    shutil.copytree(bundles("int8", None, "standard"), copy)
    return open_bundle(copy)


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `tensorrt` for the GPU that is here, an Orin, and a `tensorrt_rtx` that builds for SM86 and
    SM89.
    """
    kinds = SimpleNamespace(SM86=0, SM89=1, __members__={"NONE": 0, "SM86": 1, "SM89": 2})
    fakes = {
        "tensorrt": SimpleNamespace(__version__="10.16.1", IKVCacheUpdateLayer=None),
        "tensorrt_rtx": SimpleNamespace(
            __version__="1.7.1", IKVCacheUpdateLayer=None, ComputeCapability=kinds
        ),
    }
    monkeypatch.setattr(plan_builder, "load_library", fakes.__getitem__)
    monkeypatch.setattr(plan_builder, "Cuda", Orin)


def with_context(bundle: Bundle, context: int) -> Bundle:
    model = bundle.manifest.model
    wide = replace(model, text=replace(model.text, context=context))
    return replace(bundle, manifest=replace(bundle.manifest, model=wide))


class Orin:
    """An Orin NX of 16 GB, as `engines.cuda_runtime.Cuda`."""

    def __call__(self, name: str) -> tuple[int, int]:
        assert name == "cudaMemGetInfo"
        return 9 << 30, int(15.6 * (1 << 30))  # free, total

    def capability(self) -> int:
        return 87

    def integrated(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("device", "expected", "rows"),
    [
        (None, KEY, 2048),
        ("orin-nano", KEY, 512),
        ("l4", PlanKey("tensorrt_rtx", "1.7.1", 89), 2048),
    ],
)
@pytest.mark.usefixtures("libraries")
def test_which_library_builds(
    bundle: Bundle,
    device: str | None,
    expected: PlanKey,
    rows: int,
) -> None:
    """A named device has its own memory, also where this GPU builds for it: plans run there."""
    builder = plan_builder.choose_builder(bundle, device)
    ahead = expected.library == "tensorrt_rtx"
    assert (builder.key, builder.ahead, builder.shared) == (expected, ahead, not ahead)
    assert plan_builder.rows_of(with_context(bundle, 4096), builder) == rows
    weights = bundle.file(f"{DECODER_GRAPH}.data").stat().st_size
    fixed = 300e6 + 2 * weights + builder.shared * weights
    for asked in (64, 512):
        activations = builder.shared * scratch(bundle.manifest.model.text, asked)
        assert plan_builder.expected_memory(bundle, builder, asked) == fixed + activations


GIB = 1 << 30


def test_rows_of_a_prompt(bundle: Bundle) -> None:
    """Those that were asked for before the device's, and no more than the context."""
    opened = with_context(bundle, 4096)
    builder = plan_builder.Builder(None, KEY, ahead=False, memory=64 * GIB)
    assert plan_builder.rows_of(opened, builder) == 2048
    assert plan_builder.rows_of(opened, builder, 64) == 64
    assert plan_builder.rows_of(opened, replace(builder, memory=None)) == 512
    assert plan_builder.rows_of(bundle, builder) == bundle.manifest.model.text.context < 2048


def test_every_device_has_a_memory() -> None:
    rows = {name: plan_rows(device.memory) for name, device in PLAN_DEVICES.items()}
    large = {name for name in rows if rows[name] == 2048}
    assert large >= {"t4", "l4", "a10", "a100", "h100", "agx-orin", "agx-thor"}
    assert not large & {"orin-nano", "orin-nx", "rtx30", "rtx40"}  # the smallest of that name


@pytest.mark.usefixtures("libraries")
def test_the_rows_are_shown(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_builder, "free_memory", lambda: 10**8)
    for arguments, rows in (([], "512"), (["--prefill-rows", "64"], "64")):
        done = CliRunner().invoke(cli, ["build", str(bundle.path), *arguments])
        assert isinstance(done.exception, ExportError)
        assert f"building for {KEY}, prompts by {rows} tokens; peak memory about 30" in done.output


@pytest.mark.usefixtures("libraries")
def test_a_device_that_none_builds_for(bundle: Bundle) -> None:
    with pytest.raises(
        plan_builder.CannotBuildHere,
        match=r"h100 \(compute capability 9.0\).*SM86, SM89; copy .* to the dev",
    ):
        plan_builder.choose_builder(bundle, "h100")


@pytest.mark.usefixtures("libraries")
def test_too_little_memory_is_said_beforehand(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_builder, "free_memory", lambda: 10**8)
    with pytest.raises(ExportError, match=r"needs about 0.3 GB of memory, 0.1 GB are free"):
        plan_builder.build_plans(bundle, plan_builder.choose_builder(bundle))
    assert not (bundle.path / PLANS).exists()


@pytest.mark.usefixtures("libraries")
def test_too_little_disk_is_said_beforehand(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_builder, "free_disk", lambda _: 10**4)
    with pytest.raises(
        ExportError, match=r"its plans take about 0.0 GB, 0.0 GB of the disk are free"
    ):
        plan_builder.build_plans(bundle, plan_builder.choose_builder(bundle))
    assert not (bundle.path / PLANS).exists()


@pytest.mark.usefixtures("libraries")
def test_a_bundle_for_another_target(bundles: Bundles) -> None:
    for opened in (open_bundle(bundles()), open_bundle(bundles("fp32", None, "standard"))):
        with pytest.raises(
            ExportError, match=r"is not for TensorRT; .*--target tensorrt --precision fp16"
        ):
            plan_builder.build_plans(opened, plan_builder.choose_builder(opened))


# --- the context of an export ---------------------------------------------------------------------


def test_a_shorter_context(checkpoint: Path, tmp_path: Path) -> None:
    command = [
        "export",
        str(checkpoint),
        str(tmp_path / "out"),
        "--target",
        "standard",
        "--precision",
        "int4",
    ]
    assert CliRunner().invoke(cli, [*command, "--context", "128"]).exit_code == 0
    assert open_bundle(tmp_path / "out").manifest.model.text.context == 128
    refused = CliRunner().invoke(cli, [*command, "--force", "--context", "100000"])
    assert "context 100000 must be from 1 to the model's 512" in str(refused.exception)


def test_command_line_mistakes(checkpoint: Path, bundle: Bundle, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert (
        CliRunner().invoke(cli, ["export", str(checkpoint), out, "--device", "l4"]).exit_code == 2
    )
    for command in (
        ["export", str(checkpoint), out, "--target", "tensorrt"],
        ["build", str(bundle.path)],
    ):
        refused = CliRunner().invoke(cli, [*command, "--device", "tpu"])
        assert refused.exit_code == 2
        assert "device 'tpu' is not one of orin-nano-4gb, " in refused.output
    assert not Path(out).exists()
