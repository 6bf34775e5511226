"""`pulse-edge ask --strict`: warnings of the page's checks as an exit code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pulse_edge.answer import Answer
from pulse_edge.cli.answers import checks_line
from pulse_edge.cli.ask import refuse_warnings
from pulse_edge.errors import PageCheckError
from pulse_edge.page.check import PageCheck


def answer(*checks: PageCheck) -> Answer:
    """An answer about a page with these checks."""
    return cast(Answer, SimpleNamespace(checks=checks))


def check(name: str, status: Any, value: float | None = 4.25) -> PageCheck:
    return PageCheck(name, status, value, "deg", "The page is turned.", "Half turns.")


def test_a_warning_ends_with_code_15_and_its_name() -> None:
    with pytest.raises(PageCheckError, match="warn: blur, skew;") as error:
        refuse_warnings([answer(check("skew", "warn")), answer(check("blur", "warn"))], True)
    assert error.value.exit_code == 15


@pytest.mark.parametrize("status", ["ok", "unknown"])
def test_other_results_are_no_failure(status: str) -> None:
    refuse_warnings([answer(check("skew", status))], True)


def test_without_the_option_a_warning_is_no_failure() -> None:
    refuse_warnings([answer(check("skew", "warn"))], False)


def test_the_line_has_number_and_unit() -> None:
    checks = (check("skew", "warn"), check("blur", "unknown", None), check("crop", "ok"))
    line = checks_line(answer(*checks))
    assert line == "page: 1 of 3 checks ok; skew warn (4.25 deg); blur unknown"
