"""Alignment in shards on a real local Ray cluster of two workers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_alignment_aligner import CORPUS
from vocabtransfer_cli import main

from vocabtransfer.alignment import align_corpus
from vocabtransfer.alignment.engines import open_engine
from vocabtransfer.errors import UsageError, VocabTransferError

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'vocabtransfer[ray]'")
pytestmark = pytest.mark.slow


def test_a_cluster_gives_the_same_bytes_and_is_left_as_it_was(tmp_path: Path) -> None:
    align_corpus(CORPUS, shard_pairs=200, links=tmp_path / "links").save(tmp_path / "here.tsv")
    table = align_corpus(CORPUS, shard_pairs=200, links=tmp_path / "ray links", engine="ray", processes=2)
    table.save(tmp_path / "ray.tsv")
    assert (tmp_path / "ray.tsv").read_bytes() == (tmp_path / "here.tsv").read_bytes()
    assert (tmp_path / "ray links").read_bytes() == (tmp_path / "links").read_bytes()
    assert not ray.is_initialized()


def test_the_command_gives_the_same_bytes_on_two_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus.tsv"
    lines = (f"{' '.join(source)}\t{' '.join(target)}\n" for source, target in CORPUS[:600])
    corpus.write_text("".join(lines), encoding="utf-8")
    for engine in ("local", "ray"):
        table, links = tmp_path / f"{engine}.tsv", tmp_path / f"{engine}.links"
        words = ["align", corpus, "--target", "uzbek", "--output", table, "--links", links, "--shard-pairs", "100"]
        app = main.app
        assert (
            app(args=[*map(str, words), "--engine", engine, "--processes", "2", "--json"], standalone_mode=False)
            is None
        )
        assert json.loads(capsys.readouterr().out)["pairs"] == 600
    assert (tmp_path / "ray.tsv").read_bytes() == (tmp_path / "local.tsv").read_bytes()
    assert (tmp_path / "ray.links").read_bytes() == (tmp_path / "local.links").read_bytes()


def test_a_connected_cluster_is_used_and_stays() -> None:
    def halve(number: int, other: int) -> int:
        if number < 0:
            raise UsageError(f"task {number} is refused.")
        return number // other

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        begun: list[int] = []

        def tasks() -> Iterator[tuple[int, int]]:
            for number in range(12):
                begun.append(number)
                yield number, 2

        with open_engine("ray", 1) as engine:
            results = engine.map(halve, tasks())
            assert next(results) == 0 and len(begun) <= 5  # two workers: four tasks ahead
            assert list(results) == [number // 2 for number in range(1, 12)]
            with pytest.raises(VocabTransferError, match="task -7 is refused"):
                list(engine.map(halve, [(-7, 2)]))
        assert ray.is_initialized()
    finally:
        ray.shutdown()
