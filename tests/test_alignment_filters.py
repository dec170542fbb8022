"""Filtering: each kind of bad pair is dropped for its own reason, good pairs of any language stay; damaged lines count."""

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocabtransfer.alignment import filters
from vocabtransfer.alignment.corpora import read_parallel
from vocabtransfer.alignment.filters import PairFilter
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.text_files import open_lines, read_lines, read_sound_lines, write_lines
from vocabtransfer.languages import find_language

ENGLISH, DUTCH, TATAR, CHINESE = (find_language(code) for code in ("en", "nl", "tt", "zh"))
NOUNS = [("house", "huis"), ("book", "boek"), ("tree", "boom"), ("water", "water"), ("day", "dag"), ("night", "nacht")]
PLACES = [("here", "hier"), ("there", "daar"), ("in the garden", "in de tuin"), ("on the table", "op de tafel")]
GOOD = [
    (f"The old {noun[0]} number {n} is {place[0]} again", f"Het oude {noun[1]} nummer {n} is {place[1]} weer")
    for n in range(10)
    for noun in NOUNS
    for place in PLACES
]


def reasons(pairs: list[tuple[str, str]], rules: PairFilter | None = None) -> list[str | None]:
    judged = list((rules or PairFilter(ENGLISH, DUTCH)).judge(pairs))
    assert len(judged) == len(pairs)
    return [pair.reason for pair in judged]


def test_good_pairs_stay_as_they_are() -> None:
    judged = list(PairFilter(ENGLISH, DUTCH).judge(GOOD))
    assert [(pair.source, pair.target, pair.reason) for pair in judged] == [(*pair, None) for pair in GOOD]


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (("", "huis"), "with an empty side"),
        (("house", " \t"), "with an empty side"),
        (("house\0", "huis"), "with a NUL"),
        (("the cafÃ© is here", "het café is hier"), "garbled by a wrong encoding"),
        (("the café is here", "het caf\ufffd is hier"), "garbled by a wrong encoding"),
        (("word " * 300, "woord " * 300), "of more than 256 words"),
        (("猫" * 257, "kat"), "of more than 256 words"),
        (("12:30", "12:30"), "without letters on a side"),
        (("three", "3"), "without letters on a side"),
        (("LibreOffice  Writer", "libreoffice writer"), "with identical sides"),
        (("The tree is here", "Кошка сидит на ковре"), "with a target in another script"),
        (("Кошка сидит на ковре", "De boom is hier"), "with a source in another script"),
        (("An old house is there", "The old house is there again"), "with a target in the source's language"),
        (("Het oude huis is daar", "Een oud huis is daar"), "with a source in the target's language"),
        (("Yes", "Het oude huis is hier en daar en overal waar je kijkt"), "of unusual length for a translation"),
        (("The house that is here and there and everywhere one looks", "Ja"), "of unusual length for a translation"),
        (GOOD[0], "seen before"),
        ((f"  {GOOD[0][0]} ", GOOD[0][1].replace(" ", "\t")), "seen before"),
    ],
)  # fmt: skip
def test_each_kind_of_bad_pair_has_its_reason(pair: tuple[str, str], reason: str) -> None:
    assert reasons([*GOOD, pair]) == [None] * len(GOOD) + [reason]


@pytest.mark.parametrize(
    "pair",
    [
        ("OK", "Akkoord, doe dat maar"),  # short: any ratio
        ("Ubuntu Software Center", "Ubuntu Softwarecentrum"),
        ("press Ctrl+C", "toets Ctrl+C"),
        ("SÃO PAULO", "São Paulo in Brazilië"),
        ("the word Кошка is Russian", "het woord Кошка is Russisch"),
    ],
)
def test_names_and_short_labels_stay(pair: tuple[str, str]) -> None:
    assert reasons([*GOOD, pair])[-1] is None


def test_every_rule_can_be_turned_off() -> None:
    rules = PairFilter(
        ENGLISH, None, max_ratio=None, max_words=999, same_language=False, identical=False, duplicates=False, garbled=False
    )  # fmt: skip
    bad = [("word " * 300, "woord"), ("same text here", "same text here"), ("cafÃ© there", "Кошка"), GOOD[0]]
    assert reasons([*GOOD, *bad], rules) == [None] * (len(GOOD) + 4)


def test_lengths_are_judged_by_what_is_usual_in_the_corpus() -> None:
    chinese = [(source, "旧的房子在那里" + "又" * (n % 3)) for n, (source, _) in enumerate(GOOD)]
    long = ("The old house number 3 is there again, so they say", "旧的房子在那里又" * 9)
    found = reasons([*chinese, long], PairFilter(ENGLISH, CHINESE))
    assert found == [None] * len(chinese) + ["of unusual length for a translation"]


