"""Parallel corpora: every format gives the same pairs, every kind of bad file a sentence that names it."""

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from vocabtransfer.alignment.corpora import read_parallel, read_text
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.text_files import read_lines
from vocabtransfer.languages import find_language

PAIRS = [
    ("A house.", "Өй."),
    ("The book", "китап"),
    ('Tom & "Jerry" <3', "Том & Җерри"),
    ("two\u2028lines", "ике\x85юл"),
]
ENGLISH, TATAR, DUTCH = find_language("en"), find_language("tt"), find_language("nl")
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en" segtype="sentence"/><body>
<tu><note>x</note><tuv xml:lang="tt"><seg>Өй.</seg></tuv>
<tuv xml:lang="en-US"><seg>A <bpt i="1">&lt;b&gt;</bpt><hi>house</hi><ept i="1">x</ept>.</seg></tuv></tu>
<tu><tuv xml:lang="EN"><seg>The
 book</seg></tuv><tuv lang="tt_RU"><seg>китап</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>only</seg></tuv></tu>
</body></tmx>
"""


def columns(pairs: list[tuple[str, str]], end: str = "\n") -> bytes:
    return "".join(f"{source}\t{target}{end}" for source, target in pairs).encode()


def write_moses(folder: Path, source: bytes, target: bytes) -> list[Path]:
    paths = [folder / "corpus.en", folder / "corpus.tt"]
    paths[0].write_bytes(source)
    paths[1].write_bytes(target)
    return paths


@pytest.mark.parametrize("suffix", COMPRESS)
def test_columns_and_moses_pairs_in_every_compression(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"corpus.tsv{suffix}"
    path.write_bytes(COMPRESS[suffix](columns(PAIRS)))
    assert list(read_parallel([path])) == PAIRS
    # Compression shows in the first bytes, columns in the first lines: names do not matter.
    path.rename(tmp_path / "corpus")
    assert list(read_parallel([tmp_path / "corpus"])) == PAIRS
    sides = [COMPRESS[suffix]("\n".join(side).encode()) for side in zip(*PAIRS, strict=True)]
    assert list(read_parallel(write_moses(tmp_path, *sides))) == PAIRS


def test_several_files_of_several_kinds_follow_each_other(tmp_path: Path) -> None:
    moses = write_moses(tmp_path, b"one\n", "бер\n".encode())
    (tmp_path / "a.tsv").write_bytes(columns(PAIRS))
    (tmp_path / "b.tmx").write_text(TMX, encoding="utf-8")
    corpus = read_parallel([tmp_path / "a.tsv", *moses, tmp_path / "b.tmx"], source=ENGLISH, target=TATAR)
    assert list(corpus) == [*PAIRS, ("one", "бер"), ("A house.", "Өй."), ("The book", "китап")]
    assert corpus.statistics.pairs == 7
    assert list(corpus) == list(corpus)  # read afresh each time
    assert corpus.statistics.pairs == 7


def test_windows_line_ends_and_byte_order_marks_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "corpus.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + columns(PAIRS, "\r\n"))
    assert list(read_parallel([path])) == PAIRS


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "corpus.tsv"
    path.write_bytes(columns(PAIRS) + b"only one\n\n \tx\ny\t \nnul\0\tx\na\tb\tc\n")
    corpus = read_parallel([path])
    assert list(corpus) == PAIRS
    assert corpus.statistics.skipped == {"without exactly 2 columns": 2, "with an empty side": 2, "with a NUL": 1}
    assert corpus.statistics.summary() == (
        "4 pairs, skipped 5 (1 with a NUL, 2 with an empty side, 2 without exactly 2 columns)"
    )


@pytest.mark.parametrize(
    "row",
    [
        "part{half}\t{source}\t{target}",
        "{number}\t{source}\t9{number}\t{target}",
        "{source}\t{target}\t0.{number}",
        "{source} ||| {target}",
    ],
)
def test_labels_numbers_and_scores_are_no_sentences(tmp_path: Path, row: str) -> None:
    pairs = [(f"sentence {number}", f"җөмлә {number}") for number in range(40)]
    lines = [row.format(source=s, target=t, number=n, half=n // 20) for n, (s, t) in enumerate(pairs)]
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert list(read_parallel([path])) == pairs


def test_columns_that_are_not_clear_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "corpus.tsv"
    path.write_bytes(b"".join(b"note %d\tone %d\ttwo %d\n" % (n, n, n) for n in range(30)))
    with pytest.raises(UsageError, match="3 columns: say which two"):
        list(read_parallel([path]))
    assert next(iter(read_parallel([path], columns=(2, 1)))) == ("two 0", "one 0")
    with pytest.raises(VocabTransferError, match="no column 3"):
        list(read_parallel([path], columns=(1, 3)))
    for wrong in ((1, 1), (-1, 0)):
        with pytest.raises(UsageError, match="two different numbers"):
            read_parallel([path], columns=wrong)


@pytest.mark.parametrize("columns", [None, ("source", "target")])
def test_lines_shorter_than_the_header_are_one_sentence(tmp_path: Path, columns: tuple[str, str] | None) -> None:
    (tmp_path / "a.csv").write_text("source,target\n" + "a book\n" * 3 + "x,y,target,source\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("note,source,target\n" + "a book,een boek\n" * 3, encoding="utf-8")
    with pytest.raises(VocabTransferError, match=r"a\.csv has no second column"):
        list(read_parallel(tmp_path / "a.csv", columns=columns))
    with pytest.raises(VocabTransferError, match="most lines have 2 fields, but its first line names 3"):
        list(read_parallel(tmp_path / "b.csv", columns=columns))


def test_tmx_without_languages_takes_the_header_s_source(tmp_path: Path) -> None:
    path = tmp_path / "b.tmx"
    path.write_text(TMX, encoding="utf-8")
    corpus = read_parallel([path])
    assert list(corpus) == [("A house.", "Өй."), ("The book", "китап")]
    assert corpus.statistics.skipped == {"without both languages": 1}
    path.write_bytes(TMX.replace("UTF-8", "UTF-16").encode("utf-16"))
    assert list(read_parallel([path], source=TATAR, target=ENGLISH)) == [("Өй.", "A house."), ("китап", "The book")]
    with pytest.raises(VocabTransferError, match="no usable sentence pair"):
        list(read_parallel([path], source=ENGLISH, target=DUTCH))


@pytest.mark.parametrize(
    "content",
    [
        TMX[:-40],
        "not xml at all",
        '<!DOCTYPE tmx [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><tmx><body><tu>&b;</tu></body></tmx>',
        '<!DOCTYPE tmx [<!ENTITY a SYSTEM "file:///etc/passwd">]><tmx><body><tu>&a;</tu></body></tmx>',
    ],
)
def test_broken_and_dangerous_tmx_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "b.tmx"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(VocabTransferError, match="not a TMX file that can be read safely") as caught:
        list(read_parallel([path], source=ENGLISH, target=TATAR))
    assert str(path) in str(caught.value)


def test_unequal_moses_files_are_named_with_their_lengths(tmp_path: Path) -> None:
    paths = write_moses(tmp_path, b"a\nb\nc\n", b"x\ny\n")
    with pytest.raises(VocabTransferError, match=r"has 3 lines and .* has 2") as caught:
        list(read_parallel(paths))
    assert all(str(path) in str(caught.value) for path in paths)
    paths = write_moses(tmp_path, b"a\n", b"")
    with pytest.raises(VocabTransferError, match=r"has 1 lines and .* has 0"):
        list(read_parallel(paths))


def test_a_single_file_without_columns_has_no_partner(tmp_path: Path) -> None:
    paths = write_moses(tmp_path, b"a\n", b"x\n")
    with pytest.raises(UsageError, match="no partner"):
        read_parallel(paths[:1])
    with pytest.raises(UsageError, match="at least one file"):
        read_parallel([])
    with pytest.raises(VocabTransferError, match="no tab-separated columns"):
        (tmp_path / "a.tsv").write_bytes(b"a b\n")
        list(read_parallel([tmp_path / "a.tsv"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9 one\tx\n", "line 1 is not UTF-8 .byte 0xe9."),
        (b"fine\tfine\n" * 3 + b"caf\xe9\tx\n", "line 4 is not UTF-8"),
        ("one\tбер\n".encode("utf-16"), "is UTF-16"),
        (b"\x7fELF\x02\x01\x01" + bytes(60), "is a binary file"),
        (b"PK\x03\x04" + b"x" * 60, "is a zip archive"),
        (gzip.compress(columns(PAIRS * 50))[:-12], "damaged or cut short"),
        (lzma.compress(columns(PAIRS * 50))[:-12], "damaged or cut short"),
        (zstandard.compress(columns(PAIRS * 50))[:-2], "damaged or cut short"),
        (b"\x28\xb5\x2f\xfd" + b"junk" * 9, "damaged or cut short"),
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\t\n" * 9, "no usable sentence pair"),
    ],
)
def test_files_that_are_no_text_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "corpus.tsv"
    path.write_bytes(content)
    with pytest.raises(VocabTransferError, match=message) as caught:
        list(read_parallel([path]))
    assert str(path) in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VocabTransferError, match="does not exist"):
        list(read_parallel([tmp_path / "none.tsv"]))
    with pytest.raises(VocabTransferError, match="is a folder"):
        list(read_text([tmp_path]))


def test_text_is_read_without_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\n\r\ntw\0o\nthree\x0bfour")
    (tmp_path / "b.txt.zst").write_bytes(zstandard.compress(b"five\n") + zstandard.compress(b"six\n"))
    assert list(read_text([tmp_path / "a.txt", tmp_path / "b.txt.zst"])) == ["one", "three\x0bfour", "five", "six"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs", "Cc"])), min_size=1))
def test_lines_come_back_as_they_are(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("text") / "t.txt"
    lines[0] = lines[0].removeprefix("\ufeff")
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    if not path.read_bytes().startswith((b"\xef\xbb\xbf", b"PK")):
        assert list(read_lines(path)) == list(enumerate(lines, 1))


ENGLISH_LINES = [f"The house number {n} and this is the book from there" for n in range(60)]
TATAR_LINES = [f"Бу йорт {n} һәм бу китап шуннан" for n in range(60)]
DUTCH_LINES = [f"Het huis nummer {n} en dit is het boek van daar" for n in range(60)]


@pytest.mark.parametrize(
    ("source", "target", "language", "message"),
    [
        (ENGLISH_LINES, TATAR_LINES, "tt", None),
        (ENGLISH_LINES, DUTCH_LINES, "nl", None),
        (TATAR_LINES, ENGLISH_LINES, "tt", "sides are swapped, Tatar must come second"),
        (DUTCH_LINES, ENGLISH_LINES, "nl", "sides are swapped, Dutch must come second"),
        (ENGLISH_LINES, ENGLISH_LINES, "nl", "mostly English, not Dutch"),
        (ENGLISH_LINES, ENGLISH_LINES, "tt", "not in the script Cyrl of Tatar"),
        (ENGLISH_LINES, DUTCH_LINES, "hi", "not in the script Deva of Hindi"),
        (ENGLISH_LINES, ["これは本です。それは家です"] * 60, "ja", None),
        (ENGLISH_LINES, ["이것은 책입니다 그리고 집입니다"] * 60, "ko", None),
        (ENGLISH_LINES, TATAR_LINES, "tt-Latn", "not in the script Latn of Tatar"),
    ],
)
def test_the_target_must_be_in_its_language(
    tmp_path: Path, source: list[str], target: list[str], language: str, message: str | None
) -> None:
    path = tmp_path / "corpus.tsv"
    path.write_bytes(columns(list(zip(source, target, strict=True))))
    corpus = read_parallel([path], source=ENGLISH, target=find_language(language))
    if message is None:
        assert len(list(corpus)) == 60
    else:
        with pytest.raises(VocabTransferError, match=message):
            next(iter(corpus))


def test_a_wrong_language_that_shows_late_is_found_too(tmp_path: Path) -> None:
    names = [(f"Name {n}", f"Name {n}") for n in range(2500)]
    path = tmp_path / "corpus.tsv"
    path.write_bytes(columns(names + list(zip(DUTCH_LINES * 50, ENGLISH_LINES * 50, strict=True))))
    with pytest.raises(VocabTransferError, match="sides are swapped"):
        list(read_parallel([path], source=ENGLISH, target=DUTCH))


def test_untranslated_lines_are_skipped_but_names_stay(tmp_path: Path) -> None:
    path = tmp_path / "corpus.tsv"
    extra = [
        ("LibreOffice Writer", "LibreOffice Writer"),
        ("Not translated at all", "Not translated at all"),
        ("3", "3"),
    ]
    path.write_bytes(columns(list(zip(ENGLISH_LINES, TATAR_LINES, strict=True)) + extra))
    corpus = read_parallel([path], source=ENGLISH, target=TATAR)
    assert list(corpus)[-2:] == [extra[0], extra[2]]
    assert corpus.statistics.skipped == {"with a target in another script": 1}
