"""Alignment in shards: one model whatever the shards, the same bytes whoever works, and work that goes on after a kill."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress, TaskID
from test_alignment_aligner import CORPUS, GOLD, Links, error_rate, links_of
from thinned import first_of

from vocabtransfer.alignment import align, align_corpus, options, shard_steps, shards
from vocabtransfer.alignment.aligner_text import number_pairs
from vocabtransfer.alignment.options import AlignerOptions
from vocabtransfer.alignment.shard_files import MARKER, is_written, pack_words, text_fingerprint, unpack_words
from vocabtransfer.alignment.shard_kernels import look_up, merge_rows
from vocabtransfer.alignment.shards import Sharding, count_in_shards, default_processes, default_shard_pairs
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.progress import _display


def read_links(path: Path) -> list[Links]:
    lines = path.read_text().splitlines()
    return [{(int(i), int(j)) for i, j in (link.split("-") for link in line.split())} for line in lines]


def in_one_shard(folder: Path | None = None, size: int = 10**6) -> WordTable:
    return count_in_shards(
        CORPUS,
        AlignerOptions(),
        Sharding(size, folder),
        romanizer=None,
        dictionary=(),
        metadata={},
        links=None,
        words=None,
    )


def test_one_shard_is_the_aligner_itself() -> None:
    whole, shard = align(CORPUS).table(), in_one_shard()
    assert (shard.source_words, shard.target_words) == (whole.source_words, whole.target_words)
    assert (shard.source_totals == whole.source_totals).all() and (shard.target_totals == whole.target_totals).all()
    assert abs(shard.counts - whole.counts).max() < 0.01
    assert shard.metadata["pairs"] == whole.metadata["pairs"] == len(CORPUS)


@pytest.mark.parametrize("size", [700, 150])
def test_many_shards_are_one_model(tmp_path: Path, size: int) -> None:
    table = align_corpus(CORPUS, shard_pairs=size, links=tmp_path / "links")
    found = read_links(tmp_path / "links")
    assert len(found) == len(CORPUS)
    whole = align(CORPUS)
    assert error_rate(found, GOLD) < error_rate(links_of(whole), GOLD) + 0.01
    # Aligned on its own, each part knows far less.
    parts = [align(CORPUS[start : start + 150]) for start in range(0, len(CORPUS), 150)]
    alone = [links for part in parts for links in links_of(part)]
    assert error_rate(found, GOLD) < error_rate(alone, GOLD) - 0.02
    assert table.counts.sum() == pytest.approx(whole.table().counts.sum(), rel=0.02)


def test_shards_are_aligned_fast_where_there_are_many_pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chosen = align_corpus(CORPUS, shard_pairs=300, effort="fast", links=tmp_path / "links")
    assert "posterior, fast, shards of 300" in chosen.metadata["aligner"]
    assert error_rate(read_links(tmp_path / "links"), GOLD) < 0.12
    monkeypatch.setattr(options, "ACCURATE_PAIRS", len(CORPUS) - 1)
    by_size = align_corpus(CORPUS, shard_pairs=300)
    assert by_size.metadata == chosen.metadata and (by_size.counts != chosen.counts).nnz == 0


def test_a_shard_is_cut_where_its_sentences_are_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cells = sum(len(s) * len(t) for s, t in CORPUS)
    whole = in_one_shard(size=750)
    monkeypatch.setattr(shards, "SHARD_CELLS", cells // 8)
    cut = in_one_shard(size=750)
    assert cut.source_words == whole.source_words and (cut.source_totals == whole.source_totals).all()
    assert cut.metadata["pairs"] == len(CORPUS)
    assert cut.counts.sum() == pytest.approx(whole.counts.sum(), rel=0.02)


def test_counts_are_added_up_in_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = in_one_shard(size=300)
    monkeypatch.setattr(shards, "_CELLS_PER_PART", 10_000)
    parts = in_one_shard(size=300)
    whole.save(tmp_path / "whole.tsv")
    parts.save(tmp_path / "parts.tsv")
    assert (tmp_path / "whole.tsv").read_bytes() == (tmp_path / "parts.tsv").read_bytes()


SCRIPT = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from test_alignment_aligner import CORPUS
from vocabtransfer.alignment import align_corpus

if __name__ == "__main__":
    work = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    align_corpus(
        CORPUS, shard_pairs=200, processes=int(sys.argv[2]), work=work, links=sys.argv[1] + ".links"
    ).save(sys.argv[1])
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "count.py"
    path.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    return path


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The bytes of table and links as this process makes them."""
    folder = tmp_path_factory.mktemp("expected")
    align_corpus(CORPUS, shard_pairs=200, links=folder / "links").save(folder / "table.tsv")
    return (folder / "table.tsv").read_bytes(), (folder / "links").read_bytes()


