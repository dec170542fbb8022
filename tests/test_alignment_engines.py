"""Engines: results in order, little work ahead of its time, and what a dead worker leaves."""

import os
from collections.abc import Iterator

import pytest

from vocabtransfer.alignment.engines import open_engine
from vocabtransfer.errors import VocabTransferError


def test_a_dead_worker_is_one_sentence() -> None:
    with open_engine("local", 2) as engine, pytest.raises(VocabTransferError, match="a worker process died"):
        list(engine.map(os._exit, [(3,)]))


def test_results_come_in_order_and_few_tasks_are_ahead() -> None:
    taken: list[int] = []

    def tasks() -> Iterator[tuple[int, int]]:
        for number in range(20):
            taken.append(number)
            yield number, 2

    with open_engine("local", 2) as engine:
        results = engine.map(divmod, tasks())
        assert next(results) == (0, 0) and len(taken) <= 5
        assert list(results) == [divmod(number, 2) for number in range(1, 20)]