def test_untranslated_sentences_are_found_though_many(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [(f"{source} once more", source) for source, _ in GOOD[::8]]
    found = reasons([*GOOD, *bad])
    assert found[: len(GOOD)] == [None] * len(GOOD)
    assert set(found[len(GOOD) :]) == {"with a target in the source's language"}


def test_batches_and_the_sample_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [*GOOD, *GOOD[:40], *GOOD[::3]]
    whole = reasons(pairs)
    assert Counter(whole) == {None: len(GOOD), "seen before": 40 + len(GOOD[::3])}
    monkeypatch.setattr(filters, "_BATCH", 7)
    monkeypatch.setattr(filters, "SAMPLE", 100)
    assert reasons(pairs) == whole


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), max_size=9), max_size=12))
def test_repeats_are_found_across_batches(batches: list[list[int]]) -> None:
    seen, store = set[int](), filters.Seen()
    for batch in batches:
        expected = []
        for number in batch:
            expected.append(number not in seen)
            seen.add(number)
        assert store.fresh(np.array(batch, dtype=np.uint64)).tolist() == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(), st.text()), max_size=6))
def test_any_text_is_judged(pairs: list[tuple[str, str]]) -> None:
    assert len(reasons(pairs)) == len(pairs)


def test_rules_out_of_range_are_refused() -> None:
    for options in ({"max_ratio": 1.0}, {"max_ratio": 0.5}, {"max_words": 0}):
        with pytest.raises(UsageError):
            PairFilter(**options)


def test_damaged_lines_are_counted_and_their_partners_dropped(tmp_path: Path) -> None:
    giant = b"x" * (1 << 24) + b" y"
    source = b"\n".join([b"one", b"caf\xe9", b"three", b"four", giant, b"six"])
    target = "\n".join(["een", "twee", "drie", "\x00vier", "vijf", "zes"]).encode()
    paths = [tmp_path / "c.en", tmp_path / "c.nl"]
    for path, data in zip(paths, (source, target), strict=True):
        path.write_bytes(data)
    corpus = read_parallel(paths, skip_damaged=True)
    assert list(corpus) == [("one", "een"), ("three", "drie"), ("six", "zes")]
    assert corpus.statistics.skipped == {"not in UTF-8": 1, "longer than 16 MiB": 1, "with a NUL": 1}
    with pytest.raises(VocabTransferError, match=r"c\.en, line 2 is not UTF-8"):
        list(read_parallel(paths))
    paths[1].write_bytes(target + b"\nzeven")
    with pytest.raises(VocabTransferError, match=r"has 6 lines and .* has 7"):
        list(read_parallel(paths, skip_damaged=True))


def test_a_giant_line_is_never_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(b"a\tb\n")
        for _ in range(40):
            stream.write(b" " * (1 << 20))
        stream.write(b"\nc\td\n")
    skipped: Counter[str] = Counter()
    assert [line for _, line in read_sound_lines(path, skipped)] == ["a\tb", None, "c\td"]
    assert skipped == {"longer than 16 MiB": 1}
    with pytest.raises(VocabTransferError, match="line 2 is longer than 16 MiB"):
        list(read_lines(path))


def test_a_file_of_another_encoding_is_no_corpus(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    path.write_bytes("Кошка\tкат\n".encode("cp1251") * 30)
    with pytest.raises(VocabTransferError, match=r"c\.tsv"):
        list(read_parallel([path], skip_damaged=True))
    path.write_bytes("one\tбер\n".encode("utf-16"))
    with pytest.raises(VocabTransferError, match="UTF-16"):
        list(read_parallel([path], skip_damaged=True))
    path.write_bytes(b"")
    with pytest.raises(VocabTransferError, match="is empty"):
        list(read_parallel([path], skip_damaged=True))


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_lines_are_written_as_they_come_or_not_at_all(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"lines.txt{suffix}"
    lines = [f"line {n} ä\n" for n in range(1000)]
    write_lines(path, iter(lines))
    assert [line + "\n" for _, line in read_lines(path)] == lines
    first = path.read_bytes()
    write_lines(path, lines)
    assert path.read_bytes() == first

    def fail(write: Callable[[str], object]) -> None:
        write("half\n")
        raise VocabTransferError("stop")

    with pytest.raises(VocabTransferError, match="stop"), open_lines(path) as write:
        fail(write)
    assert path.read_bytes() == first and [entry.name for entry in tmp_path.iterdir()] == [path.name]
