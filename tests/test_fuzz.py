"""A short run of benchmarks/fuzz.py: damaged and strange inputs to every reader, and nothing foreign comes out."""

import sys
from pathlib import Path

import pytest
from hydra_samples import one_thread  # noqa: F401

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.parametrize(("inputs", "seed"), [(84, 11), pytest.param(2100, 12, marks=pytest.mark.slow)])
def test_nothing_foreign_comes_out_of_any_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: int, seed: int
) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from fuzz import fuzz  # type: ignore[import-not-found]

    counts, faults = fuzz(inputs, seed, tmp_path)
    assert not faults, "\n".join(faults)
    refused = counts.pop("refused")
    assert sum(counts.values()) == inputs and len(counts) == 21
    assert inputs // 2 < refused < inputs, "inputs are to be damaged, but not all beyond reading"
