"""Compiled kernels: which a bundle needs, what names them, and where they are kept."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.cubins import CUBINS, compiled_for, cubin_folder, read_cubins
from pulse_edge.cli.registry import cli
from pulse_edge.engines.native import compiler
from pulse_edge.engines.native.compiler import Compiler, digest
from pulse_edge.engines.native.cubins import SHARED_KIB, build_kernels, find_cubins, needed_kernels
from pulse_edge.engines.native.kernels import EMBED, FOLDER, Kernel
from pulse_edge.errors import EngineError

from support.fake_cuda import FakeCuda


@pytest.fixture
def copied(decoder: Path, tmp_path: Path) -> Bundle:
    """A bundle that the test may change."""
    shutil.copytree(decoder, tmp_path / "bundle")
    return open_bundle(tmp_path / "bundle")


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what other tests have compiled."""
    monkeypatch.setattr("pulse_edge.engines.native.cubins.compiled", {})


def kernels_of(bundle: Bundle) -> list[Kernel]:
    return needed_kernels(bundle, SHARED_KIB[90] << 10, byte_cache=False)


def test_kernels_of_a_bundle(opened: Bundle) -> None:
    """One for each product, for one row and for several; the rest."""
    kernels = kernels_of(opened)
    assert len(kernels) == len(set(kernels))
    assert {kernel.entry for kernel in kernels} == {"embed", "gemv", "attention", "choose"}
    with_bytes = needed_kernels(opened, SHARED_KIB[90] << 10, byte_cache=True)
    assert {kernel.entry for kernel in with_bytes} > {"quantize_cache"}


def test_a_digest_names_all_that_code_is_made_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digests = {digest(EMBED, 90), digest(EMBED, 80)}
    digests.add(digest(Kernel("step.cu", "embed", (("THREADS", 128),), 128, 0), 90))
    sources = tmp_path / "kernels"
    shutil.copytree(FOLDER, sources)
    monkeypatch.setattr("pulse_edge.engines.native.compiler.FOLDER", sources)
    assert digest(EMBED, 90) in digests
    for name in ("step.cu", "common.cuh"):
        (sources / name).write_text((sources / name).read_text() + "\n")
        digests.add(digest(EMBED, 90))
    monkeypatch.setattr(compiler, "OPTIONS", ("--std=c++20",))
    digests.add(digest(EMBED, 90))
    assert len(digests) == 6


def test_kernels_are_compiled_once_a_process(cuda: FakeCuda, opened: Bundle) -> None:
    kernels = kernels_of(opened)
    first = find_cubins(opened, kernels, 90)
    assert list(first) == kernels
    assert find_cubins(opened, kernels, 90) == first
    assert cuda.nvrtc.compiled == len(kernels)