@pytest.mark.parametrize(("threads", "processes", "seed"), first_of([("1", 1, "1"), ("2", 2, "2")], ("1", 1, "1")))
def test_the_same_bytes_on_any_number_of_threads_and_processes(
    tmp_path: Path, script: Path, expected: tuple[bytes, bytes], threads: str, processes: int, seed: str
) -> None:
    variables = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, "PYTHONHASHSEED": seed}
    command = [sys.executable, script, tmp_path / "t.tsv", str(processes)]
    subprocess.run(command, env={**os.environ, **variables}, check=True)
    assert (tmp_path / "t.tsv").read_bytes() == expected[0]
    assert (tmp_path / "t.tsv.links").read_bytes() == expected[1]


def test_a_killed_run_goes_on(tmp_path: Path, script: Path, expected: tuple[bytes, bytes]) -> None:
    work = tmp_path / "work"
    command = [sys.executable, script, tmp_path / "t.tsv", "1", work]
    process = subprocess.Popen(command)
    # Killed when the second round has begun: some shards are done, others are not.
    while process.poll() is None and not list(work.glob("run-*/round-2/[0-9]*.npz")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "t.tsv").exists() and (work / MARKER).exists()
    done = {path: path.stat().st_mtime_ns for path in work.glob("text/*.npz")}
    assert len(done) == 2 * 8 and all(is_written(path) for path in done)
    swept: list[Path] = []
    original = shards.sweep_shard

    def watched(plan: shard_steps.Plan, number: int, round_number: int) -> None:
        swept.append(plan.shard(number, f"round-{round_number}"))
        assert {path: path.stat().st_mtime_ns for path in done} == done  # nothing was numbered again
        original(plan, number, round_number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "sweep_shard", watched)
        align_corpus(CORPUS, shard_pairs=200, work=work, links=tmp_path / "links").save(tmp_path / "t.tsv")
    assert swept and all("round-1" not in str(path) for path in swept)
    assert ((tmp_path / "t.tsv").read_bytes(), (tmp_path / "links").read_bytes()) == expected
    assert not work.exists()


def test_workers_end_with_a_killed_leader_and_others_go_on(
    tmp_path: Path, script: Path, expected: tuple[bytes, bytes]
) -> None:
    work = tmp_path / "work"
    command = [sys.executable, script, tmp_path / "t.tsv", "2", work]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(work.glob("run-*/round-1/[0-9]*.npz")):
        time.sleep(0.002)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]
    align_corpus(CORPUS, shard_pairs=200, work=work, links=tmp_path / "links").save(tmp_path / "t.tsv")
    assert ((tmp_path / "t.tsv").read_bytes(), (tmp_path / "links").read_bytes()) == expected


def test_a_damaged_work_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = shards.reduce_part

    def spoil(plan: shard_steps.Plan, part: int, round_number: int) -> None:
        original(plan, part, round_number)
        path = plan.shard(1, f"round-{round_number}")
        path.write_bytes(path.read_bytes()[:-9])
        assert not is_written(path)

    monkeypatch.setattr(shards, "reduce_part", spoil)
    with pytest.raises(VocabTransferError, match=r"000001\.npz is damaged: remove the work folder"):
        align_corpus(CORPUS[:60], shard_pairs=20, work=tmp_path / "work")
    for path in (tmp_path / "work").glob("run-*/round-1/000001.npz"):
        path.unlink()
    monkeypatch.setattr(shards, "reduce_part", original)
    align_corpus(CORPUS[:60], shard_pairs=20, work=tmp_path / "work")  # it is made again from what is there


