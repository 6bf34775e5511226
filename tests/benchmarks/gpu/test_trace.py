"""benchmarks/gpu/trace.py: sums and gaps of known events, and a dry run without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.gpu import emit, trace

from support.paths import ROOT


def test_kernels_are_summed_by_name_for_each_step() -> None:
    one = [("a<1>(int)", 0.0, 10.0), ("void b(float)", 12.0, 15.0), ("void a<2>(int)", 15.0, 20.0)]
    two = [(name, start + 100, end + 100) for name, start, end in one]
    found = trace.summarize(two + one, 2)
    assert found.kernels == (trace.Kernel("a", 15.0, 2.0), trace.Kernel("b", 3.0, 1.0))
    assert found.busy_us == 18.0
    assert found.gaps_us == 2.0
    assert found.idle_us == 40.0  # 80 us between the two steps
    assert found.launches == 3.0


def test_what_overlaps_is_busy_once() -> None:
    """A copy on another stream."""
    events = [
        ("kernel", 0.0, 10.0),
        ("Memcpy HtoD (Pinned -> Device)", 2.0, 5.0),
        ("kernel", 11.0, 13.0),
    ]
    found = trace.summarize(events, 1)
    assert found.busy_us == 12.0
    assert found.gaps_us == 1.0
    assert [k.name for k in found.kernels] == ["kernel", "Memcpy HtoD"]


def test_nothing_is_zero() -> None:
    assert trace.summarize([], 4) == trace.Summary(0.0, 0.0, 0.0, 0.0, ())


def test_a_result_has_the_largest_kernels_and_the_sum_of_the_others() -> None:
    events = [(f"kernel_{n}", 100.0 * n, 100.0 * n + n) for n in range(1, 31)]
    kernels = trace.fields(trace.summarize(events, 1))["kernels"]
    assert len(kernels) == trace.LONGEST == 25
    assert kernels[0] == {"name": "kernel_30", "us": 30.0, "calls": 1.0}
    assert kernels[-1] == {"name": "6 others", "us": 21.0, "calls": 6.0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "void onnxruntime::cuda::MatMul4Bits<__half, 128, (bool)0>(__half*, int)",
            "onnxruntime::cuda::MatMul4Bits",
        ),
        ("void (anonymous namespace)::softmax<float>(float*)", "softmax"),
        ("sm90_xmma_gemm_f16f16_f16f32_f32_tn_n", "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n"),
        ("Memcpy DtoH (Device -> Pageable)", "Memcpy DtoH"),
        ("Memset (Device)", "Memset"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_f16>(T::Params)", "cutlass::Kernel2"),
    ],
)
def test_short_names(name: str, expected: str) -> None:
    assert trace.short(name) == expected


def test_graphs_that_are_not_broken_up_are_said_to_be() -> None:
    opaque = trace.Trace(
        [("CUDA graph", 0.0, 50.0), ("Memcpy DtoH (x)", 60.0, 61.0)], {"cudaGraphLaunch": 1}
    )
    assert "not the kernels" in trace.described(opaque, 1)["note"]
    broken = trace.Trace([(f"k{n}", n, n + 0.5) for n in range(9)], {"cudaGraphLaunch": 1})
    assert "note" not in trace.described(broken, 1)
    assert "nothing" in trace.described(trace.Trace([], {}), 1)["note"]


def test_only_steps_after_the_warm_up_are_traced() -> None:
    class Peer:
        def __init__(self) -> None:
            self.fed: list[int] = []

        def feed(self, tokens: list[int]) -> None:
            self.fed.append(len(tokens))

        def rewind(self, length: int) -> None:
            assert length == 0

    peer, before = Peer(), []

    def profile(work: Callable[[], object]) -> trace.Trace:
        before.append(len(peer.fed))
        work()
        return trace.Trace([("k", 0.0, 8.0)], {})

    _, result = trace.trace_step(peer, 30, profile)
    assert peer.fed == [30] + (trace.WARM + trace.TIMED + trace.STEPS) * [1]
    assert before == [1 + trace.WARM + trace.TIMED]
    assert result["busy_us"] == 2.0


def test_the_dry_run_prints_results_and_keeps_the_events(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu.trace",
        str(tmp_path),
        "--bundle",
        "none",
        "--dry-run",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    results = [emit.parse(line) for line in done.stdout.splitlines()]
    assert [r["result"] for r in results if r] == ["trace step", "trace step", "trace prefill"]
    step = results[0]
    assert step is not None
    assert step["depth"] == 0
    assert step["launches"] == 5
    assert step["kernels"][0]["name"] == "onnxruntime::MatMulFloat4BitsKernelM1"
    assert "note" not in step
    (path,) = tmp_path.glob("*-step-3000.json")
    assert len(json.loads(path.read_text())) == 5 * trace.STEPS


def test_without_a_gpu_the_last_line_says_so(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "benchmarks.gpu.trace", str(tmp_path), "--bundle", "none"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: torch sees no GPU"


def test_tensorrt_rtx_has_a_dry_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.tensorrt_rtx", str(tmp_path), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    results = [emit.parse(line) or {} for line in done.stdout.splitlines()]
    assert [(r["result"], r["outcome"]) for r in results] == 2 * [("tensorrt-rtx", "not tried")]


def test_a_library_that_ends_the_process_has_refused(tmp_path: Path) -> None:
    from benchmarks.gpu import tensorrt_rtx

    crash = (
        sys.executable,
        "-c",
        "import os, sys; print('unsupported SM', file=sys.stderr, flush=True); os.abort()",
    )
    answer = tensorrt_rtx.in_a_child(tmp_path, "current", crash)
    assert answer == {"outcome": "refused", "reason": "the process ended with -6: unsupported SM"}
    ran = (
        sys.executable,
        "-c",
        """print('chatter'); print('{"outcome": "ran", "step_ms": 1.0}')""",
    )
    assert tensorrt_rtx.in_a_child(tmp_path, "current", ran) == {"outcome": "ran", "step_ms": 1.0}
    error = (sys.executable, "-c", "raise ValueError('ours')")
    answer = tensorrt_rtx.in_a_child(tmp_path, "current", error)
    assert answer == {"outcome": "failed", "reason": "the process ended with 1: ValueError: ours"}
    with pytest.raises(SystemExit, match="ValueError: ours"):
        tensorrt_rtx.ask(tmp_path, lambda *_: answer)
