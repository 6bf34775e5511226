"""A pytest plugin: which tests ran, whether they passed, and how long each took.

It writes what it saw to the file that `MUTANTS_TIMES` names. Under pytest-xdist the controller sees
the reports of all its workers.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

VARIABLE = "MUTANTS_TIMES"
_seconds: dict[str, float] = {}
_failed: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration
    if report.failed:
        _failed.add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if VARIABLE in os.environ and not hasattr(session.config, "workerinput"):
        record = {"seconds": _seconds, "failed": sorted(_failed)}
        Path(os.environ[VARIABLE]).write_text(json.dumps(record))