def test_other_options_do_not_reuse_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    work = tmp_path / "work"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shards, "link_lines", stop)
        align_corpus(CORPUS, shard_pairs=500, work=work, links=tmp_path / "links")
    table = align_corpus(CORPUS, shard_pairs=500, work=work, symmetrise="intersection")
    assert table.metadata["aligner"].split(", ")[1] == "intersection"
    fresh = align_corpus(CORPUS, shard_pairs=500, symmetrise="intersection")
    assert (table.counts != fresh.counts).nnz == 0


def test_a_work_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(VocabTransferError, match="holds other files"):
        align_corpus(CORPUS, shard_pairs=500, work=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(VocabTransferError, match=r"letter\.txt"):
        align_corpus(CORPUS, shard_pairs=500, work=tmp_path / "letter.txt" / "work")


def test_only_one_process_works_in_a_folder(tmp_path: Path) -> None:
    def pairs() -> Iterator[tuple[list[str], list[str]]]:
        yield from CORPUS[:11]
        with pytest.raises(VocabTransferError, match="another process works in"):
            align_corpus(CORPUS, shard_pairs=500, work=tmp_path / "work")
        yield from CORPUS[11:30]

    align_corpus(pairs(), shard_pairs=10, work=tmp_path / "work")


def test_odd_pairs_count_as_words_but_have_no_links(tmp_path: Path) -> None:
    odd = [([], ["a"]), (["a"] * 300, ["b"]), (["the"], []), ([], [])]
    # One shard has nothing but odd pairs.
    table = align_corpus([*CORPUS[:4], *odd, *CORPUS[4:80]], shard_pairs=4, links=tmp_path / "links")
    links = read_links(tmp_path / "links")
    assert len(links) == 84 and links[4:8] == [set()] * 4 and all(links[:4])
    assert table.source_totals[table.source_words.index("a")] == 300
    with pytest.raises(VocabTransferError, match="none of 8 sentence pairs has words on both sides"):
        align_corpus(odd * 2, shard_pairs=3)
    with pytest.raises(VocabTransferError, match="none of 0"):
        align_corpus([], shard_pairs=3)


def test_a_large_corpus_is_sharded_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from vocabtransfer.alignment import aligner

    monkeypatch.setattr(aligner, "PAIRS_IN_MEMORY", 100)
    assert "shards of 20000" in align_corpus(CORPUS[:101]).metadata["aligner"]
    assert "shards" not in align_corpus(CORPUS[:100]).metadata["aligner"]
    monkeypatch.setattr(aligner, "CELLS_IN_MEMORY", 100)
    assert "shards of 20000" in align_corpus(CORPUS[:50]).metadata["aligner"]


def test_shards_and_processes_follow_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 1 << 40

    monkeypatch.setattr(shards.psutil, "virtual_memory", lambda: Memory)
    monkeypatch.setattr(shards.psutil, "cpu_count", lambda logical=True: 8)
    assert (default_processes(), default_shard_pairs(8)) == (8, 20_000)
    Memory.available = 3 << 30
    assert default_processes() == 3
    Memory.available = 300 << 20
    assert default_processes() == 1 and default_shard_pairs(1) == 10_000
    Memory.available = 0
    assert default_processes() == 1 and default_shard_pairs(1) == 1_250


def test_options_out_of_range_are_refused() -> None:
    for wrong in ({"shard_pairs": 0}, {"processes": 0}, {"engine": "spark"}, {"symmetrise": "both"}):
        with pytest.raises(UsageError):
            align_corpus(CORPUS[:5], **wrong)
    with pytest.raises(UsageError, match="no option 'no_such_option'"):
        align_corpus(CORPUS[:5], no_such_option=1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(), max_size=6))
def test_words_are_packed_and_unpacked(words: list[str]) -> None:
    assert unpack_words(*pack_words(words).values()) == words


def test_fingerprints_tell_content_apart() -> None:
    different = [[("a b", "c")], [("a", "b c")], [(["a b"], ["c"])], [(["a", "b"], ["c"])], [("a b", "c")] * 2, []]
    assert len({text_fingerprint(pairs) for pairs in different}) == len(different)
    assert text_fingerprint([("a", "b")]) == text_fingerprint([("a", "b")])


ENTRIES = st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 40)), st.floats(0.5, 9), max_size=60)


