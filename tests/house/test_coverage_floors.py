"""Each room has a floor of branch coverage, which `make coverage` checks."""

from __future__ import annotations

import pytest

from support.paths import ROOT

pytest.importorskip("coverage")
from support import coverage_floors


def test_every_room_has_a_floor() -> None:
    roots = (ROOT / "pulse_edge", ROOT / "export" / "pulse_export")
    files = [path for root in roots for path in root.rglob("*.py")]
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in files}
    assert rooms == coverage_floors.FLOORS.keys(), "complete FLOORS in support/coverage_floors.py"


def test_a_room_below_its_floor_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    room = coverage_floors.Room()
    room.add({"num_statements": 9, "covered_lines": 6, "num_branches": 4, "covered_branches": 3})
    monkeypatch.setattr(coverage_floors, "measured", lambda: {"pulse_edge/text": room})
    for floor, code in ((75, 0), (76, 1)):
        monkeypatch.setattr(coverage_floors, "FLOORS", {"pulse_edge/text": floor})
        assert coverage_floors.main() == code
    monkeypatch.setattr(coverage_floors, "FLOORS", {})
    assert coverage_floors.main() == 1, "a room without a floor"
    assert "66.7%     75.0%     76  LOW" in capsys.readouterr().out
