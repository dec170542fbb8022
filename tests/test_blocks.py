"""The bound on what is worked on at a time changes memory, and nothing else."""

import tracemalloc

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_initialization_properties import ALL, HIDDEN, complete
from vector_samples import sample_inputs

from vocabtransfer import blocks, map_product
from vocabtransfer.blocks import BLOCK_BYTES, block_bytes, blocks_of, groups, row_blocks
from vocabtransfer.checkpoint.layout import VocabTensor
from vocabtransfer.initialization import METHODS, TransferInputs
from vocabtransfer.running.settings import running_with
from vocabtransfer.surgery.tables import NewTables
from vocabtransfer.token_map import TokenMap


class Stored:
    """A checkpoint of two tables, as far as rows are made from it."""

    def __init__(self, inputs: TransferInputs) -> None:
        assert inputs.tables is not None and inputs.tables.output is not None
        everything = np.arange(inputs.shape[1])
        self._tables = {part: inputs.tables.part(part)[everything] for part in ("input", "output")}
        self.layout = type("Layout", (), {"hidden": HIDDEN})

    def read(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._tables[name])


@pytest.fixture(scope="module")
def inputs() -> TransferInputs:
    return complete(sample_inputs())


@pytest.mark.parametrize("name", ALL)
def test_rows_do_not_depend_on_the_blocks(name: str, inputs: TransferInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "GROUP", 8)
    monkeypatch.setattr("vocabtransfer.surgery.tables.GROUP", 8)
    made = METHODS[name](inputs)
    tables = []
    for size in (1, 5 * 8 * 4 * HIDDEN, BLOCK_BYTES):
        new = NewTables(Stored(inputs), inputs, made, "none")  # type: ignore[arg-type]
        with blocks_of(size):
            parts = [new.whole(VocabTensor(part, part, 0)) for part in ("input", "output")]  # type: ignore[arg-type]
        tables.append(parts)
    for others in tables[1:]:
        assert all(torch.equal(one, other) for one, other in zip(tables[0], others, strict=True))


def test_rows_of_many_sources_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(0)
    targets, sources = np.nonzero(chance.random((40, 300)) < 0.2)
    made = TokenMap.from_pairs(targets, sources, (40, 300), "pieces")
    table = chance.standard_normal((300, 7)).astype(np.float32)
    asked: list[int] = []

    class Rows:
        def __getitem__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
            asked.append(len(ids))
            return table[ids]

    whole = made.apply(Rows())
    assert max(asked) > 250
    asked.clear()
    monkeypatch.setattr(map_product, "MOST_SOURCE_ROWS", 100)
    assert np.array_equal(made.apply(Rows()), whole)
    assert max(asked) <= 100


def test_memory_decides_the_blocks() -> None:
    assert block_bytes() == BLOCK_BYTES
    with running_with(memory=640):
        assert block_bytes() == 10
    with running_with(memory=10**12):
        assert block_bytes() == BLOCK_BYTES


def test_blocks_are_whole_groups() -> None:
    with blocks_of(3 * 1024 * 4 * 10):
        assert list(row_blocks(4000, 10)) == [(0, 3072), (3072, 4000)]
    assert list(groups(5, 2050)) == [(5, 1024), (1024, 2048), (2048, 2050)]
    assert list(row_blocks(0, 10)) == []


def test_making_rows_takes_no_second_table() -> None:
    rows, hidden = 40_000, 256
    sources = np.random.default_rng(0).integers(0, rows, (rows, 4))
    made = TokenMap.from_pairs(np.repeat(np.arange(rows), 4), sources.ravel(), (rows, rows), "pieces")
    stored = np.zeros((rows, hidden), np.float16)

    class Rows:
        def __getitem__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
            return stored[ids].astype(np.float32)

    tracemalloc.start()
    with blocks_of(1 << 20):
        for start, stop in row_blocks(rows, hidden):
            made.apply(Rows(), start, stop)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * rows * hidden / 3