def test_built_kernels_are_found(
    cuda: FakeCuda, copied: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a compiler."""
    told = []
    built = build_kernels(copied, "sm90", lambda *step: told.append(step))
    assert built.folder == cubin_folder(copied, 90)
    assert built.compiler == "NVRTC 13.5"
    assert built.count == len(read_cubins(copied, 90)) == len(told) - 1
    assert compiled_for(copied) == ["native-sm90"]
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    kernels = kernels_of(copied)
    assert set(find_cubins(copied, kernels, 90)) == set(kernels)
    open_bundle(copied.path)  # the manifest does not list them
    with pytest.raises(EngineError, match=r"capability 8\.6 \(it has native-sm90\)"):
        find_cubins(copied, kernels, 86)


def test_kernels_of_other_sources_are_compiled_again(
    cuda: FakeCuda, copied: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build_kernels(copied, "sm90")
    before = cuda.nvrtc.compiled
    sources = tmp_path / "kernels"
    shutil.copytree(FOLDER, sources)
    (sources / "step.cu").write_text("// another version\n" + (sources / "step.cu").read_text())
    monkeypatch.setattr("pulse_edge.engines.native.compiler.FOLDER", sources)
    find_cubins(copied, kernels_of(copied), 90)
    assert cuda.nvrtc.compiled == before + 2  # embed and choose


@pytest.mark.parametrize("damage", ["altered", "missing", "index", "another"])
def test_damaged_kernels_are_refused(cuda: FakeCuda, copied: Bundle, damage: str) -> None:
    folder = build_kernels(copied, "sm90").folder
    cubin = min(folder.glob("*.cubin"))
    if damage == "altered":
        cubin.write_bytes(cubin.read_bytes()[:-1] + b"x")
    elif damage == "missing":
        cubin.unlink()
    elif damage == "index":
        (folder / CUBINS).write_text((folder / CUBINS).read_text().replace("NVRTC", "nvrtc"))
    else:
        folder.rename(cubin_folder(copied, 80))
    with pytest.raises(EngineError, match=r"build them again: pulse-edge build"):
        read_cubins(copied, 80 if damage == "another" else 90)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, opened: Bundle) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EngineError, match=r"holds no kernels .* pip install .*--device sm90"):
        find_cubins(opened, kernels_of(opened), 90)


def test_no_nvrtc(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise RuntimeError("no libnvrtc")

    monkeypatch.setattr(cuda.nvrtc, "nvrtcVersion", missing)
    with pytest.raises(EngineError, match=r"NVRTC is not installed \(no libnvrtc\); pip install"):
        Compiler()


def test_a_source_that_is_refused(cuda: FakeCuda) -> None:
    cuda.nvrtc.refusing = True
    with pytest.raises(EngineError, match=r"step\.cu for compute capability 9\.0: .*it is wrong"):
        Compiler().compile([EMBED], 90)


def test_gpus_that_the_kernels_are_not_for(
    cuda: FakeCuda, copied: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match="not made for sm70; they are for sm75, sm80"):
        build_kernels(copied, "sm70")
    monkeypatch.setattr("pulse_edge.engines.cuda_driver.compute_capability", lambda: None)
    with pytest.raises(EngineError, match="no GPU here; name one with --device: sm75"):
        build_kernels(copied)
    monkeypatch.setattr("pulse_edge.engines.cuda_driver.compute_capability", lambda: 86)
    assert build_kernels(copied).architecture == "sm86"


def test_the_command(cuda: FakeCuda, copied: Bundle, bundle: Path) -> None:
    run = CliRunner().invoke(cli, ["build", str(copied.path), "--device", "sm80"])
    assert run.exit_code == 0, run.output
    assert "kernels for sm80" in run.output
    run = CliRunner().invoke(cli, ["info", str(copied.path)])
    assert "native-sm80" in run.output
    assert "--engine native can decode it" in run.output
    rows = ["build", str(copied.path), "--prefill-rows", "9"]
    assert "is for TensorRT's plans" in CliRunner().invoke(cli, rows).output


def test_info_says_why_not(decoder: Path, copied: Bundle, tmp_path: Path) -> None:
    from pulse_export.pipeline import export

    from support import tiny

    export(tiny.make_checkpoint(tmp_path / "c"), tmp_path / "b", precision="fp16", target="cuda")
    run = CliRunner().invoke(cli, ["info", str(tmp_path / "b")])
    assert "--engine native cannot decode it: heads of 16 numbers" in run.output


@pytest.mark.parametrize("capability", [75, 90])
def test_nvrtc_compiles_a_bundles_kernels(opened: Bundle, capability: int) -> None:
    """The real one; it needs no GPU."""
    pytest.importorskip("cuda.bindings", reason="needs pulse-edge[native]")
    try:
        nvrtc = Compiler()
    except EngineError as error:
        pytest.skip(str(error))
    kernels = needed_kernels(opened, SHARED_KIB[capability] << 10, byte_cache=True)
    told: list[int] = []
    cubins = nvrtc.compile(kernels, capability, lambda _stage, done, _all: told.append(done))
    assert list(cubins) == kernels
    assert sum(told) == len(kernels)
    assert all(cubin.startswith(b"\x7fELF") for cubin in cubins.values())
    broken = Kernel("gemv.cu", "gemv", (("BLOCK", 100),), 32, 0)
    with pytest.raises(EngineError, match="unsupported BLOCK"):
        nvrtc.compile([broken], capability)