@settings(max_examples=60, deadline=None)
@given(st.lists(ENTRIES, min_size=1, max_size=4), st.integers(0, 5))
def test_rows_are_merged_and_found_again(parts: list[dict[tuple[int, int], float]], cut: int) -> None:
    """Sums over shards, made in two parts, are found for the pairs that a shard asks about."""
    sums = np.zeros((6, 41))
    ordered = [sorted(part.items()) for part in parts]
    for part in ordered:
        for (row, column), value in part:
            sums[row, column] += value
    wanted = np.array([(row, column) for row in range(6) for column in range(40, -1, -3)])
    row = np.searchsorted(wanted[:, 0], np.arange(7))
    counts = np.zeros((len(wanted), 2))
    for first, last in ((0, cut), (cut, 6)):
        inside = [[entry for entry in part if first <= entry[0][0] < last] for part in ordered]
        flat = [entry for part in inside for entry in part]
        places = np.array([place for place, _ in flat], dtype=np.int32).reshape(-1, 2)
        values = np.array([value for _, value in flat])
        bounds = np.concatenate([[0], np.cumsum([len(part) for part in inside])]).astype(np.int64)
        both = np.stack([values, -values], axis=1)
        merged = merge_rows(bounds, places[:, 0].copy(), places[:, 1].copy(), both, first, last, 41)
        assert all((np.diff(merged[1][a:b]) > 0).all() for a, b in zip(merged[0][:-1], merged[0][1:], strict=True))
        look_up(row.astype(np.int64), wanted[:, 1].astype(np.int32), first, *merged, 41, counts)
    np.testing.assert_allclose(counts[:, 0], sums[wanted[:, 0], wanted[:, 1]])
    np.testing.assert_allclose(counts[:, 1], -counts[:, 0])


def test_numbering_a_shard_keeps_its_text(tmp_path: Path) -> None:
    facts = shard_steps.number_shard(tmp_path, "x", CORPUS[:50], 400)
    assert len(facts) > 2 and sum(fact.pairs for fact in facts) == 50
    assert shard_steps.numbered_shards(tmp_path, "x") == facts
    source, _ = number_pairs(CORPUS[:50])
    read = []
    for fact in facts:
        with np.load(tmp_path / f"{fact.name}.npz") as text:
            words = unpack_words(text["source_letters"], text["source_sizes"])
            bounds = text["source_starts"].tolist()
            read += [[words[k] for k in text["source_ids"][a:b]] for a, b in pairwise(bounds)]
    assert read == [source.sentence(number) for number in range(50)]
    (tmp_path / f"{facts[1].name}.npz").write_bytes(b"PK")
    assert shard_steps.numbered_shards(tmp_path, "x") is None


def test_every_round_shows_its_progress() -> None:
    seen: dict[str, tuple[float | None, float]] = {}

    class Watched(Progress):
        def remove_task(self, task_id: TaskID) -> None:
            task = self.tasks[self.task_ids.index(task_id)]
            seen[task.description] = (task.total, task.completed)
            super().remove_task(task_id)

    token = _display.set(Watched(console=Console(file=io.StringIO())))
    try:
        align_corpus(CORPUS[:100], shard_pairs=30)
    finally:
        _display.reset(token)
    assert seen["reading sentence pairs"][1] == 100
    assert [seen[f"aligning words, round {number} of 5"] for number in range(1, 6)] == [(4, 4)] * 5
    assert seen["counting words"] == (4, 4)


MEASURED = """
import resource, sys
sys.path[:0] = [{tests!r}]
from test_alignment_aligner import CORPUS
from vocabtransfer.alignment import align_corpus

def pairs(count):
    for number in range(count):
        source, target = CORPUS[number % len(CORPUS)]
        yield source[number % 3 :] or source, target  # not the same lines again and again

table = align_corpus(pairs(int(sys.argv[1])), shard_pairs=5000, links=sys.argv[2])
assert table.metadata["pairs"] == int(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    peaks = []
    for count in (20_000, 200_000):
        command = [sys.executable, "-c", MEASURED.format(tests=str(Path(__file__).parent)), str(count), tmp_path / "l"]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] < peaks[0] + 60_000  # kilobytes; the text alone is more than 100 MB
