"""The options of an export: one home for every legal value, and an error that names it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from typing import Any, get_args, get_type_hints

import pytest

from pulse_edge.bundle.manifest import TargetName
from pulse_edge.errors import ExportError
from pulse_export.chat_template import TEMPLATES
from pulse_export.options import ExportOptions, OptionValues, options_from_keywords
from pulse_export.quantize.precision import BLOCK_SIZES, CACHES, HEADS, PRECISIONS, STORAGES, TOWERS
from pulse_export.quantize.recipe import Recipe
from pulse_export.targets.registry import TARGETS

from support.paths import ROOT


def test_keywords_are_the_fields() -> None:
    """`export(..., precision=...)` is typed by a record of its own, which must not drift."""
    assert get_type_hints(OptionValues) == get_type_hints(ExportOptions)


def test_every_field_says_what_it_is() -> None:
    for field in fields(ExportOptions):
        assert field.metadata["help"].endswith((".", "]"))


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("precision", PRECISIONS),
        ("target", TARGETS),
        ("block_size", BLOCK_SIZES),
        ("cache", CACHES),
        ("head", HEADS),
        ("tower", TOWERS),
        ("template", TEMPLATES),
    ],
)
def test_choices_are_the_tables(name: str, table: Any) -> None:
    assert ExportOptions.choices(name) == tuple(table)


def test_targets_are_those_of_the_manifest() -> None:
    assert tuple(TARGETS) == get_args(TargetName)


def test_reading_the_options_loads_no_library() -> None:
    """A command reads fields and choices to make its own options, also where onnx is missing."""
    script = """
import sys
import pulse_export, pulse_export.options
print({"onnx", "numpy", "rich"} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": "export:."},
        cwd=ROOT,
        check=True,
    )
    assert done.stdout == "set()\n"


def test_options_are_checked_where_they_are_made() -> None:
    pytest.importorskip("onnx", reason="targets need pulse-edge[export]")
    with pytest.raises(
        ExportError, match="precision 'int3' is not one of fp32, fp16, int8, int4, w8a8"
    ):
        ExportOptions(precision="int3")
    with pytest.raises(ExportError, match="context 0 must be a whole number from 1"):
        ExportOptions(context=0)
    with pytest.raises(ExportError, match="takes no calibration data"):
        ExportOptions(precision="fp32", calibration=Recipe())
    with pytest.raises(FrozenInstanceError):
        ExportOptions().precision = "int4"  # type: ignore[misc]


def test_keywords_go_over_options() -> None:
    pytest.importorskip("onnx", reason="targets need pulse-edge[export]")
    made = options_from_keywords(ExportOptions(precision="int4", context=64), {"context": 32})
    assert made == ExportOptions(precision="int4", context=32)
    with pytest.raises(
        TypeError, match="no option 'nonsense'; its options are precision, target, block_size"
    ):
        options_from_keywords(None, {"nonsense": 4})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_target_runs_every_precision(name: str) -> None:
    """A row of the table can be exported: its storages are known, and some target runs them."""
    pytest.importorskip("onnx", reason="targets need pulse-edge[export]")
    assert PRECISIONS[name].storages <= STORAGES.keys()
    runs = []
    for target in TARGETS:
        try:
            ExportOptions(precision=name, target=target)
        except ExportError:
            continue
        runs.append(target)
    assert runs


def test_the_public_names_are_there() -> None:
    pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
    import pulse_export

    for name in pulse_export.__all__:
        assert getattr(pulse_export, name)
    assert callable(pulse_export.verify.compare)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        pulse_export.nonsense  # noqa: B018
