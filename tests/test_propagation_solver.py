"""The fit: against QR-based least squares in float64, rank-deficient cases included, and from tables on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy import sparse

from vocabtransfer.checkpoint.tensors import read_shard
from vocabtransfer.propagation import tables
from vocabtransfer.propagation.solver import LinearMap, fit, solve
from vocabtransfer.propagation.tables import TableRows

Matrix = NDArray[np.float64]


def solved(x: Matrix, y: Matrix, ridge: float = 0.0) -> LinearMap:
    return solve(np.asfortranarray(x.T @ x), np.asfortranarray(x.T @ (y - x)), len(x), ridge)


def orthogonal(generator: np.random.Generator, size: int) -> Matrix:
    return np.linalg.qr(generator.standard_normal((size, size)))[0]


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 40), hidden=st.integers(1, 12), rank=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_the_map_is_the_least_squares_one(rows: int, hidden: int, rank: int, seed: int) -> None:
    """It fits as lstsq does; of all the minimisers it is the closest to the identity, so lstsq of the difference."""
    generator = np.random.default_rng(seed)
    rank = min(rank, rows, hidden)
    values = np.linspace(1, 3, rank)
    x = orthogonal(generator, rows)[:, :rank] * values @ orthogonal(generator, hidden)[:rank]
    y = generator.standard_normal((rows, hidden))
    found = solved(x, y)
    wanted = np.eye(hidden) + np.linalg.lstsq(x, y - x, rcond=None)[0]
    np.testing.assert_allclose(found.matrix, wanted, atol=1e-11)
    np.testing.assert_allclose(x @ found.matrix, x @ np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-11)
    assert (found.rank, found.rows) == (rank, rows)
    assert found.condition == pytest.approx(3.0 if rank > 1 else 1.0, rel=1e-6)
    assert found.distance == pytest.approx(np.linalg.norm(wanted - np.eye(hidden)) / hidden**0.5, abs=1e-10)


def test_directions_without_evidence_stay_as_they_are() -> None:
    x = np.random.default_rng(0).standard_normal((20, 6))
    x[:, 4:] = 0.0
    found = solved(x, x @ np.diag([2.0, 2, 2, 2, 5, 5]))
    assert found.rank == 4
    np.testing.assert_allclose(found.matrix, np.diag([2.0, 2, 2, 2, 1, 1]), atol=1e-12)


def test_equal_tables_give_exactly_the_identity() -> None:
    x = np.random.default_rng(0).standard_normal((30, 5))
    assert np.array_equal(solved(x, x).matrix, np.eye(5))
    empty = solved(np.zeros((3, 5)), np.zeros((3, 5)))
    assert np.array_equal(empty.matrix, np.eye(5)) and empty.rank == 0 and np.isinf(empty.condition)


@pytest.mark.parametrize("exponent", [1, 2, 3, 4, 5])
def test_what_normal_equations_lose(exponent: int) -> None:
    """Their error grows with the square of the condition, as the room's text says; nothing is cut off below 1e6."""
    generator = np.random.default_rng(exponent)
    condition = 10.0**exponent
    x = orthogonal(generator, 64)[:, :16] * np.geomspace(1, 1 / condition, 16) @ orthogonal(generator, 16)
    true = orthogonal(generator, 16)
    found = solved(x, x @ true)
    assert found.rank == 16
    assert found.condition == pytest.approx(condition, rel=1e-3)
    assert np.abs(found.matrix - true).max() < 50 * condition**2 * np.finfo(float).eps
    assert np.linalg.norm(x @ found.matrix - x @ true) < 50 * condition * np.finfo(float).eps * np.linalg.norm(x)


def test_the_ridge_pulls_to_the_identity() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.standard_normal((40, 6)), generator.standard_normal((40, 6))
    share = 0.3
    pull = np.sqrt(share * np.trace(x.T @ x) / 6) * np.eye(6)
    wanted = np.linalg.lstsq(np.vstack([x, pull]), np.vstack([y, pull]), rcond=None)[0]
    np.testing.assert_allclose(solved(x, y, share).matrix, wanted, atol=1e-12)
    np.testing.assert_allclose(solved(x, y, 1e12).matrix, np.eye(6), atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block", [1, 40, 1 << 23])
def test_a_fit_from_files(dtype: torch.dtype, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK_ELEMENTS", block)
    torch.manual_seed(0)
    held = {
        "pad": torch.zeros(3, dtype=torch.uint8),
        "x": torch.randn(50, 6).to(dtype),
        "y": torch.randn(50, 6).to(dtype),
    }
    save_file(held, tmp_path / "t.safetensors")
    infos = {info.name: info for info in read_shard(tmp_path / "t.safetensors").tensors}
    weights = sparse.csr_array(
        np.random.default_rng(0).random((30, 50)) * (np.random.default_rng(1).random((30, 50)) < 0.1)
    )
    found = fit(weights, TableRows(infos["x"]), TableRows(infos["y"]))
    x, y = weights @ held["x"].double().numpy(), weights @ held["y"].double().numpy()
    np.testing.assert_allclose(found.matrix, np.eye(6) + np.linalg.lstsq(x, y - x, rcond=None)[0], atol=1e-11)


def test_a_released_table_reads_the_same(tmp_path: Path) -> None:
    save_file({"x": torch.arange(12.0).reshape(4, 3), "b": torch.arange(4.0)[None]}, tmp_path / "t.safetensors")
    infos = {info.name: info for info in read_shard(tmp_path / "t.safetensors").tensors}
    table, bias = TableRows(infos["x"]), TableRows(infos["b"])
    before = table.take(np.array([3, 0]))
    table.release()
    assert np.array_equal(table.take(np.array([3, 0])), before) and before.tolist() == [[9, 10, 11], [0, 1, 2]]
    assert (bias.rows, bias.hidden) == (4, 1) and bias.take(np.array([2])).tolist() == [[2.0]]
