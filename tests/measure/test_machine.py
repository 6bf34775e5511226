"""What a machine is: one class for what runs alike."""

from __future__ import annotations

from typing import Any

import pytest

from pulse_edge.measure.machine import machine_class, simd_name

EPYC: dict[str, Any] = {
    "name": "AMD EPYC",
    "architecture": "x86_64",
    "cpu": {"family": "25", "model": "1", "stepping": "1"},
    "usable_cores": 2,
    "simd": ["avx2"],
    "gpu": None,
}
H100 = "NVIDIA H100 80GB HBM3, 1980 MHz, 2619 MHz, 700.00 W"
OTHERS: list[dict[str, Any]] = [
    {"name": "AMD EPYC 7B13"},
    {"cpu": {"family": "25", "model": "17", "stepping": "1"}},
    {"cpu": {"family": "26", "model": "1", "stepping": "1"}},
    {"cpu": {"family": "25", "model": "1", "stepping": "2"}},
    {"simd": ["avx2", "avx512_vnni", "avx512f"]},
    {"usable_cores": 4},
    {"name": None},
]


@pytest.mark.parametrize("change", OTHERS)
def test_another_processor_is_another_class(change: dict[str, Any]) -> None:
    assert machine_class(EPYC | change, "cpu") != machine_class(EPYC, "cpu")


@pytest.mark.parametrize("field", ["load_average", "clock_now", "system", "memory"])
def test_what_varies_is_no_part_of_it(field: str) -> None:
    assert machine_class(EPYC | {field: 5}, "cpu") == machine_class(EPYC, "cpu")


def test_names() -> None:
    assert machine_class(EPYC, "cpu") == ("AMD EPYC (family 25 model 1 stepping 1, avx2, 2 cores)")
    old = EPYC | {"usable_cores": 1}
    del old["cpu"]
    assert machine_class(old, None) == "AMD EPYC (avx2, 1 core)"
    assert (
        machine_class(EPYC | {"name": None, "simd": [], "cpu": None}, "cpu") == "x86_64 (2 cores)"
    )


def test_a_gpu_is_the_machine_if_the_engine_ran_there() -> None:
    both = EPYC | {"gpu": H100}
    assert machine_class(both, "cuda") == "NVIDIA H100 80GB HBM3"
    slower = EPYC | {"gpu": H100.replace("1980", "1965")}
    assert machine_class(slower, "cuda") == "NVIDIA H100 80GB HBM3"
    assert machine_class(both, "cpu") == machine_class(EPYC, "cpu")
    assert machine_class(EPYC, "cuda") == machine_class(EPYC, "cpu")  # nobody told which GPU


def test_features_that_others_imply_are_left_out() -> None:
    assert simd_name(["avx2"]) == "avx2"
    zen4 = ["avx2", "avx512_bf16", "avx512_vnni", "avx512f"]
    assert simd_name(zen4) == "avx512_bf16 avx512_vnni"
    assert simd_name(["asimd", "i8mm"]) == "asimd i8mm"
