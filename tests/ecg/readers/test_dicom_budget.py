"""The budget of a file: elements, items, and levels of sequences."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from pulse_edge.ecg.readers.dicom_budget import ParseBudget


@pytest.mark.parametrize(("budget", "most"), [(ParseBudget(3), 3), (ParseBudget(), 100_000)])
def test_elements_up_to_a_number_are_read(budget: ParseBudget, most: int) -> None:
    for _ in range(most):
        budget.spend()
    with pytest.raises(ValueError, match="too many elements"):
        budget.spend()


@pytest.mark.parametrize(("budget", "most"), [(ParseBudget(9, 2), 2), (ParseBudget(), 16)])
def test_sequences_nest_to_a_depth(budget: ParseBudget, most: int) -> None:
    for _ in range(5 * most):  # one after the other, as many as there are
        with budget.nested():
            pass
    with ExitStack() as levels:
        for _ in range(most):
            levels.enter_context(budget.nested())
        with pytest.raises(ValueError, match="nest too deep"):
            levels.enter_context(budget.nested())
