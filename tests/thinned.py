"""Which of many cases of a kind the default suite runs; the others are left to the slow one."""

from collections.abc import Iterable
from typing import Any

import pytest


def first_of(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """All cases, as parameters of a test; those not named as quick ones are marked slow. A tuple is several values."""
    cases = list(cases)
    assert set(quick) <= set(cases), f"there is no case {sorted(set(quick) - set(cases), key=str)}"
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    marks = [() if case in quick else (pytest.mark.slow,) for case in cases]
    return [pytest.param(*value, marks=mark) for value, mark in zip(values, marks, strict=True)]
