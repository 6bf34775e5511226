"""Other tools' four bits, there and back."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from benchmarks.peers.int4_formats import INTEGER_ROWS, IntegerFormat


@pytest.mark.parametrize("name", INTEGER_ROWS)
def test_a_group_has_at_most_sixteen_values_near_its_weights(name: str) -> None:
    kind = INTEGER_ROWS[name]
    if problem := kind.problem(256):
        pytest.skip(problem)
    weight = np.random.default_rng(3).standard_normal((6, 256)).astype(np.float32)
    groups = kind.there_and_back(weight).reshape(-1, kind.group)
    plain = weight.reshape(-1, kind.group)
    for back, before in zip(groups, plain, strict=True):
        assert len(np.unique(back)) <= 16
        # Eight or fifteen steps between zero, or the least weight, and the greatest; a symmetric
        # format cuts the far end of one side by up to a step.
        step = np.abs(before).max() / 8 if kind.symmetric else np.ptp(before) / 15
        assert np.abs(back - before).max() <= 1.1 * step
        assert np.sqrt(np.mean((back - before) ** 2)) < 0.4 * step


def test_bytes_are_codes_scales_and_zero_points() -> None:
    weight = np.zeros((2, 256), np.float32)
    assert IntegerFormat("genai", 32).size(weight) == 256 + 16 * 2
    assert IntegerFormat("nncf", 64, symmetric=False).size(weight) == 256 + 8 * 2 + 4


def test_rows_that_groups_do_not_divide_are_left_out() -> None:
    assert IntegerFormat("genai", 32).problem(576) == ""
    assert IntegerFormat("genai", 128).problem(576) == "rows of 576, not multiples of 128"
