"""Which of many cases of a kind the default suite runs; the others are left to the slow one."""

from collections.abc import Iterable
from typing import Any

import pytest


def first_of(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """All cases, as parameters of a test; those not named as quick ones are marked slow. A tuple is several values."""
    cases = list(cases)
    assert set(quick) <= set(cases), f"there is no case {sorted(set(quick) - set(cases), key=str)}"
    return all_but(cases, *(case for case in cases if case not in quick))


def all_but(cases: Iterable[Any], *slow: Any) -> list[Any]:
    """All cases, as parameters of a test; those named are marked slow. A tuple is several values."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=[pytest.mark.slow] if case in slow else [])
        for case in cases
    ]
