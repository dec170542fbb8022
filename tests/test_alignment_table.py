"""Word tables: what is saved comes back, bad files are refused by line, sums and cuts are right."""

import gzip
import lzma
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from thinned import first_of

from vocabtransfer.alignment import table as table_module
from vocabtransfer.alignment import table_file
from vocabtransfer.alignment.table import FORMAT, SUFFIXES, WordTable, merge_tables, shipped_table
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.text_files import open_lines
from vocabtransfer.languages import find_language

WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=6)
HEADER = f'# {{"format": "{FORMAT}", "source": "en", "target": "tt"}}\n'


@st.composite
def tables(draw: st.DrawFn) -> WordTable:
    sources = draw(st.lists(WORDS, min_size=1, max_size=6, unique=True))
    targets = draw(st.lists(WORDS, min_size=1, max_size=6, unique=True))
    places = st.tuples(st.integers(0, len(sources) - 1), st.integers(0, len(targets) - 1))
    numbers = st.floats(0.01, 1e6)
    links = draw(st.dictionaries(places, numbers, max_size=12))
    source, target = (np.array([place[side] for place in links], dtype=np.int64) for side in (0, 1))
    totals = (np.array(draw(st.lists(numbers, min_size=n, max_size=n))) for n in (len(sources), len(targets)))
    counts = np.array(list(links.values()), dtype=np.float64)
    metadata = {"source": "en", "target": "tt", "pairs": draw(st.integers(1, 10**9)), "licence": "Ülgү\n"}
    return WordTable.from_pairs(sources, targets, (source, target, counts), *totals, metadata)


def as_dict(table: WordTable) -> dict[tuple[str, str], float]:
    links = table.counts.tocoo()
    return {
        (table.source_words[column], table.target_words[row]): float(count)
        for row, column, count in zip(*links.coords, links.data, strict=True)
    }


def small_table() -> WordTable:
    links = (np.array([0, 0, 1, 2]), np.array([1, 0, 0, 2]), np.array([5.0, 1.0, 8.0, 0.5]))
    metadata = {"source": "en", "target": "tt", "pairs": 10}
    sources, targets = ["house", "book", "the"], ["китап", "өй", "ул"]
    return WordTable.from_pairs(
        sources, targets, links, np.array([6.0, 9.0, 100.0]), np.array([9.0, 6.0, 50.0]), metadata
    )


def test_words_are_sorted_and_counts_follow_them() -> None:
    table = small_table()
    assert table.source_words == ("book", "house", "the")
    assert table.target_words == ("китап", "ул", "өй")
    assert as_dict(table) == {("house", "өй"): 5, ("house", "китап"): 1, ("book", "китап"): 8, ("the", "ул"): 0.5}
    assert table.source_totals.tolist() == [9, 6, 100]
    assert table.target_totals.tolist() == [9, 50, 6]
    assert table.counts.shape == (3, 3) and table.counts.dtype == table.source_totals.dtype == np.float32


def test_lookup_lists_candidates_by_count() -> None:
    assert small_table().lookup("китап") == [("book", 8.0), ("house", 1.0)]
    assert small_table().flip().lookup("house") == [("өй", 5.0), ("китап", 1.0)]
    assert small_table().lookup("юк") == []


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(SUFFIXES))
def test_a_saved_table_comes_back(tmp_path_factory: pytest.TempPathFactory, table: WordTable, suffix: str) -> None:
    folder = tmp_path_factory.mktemp("tables")
    table.save(folder / f"a{suffix}")
    loaded = WordTable.load(folder / f"a{suffix}")
    assert loaded.source_words == table.source_words and loaded.target_words == table.target_words
    assert loaded.metadata == table.metadata
    assert as_dict(loaded).keys() == as_dict(table).keys()
    for one, other in ((loaded.counts.data, table.counts.data), (loaded.source_totals, table.source_totals)):
        np.testing.assert_allclose(one, other, rtol=0.005001)
    np.testing.assert_allclose(loaded.target_totals, table.target_totals, rtol=0.005001)
    loaded.save(folder / f"b{suffix}")
    assert (folder / f"a{suffix}").read_bytes() == (folder / f"b{suffix}").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == [f"a{suffix}", f"b{suffix}"]


def test_the_file_is_readable_text_with_short_numbers(tmp_path: Path) -> None:
    table = small_table()
    table.save(tmp_path / "t.tsv.gz")
    lines = gzip.decompress((tmp_path / "t.tsv.gz").read_bytes()).decode().splitlines()
    assert lines[0] == f'# {{"format": "{FORMAT}", "pairs": 10, "source": "en", "target": "tt"}}'
    assert lines[1:] == sorted(lines[1:])
    assert "\tул\t50" in lines and "the\t\t100" in lines and "the\tул\t0.5" in lines
    counted = WordTable.from_pairs(
        ["a"], ["b"], (np.array([0]), np.array([0]), np.array([12345.6])), *[np.array([2e6])] * 2
    )
    counted.save(tmp_path / "n.tsv")
    assert (tmp_path / "n.tsv").read_text().splitlines()[1:] == ["\tb\t2000000", "a\t\t2000000", "a\tb\t12300"]


