"""`pulse-edge build --tune` of a bundle for CPUs: which engine `--engine auto` takes here."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cli.main import main
from pulse_edge.engines import faster
from pulse_edge.measure import rivals


def ran(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("speeds", "engine"),
    [
        ({"onnxruntime": 3.0, "openvino": 2.0}, "openvino"),
        ({"onnxruntime": 2.0, "openvino": 3.0}, "onnxruntime"),
    ],
)
def test_it_says_and_remembers_which_is_faster(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    speeds: dict[str, float],
    engine: str,
) -> None:
    monkeypatch.setattr(faster, "RIVALS", {"onnxruntime": "onnxruntime", "openvino": "numpy"})
    monkeypatch.setattr(rivals, "measure_rivals", lambda *_, **__: speeds)
    assert ran("info", bundle) == 0
    assert "--engine auto takes" not in capsys.readouterr().out
    assert ran("build", bundle, "--tune") == 0
    shown = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()) for line in shown[:2]] == [
        f"{name} {seconds:.1f} s for a page and an answer" for name, seconds in speeds.items()
    ]
    assert shown[2:] == [f"{bundle}: --engine auto takes {engine} here"]
    assert faster.measured_speeds(open_bundle(bundle)) == speeds
    assert ran("info", bundle) == 0
    (line,) = (n for n in capsys.readouterr().out.splitlines() if n.startswith("engine "))
    first, second = speeds.values()
    assert line == (
        f"engine       --engine auto takes {engine} here; "
        f"a page and an answer: onnxruntime {first:.1f} s, openvino {second:.1f} s"
    )


def test_with_one_engine_it_says_how_to_get_another(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(faster, "RIVALS", {"onnxruntime": "onnxruntime"})
    monkeypatch.setattr(rivals, "measure_rivals", lambda *_, **__: {"onnxruntime": 2.0})
    assert ran("build", bundle, "--tune") == 0
    out = capsys.readouterr().out
    assert "nothing to compare; for another engine: pip install 'pulse-edge[openvino]'" in out
    assert f"{bundle}: --engine auto takes onnxruntime here" in out


@pytest.mark.parametrize("option", [("--device", "sm90"), ("--prefill-rows", "512")])
def test_what_a_cpu_has_no_use_for(
    bundle: Path, option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran("build", bundle, "--tune", *option) == 2
    assert "--tune of a bundle for CPUs measures this machine alone" in capsys.readouterr().err
