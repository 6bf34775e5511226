"""Generation parameters: which values are legal, and how the others are refused."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any

import numpy as np
import pytest

import pulse_edge
from pulse_edge.errors import ParameterError
from pulse_edge.params import GenerationParams


@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("max_new_tokens", [0, -1, 1.0, True, "5", None, math.inf], "a whole number from 1"),
        (
            "temperature",
            [-0.1, 101, math.nan, math.inf, True, "1", None, 1j, np.complex64(1)],
            "from 0 to 100 (0 is greedy)",
        ),
        ("top_p", [0, -1, 1.01, math.nan, False, None, np.float32(math.nan)], "over 0, up to 1"),
        ("top_k", [-1, 1.5, True, None], "a whole number from 0 (0 is off)"),
        ("repetition_penalty", [0, -1, 101, math.nan, math.inf, True, "1"], "over 0"),
        ("seed", [-1, 0.5, True, None, "x"], "a whole number from 0"),
        ("speculate", [None, 1, "yes"], "True or False"),
        (
            "logprobs",
            [-1, 21, 1.0, True, False, "5", math.nan],
            "a whole number from 0 to 20, or None (off)",
        ),
        (
            "schema",
            ["", " \n", 5, b"{}", {}, {"type": "object"}, True, []],
            "a JSON schema as text, or None",
        ),
        (
            "stop",
            ["", [""], ["a", ""], [1], None, 5, b"ab", ["a", None]],
            "strings that are not empty",
        ),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, values: list[Any], wanted: str) -> None:
    for value in values:
        with pytest.raises(ParameterError, match=f"^{name} is .* must be {re.escape(wanted)}$"):
            GenerationParams(**{name: value})


def test_legal_bounds_are_accepted() -> None:
    GenerationParams(
        max_new_tokens=1, temperature=100, top_p=1, top_k=0, repetition_penalty=100, seed=0, stop=()
    )
    GenerationParams(
        logprobs=0,
        temperature=5e-324,
        top_p=5e-324,
        repetition_penalty=5e-324,
        seed=10**30,
        stop=("\n", " "),
    )


def test_one_stop_string_needs_no_list() -> None:
    assert GenerationParams(stop="abc").stop == ("abc",)  # type: ignore[arg-type]
    assert GenerationParams(stop=["abc", "d"]).stop == ("abc", "d")  # type: ignore[arg-type]
    assert GenerationParams(stop=(s for s in "ab")).stop == ("a", "b")  # type: ignore[arg-type]


def test_numpys_numbers_become_pythons() -> None:
    params = GenerationParams(
        max_new_tokens=np.int64(5),  # type: ignore[arg-type]
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        top_k=np.uint8(3),  # type: ignore[arg-type]
        top_p=np.float64(0.9),
        seed=np.uint64(2**64 - 1),  # type: ignore[arg-type]
        speculate=np.bool_(True),  # type: ignore[arg-type]
        logprobs=np.int8(20),  # type: ignore[arg-type]
    )
    assert json.loads(json.dumps(dataclasses.asdict(params)))["seed"] == 2**64 - 1
    kinds = {type(v) for v in dataclasses.asdict(params).values() if v is not None}
    assert kinds == {int, float, tuple, bool}


def test_unknown_parameters_are_refused_with_the_list(model: pulse_edge.Model) -> None:
    with pytest.raises(
        ParameterError, match="unknown parameter max_tokens, topp; there are max_new_tokens, temp"
    ):
        model.ask(None, "rate?", topp=0.5, max_tokens=5)