@settings(max_examples=60, deadline=None)
@given(tables(), tables(), st.floats(0.1, 10))
def test_merging_adds_up_words_and_counts(first: WordTable, second: WordTable, weight: float) -> None:
    merged = merge_tables([first, second], [1.0, weight])
    one, other = as_dict(first), as_dict(second)
    wanted = {pair: one.get(pair, 0) + weight * other.get(pair, 0) for pair in one.keys() | other.keys()}
    assert as_dict(merged) == pytest.approx(wanted, rel=1e-5)
    for side in ("source", "target"):
        words = [
            dict(zip(getattr(t, f"{side}_words"), getattr(t, f"{side}_totals"), strict=True)) for t in (first, second)
        ]
        totals = {
            word: words[0].get(word, 0) + weight * words[1].get(word, 0) for word in words[0].keys() | words[1].keys()
        }
        found = dict(zip(getattr(merged, f"{side}_words"), getattr(merged, f"{side}_totals"), strict=True))
        assert found == pytest.approx(totals, rel=1e-5)
    assert merged.metadata["pairs"] == first.metadata["pairs"] + second.metadata["pairs"]


@settings(max_examples=40, deadline=None)
@given(tables())
def test_flipping_twice_changes_nothing(table: WordTable) -> None:
    flipped = table.flip()
    assert as_dict(flipped) == {(target, source): count for (source, target), count in as_dict(table).items()}
    assert (flipped.metadata["source"], flipped.metadata["target"]) == ("tt", "en")
    back = flipped.flip()
    assert as_dict(back) == as_dict(table) and back.metadata == table.metadata
    assert back.source_words == table.source_words and (back.target_totals == table.target_totals).all()


def test_merging_refuses_weights_that_do_not_fit() -> None:
    with pytest.raises(VocabTransferError, match="one positive weight for each"):
        merge_tables([small_table()], [1.0, 2.0])
    with pytest.raises(VocabTransferError, match="at least one table"):
        merge_tables([])


def test_pruning_drops_links_by_count_and_share_and_keeps_the_words() -> None:
    table = small_table()
    assert as_dict(table.prune(min_count=1)).keys() == as_dict(table).keys() - {("the", "ул")}
    # 0.5 of 50 is a hundredth of the rarer word of the pair.
    assert ("the", "ул") in as_dict(table.prune(min_share=0.009))
    assert ("the", "ул") not in as_dict(table.prune(min_share=0.011))
    assert table.prune(min_count=1).target_words == table.target_words
    rare = table.prune(min_total=9)
    assert rare.source_words == ("book", "the") and rare.target_words == ("китап", "ул")
    assert as_dict(rare) == {("book", "китап"): 8, ("the", "ул"): 0.5}
    assert rare.target_totals.tolist() == [9, 50] and rare.counts.shape == (2, 2)


def test_a_handmade_table_needs_no_totals(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(HEADER + "house\tөй\t2\nbook\tкитап\t3\nbook\tөй\t1\n", encoding="utf-8")
    table = WordTable.load(path)
    assert dict(zip(table.source_words, table.source_totals, strict=True)) == {"book": 4, "house": 2}
    assert dict(zip(table.target_words, table.target_totals, strict=True)) == {"китап": 3, "өй": 3}
    path.write_text(HEADER, encoding="utf-8")
    assert WordTable.load(path).counts.shape == (0, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1 is not the header"),
        ("house\tөй\t2\n", "line 1 is not the header"),
        ("# {broken\n", "line 1 is not the header"),
        ('# {"format": "another"}\n', "line 1 is not the header"),
        (HEADER + "house\tөй\t2\nhouse\tкитап\n", "line 3 has 2 columns"),
        (HEADER + "house\tөй\t2\t\n", "line 2 has 4 columns"),
        (HEADER + "a\tb\nc\td\te\tf\n", "line 2 has 2 columns"),
        (HEADER + "house\tөй\t2\n\nbook\tкитап\t1\n", "line 3 has 1 columns"),
        (HEADER + "house\tөй\tmany\n", "line 2: the count 'many' is not a positive number"),
        (HEADER + "house\tөй\tnan\n", "line 2: the count 'nan'"),
        (HEADER + "house\tөй\tinf\n", "line 2: the count 'inf'"),
        (HEADER + "book\tкитап\t1\nhouse\tөй\t-1\n", "line 3: the count '-1'"),
        (HEADER + "house\tөй\t0\n", "line 2: the count '0'"),
        (HEADER + "house\tөй\t2\nhouse\tөй\t3\n", "line 3 repeats the word pair of line 2"),
        (HEADER + "house\tөй\t2\n\t\t3\n", "line 3 names no word"),
        (HEADER + "house\tөй\t2\nbook\tөй\t1\nbook\t\t1\n", "how often 'house' occurs"),
    ],
)
def test_bad_tables_are_refused_by_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "t.tsv.gz"
    path.write_bytes(gzip.compress(content.encode()))
    with pytest.raises(VocabTransferError, match=message) as caught:
        WordTable.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a\tb\t1\n"], "line 3 repeats the word pair of line 2"),
        ([f"a{i}\tb\t1\n" for i in range(2000)], "line 2002 repeats the word pair of line 2"),
        (["a" * 1000], "line 2 is longer than 1 MiB"),
        ([f"{i:07d}\t{'b' * 90}\t1\n" for i in range(4000)], "unfolds to more than"),
    ],
)
@pytest.mark.parametrize("suffix", first_of([".gz", ".zst"], ".zst"))
def test_what_is_packed_inside_a_table_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], message: str, suffix: str
) -> None:
    if "unfolds" in message:
        monkeypatch.setattr(table_file, "MOST_BYTES", 1 << 18)
        text = "".join(lines)
    else:
        text = "".join(lines) * (12_000_000 // len("".join(lines)))
    path = tmp_path / f"t.tsv{suffix}"
    with open_lines(path) as write:
        write(HEADER)
        for start in range(0, len(text), 1 << 20):
            write(text[start : start + (1 << 20)])
    del text
    tracemalloc.start()
    try:
        with pytest.raises(VocabTransferError, match=message):
            WordTable.load(path)
        assert tracemalloc.get_traced_memory()[1] < 120_000_000
    finally:
        tracemalloc.stop()


def test_spellings_of_one_word_are_looked_up_together() -> None:
    targets = ["O'zbek", "Oʻzbek", "O‘zbek", "yurt"]
    links = (np.zeros(3, np.int64), np.arange(3), np.array([1.0, 2.0, 4.0]))
    table = WordTable.from_pairs(["Uzbek"], targets, links, np.ones(1), np.array([2.0, 3.0, 5.0, 7.0]))
    for word in targets[:3]:
        assert table.lookup(word) == [("Uzbek", 7.0)] and table.occurrences(word) == 10.0
    assert table.lookup("yurt") == [] and table.occurrences("yurt") == 7.0 and table.occurrences("x") == 0.0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-9], "damaged or cut short"),
        (lambda data: b"\x1f\x8b" + b"junk" * 9, "damaged or cut short"),
        (lambda data: gzip.compress(HEADER.encode() + b"a\tb\xff\t1\n"), "line 2 is not UTF-8"),
        (lambda data: lzma.compress(HEADER.encode() * 99)[:-20], "damaged or cut short"),
        (lambda data: zstandard.compress(HEADER.encode() * 99)[:-5], "damaged or cut short"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, spoil: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "t.tsv.gz"
    small_table().save(path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(VocabTransferError, match=message):
        WordTable.load(path)
    with pytest.raises(VocabTransferError, match="does not exist"):
        WordTable.load(tmp_path / "missing.tsv.gz")


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(VocabTransferError, match=r"named \*\.tsv"):
        small_table().save(tmp_path / "t.json")
    words = WordTable.from_pairs(["a\tb"], ["c"], (np.array([0]), np.array([0]), np.ones(1)), np.ones(1), np.ones(1))
    with pytest.raises(VocabTransferError, match="control character"):
        words.save(tmp_path / "t.tsv")
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(VocabTransferError, match="cannot be written"):
        small_table().save(tmp_path / "folder.tsv")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.tsv"]


def test_shipped_tables_are_found_by_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module.importlib.resources, "files", lambda package: tmp_path)
    (tmp_path / "alignments").mkdir()
    small_table().save(tmp_path / "alignments" / "en-tt.tsv.xz")
    found = shipped_table(find_language("tatar"))
    assert found is not None and as_dict(found) == as_dict(small_table())
    assert shipped_table(find_language("tt-Latn")) is None
    assert shipped_table(find_language("quechua")) is None


def test_shipped_tables_are_found_in_a_checkout_without_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vocabtransfer_data", None)
    monkeypatch.setattr(table_module, "CHECKOUT", tmp_path)
    small_table().save(tmp_path / "en-tt.tsv.xz")
    found = shipped_table(find_language("tatar"))
    assert found is not None and as_dict(found) == as_dict(small_table())
    assert shipped_table(find_language("dutch")) is None
