"""Words of every script find their translations, whole and unchanged: marks, joiners, no spaces, right to left."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from vocabtransfer.alignment import WordAlignment, align, align_corpus
from vocabtransfer.alignment.links import token_counts
from vocabtransfer.alignment.priors import Side, find_prior
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.alignment.words import split_words
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.scripts import SCRIPTS, dominant_scripts
from vocabtransfer.tokenization.pieces import PieceEncoder

ENGLISH = ("house", "book", "water", "sun", "moon", "tree", "dog", "cat", "fire", "hand")
# Ten nouns, the word for "and", the full stop, what parts words.
LANGUAGES: dict[str, tuple[str, str, str, str]] = {
    "Latn": ("ev kitap su güneş ay ağaç köpek kedi ateş el", "ve", ".", " "),
    "Latn decomposed": ("ev kitap su gu\u0308nes\u0327 ay ag\u0306ac\u0327 ko\u0308pek kedi ates\u0327 el", "ve", ".", " "),
    "Cyrl": ("дом книга вода солнце луна дерево собака кошка огонь рука", "и", ".", " "),
    "Cyrl stressed": (
        "до\u0301м кни\u0301га вода\u0301 со\u0301лнце луна\u0301 де\u0301рево соба\u0301ка ко\u0301шка ого\u0301нь "
        "рука\u0301", "и", ".", " ",
    ),
    "Arab": ("بَيْت كِتَاب مَاء شَمْس قَمَر شَجَرَة كَلْب قِطَّة نَار يَد", "وَ", "؟", " "),
    "Arab joined": ("خانه\u200cها کتاب\u200cها آب خورشید ماه درخت سگ گربه\u200cها آتش دست", "و", "؟", " "),
    "Hebr": ("\u200fבית\u200f ספר מים שמש ירח עץ כלב חתול אש יד", "וגם", "?", " \u200f"),
    "Deva": ("घर किताब पानी सूर्य चाँद पेड़ कुत्ता बिल्ली आग हाथ", "और", "।", " "),
    "Deva joined": ("घर कि\u200dताब पानी सूर्\u200dय चाँद पेड़ कुत्\u200cता बिल्\u200dली आग हाथ", "और", "।", " "),
    "Geor": ("სახლი წიგნი წყალი მზე მთვარე ხე ძაღლი კატა ცეცხლი ხელი", "და", ".", " "),
    "Armn": ("տուն գիրք ջուր արև լուսին ծառ շուն կատու կրակ ձեռք", "եւ", "։", " "),
    "Ethi": ("ቤት መጽሐፍ ውሃ ፀሐይ ጨረቃ ዛፍ ውሻ ድመት እሳት እጅ", "እና", "።", " "),
    "Thai": ("บ้าน หนังสือ น้ำ ดวงอาทิตย์ พระจันทร์ ต้นไม้ สุนัข แมว ไฟ มือ", "และ", "ฯ", ""),
    "Hani": ("房子 书 水 太阳 月亮 树 狗 猫 火 手", "和", "。", ""),
}  # fmt: skip


def pairs_in(name: str, count: int = 150) -> list[tuple[str, str]]:
    """Return sentences of one to four nouns, in English and turned around in the language."""
    nouns, conjunction, stop, space = LANGUAGES[name]
    words, rng = nouns.split(), np.random.default_rng(3)
    pairs = []
    for _ in range(count):
        chosen = rng.choice(10, size=rng.integers(1, 5), replace=False)
        source = " and ".join(f"the {ENGLISH[word]}" for word in chosen) + " ."
        target = f"{space}{conjunction}{space}".join(words[word] for word in reversed(chosen)) + space + stop
        pairs.append((source, target))
    return pairs


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_noun_finds_its_translation(name: str, tmp_path: Path) -> None:
    nouns = [split_words(noun) for noun in LANGUAGES[name][0].split()]
    table = align_corpus(pairs_in(name))
    owners: dict[str, set[str]] = {}
    for noun, english in zip(nouns, ENGLISH, strict=True):
        for part in noun:
            owners.setdefault(part, set()).add(english)
    for noun, english in zip(nouns, ENGLISH, strict=True):
        # Where words are cut smaller, a piece that several words share is nobody's, and one may go with "the".
        found = [table.lookup(part)[0][0] for part in noun if owners[part] == {english}]
        assert english in found and set(found) <= ({english} if len(noun) == 1 else {english, "the", "and"})
    table.save(tmp_path / "t.tsv.gz")
    assert WordTable.load(tmp_path / "t.tsv.gz").target_words == table.target_words
    letters = "".join(table.target_words)
    assert SCRIPTS[dominant_scripts([letters])[0]] == name.split()[0]


@pytest.mark.parametrize("name", LANGUAGES)
def test_links_point_at_the_words_of_the_text(name: str, tmp_path: Path) -> None:
    pairs = pairs_in(name, 40)
    alignment = align(pairs)
    alignment.save_pharaoh(tmp_path / "links")
    # What is written can be read by any tool that splits at spaces.
    lines = [tuple(line.rstrip("\n").split("\t")) for line in alignment.word_lines()]
    assert [split_words(target) for _, target in pairs] == [target.split(" ") for _, target in lines]
    again = WordAlignment.from_pharaoh(lines, tmp_path / "links")
    assert [again.links(k) for k in range(40)] == [alignment.links(k) for k in range(40)]
    assert any(map(alignment.links, range(40)))


@pytest.mark.parametrize("name", LANGUAGES)
def test_token_counts_lose_nothing(name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    encoder = PieceEncoder(real_tokenizer("smollm2"))
    table = align_corpus(pairs_in(name, 60))
    counts = token_counts(table, encoder, encoder)
    # Each pair counts once, and a tenth more for the way it stands without a space.
    assert counts.sum() == pytest.approx(1.1 * table.counts.sum(), rel=1e-4)
    assert np.isfinite(counts.data).all() and (counts.data > 0).all()


def test_a_word_and_its_decomposed_form_are_told_apart_as_written() -> None:
    table = align_corpus([("cafe here", "кафе caf\u00e9"), ("cafe there", "кафе cafe\u0301")] * 5)
    assert {"caf\u00e9", "cafe\u0301"} <= set(table.target_words)


def side(words: list[str]) -> Side:
    stems = sorted({word[:4] for word in words})
    return Side(words, np.array([stems.index(word[:4]) for word in words], dtype=np.int32), stems)


def found(source: list[str], target: list[str], **options: object) -> set[tuple[str, str]]:
    sides = side(source), side(target)
    evidence = find_prior(*sides, **options)  # type: ignore[arg-type]
    stems = np.repeat(np.arange(len(sides[0].stems)), np.diff(evidence.row))
    return {(sides[0].stems[i], sides[1].stems[j]) for i, j in zip(stems, evidence.columns, strict=True)}


def test_numbers_are_like_whatever_their_digits() -> None:
    source, target = ["12", "7", "abc", "١٢"], ["१२", "12", "٧", "abc", "४", "xyz"]
    assert found(source, target) == {("12", "१२"), ("12", "12"), ("7", "٧"), ("abc", "abc"), ("١٢", "१२"), ("١٢", "12")}


def test_cognates_are_like_once_romanized() -> None:
    letters = {"фотография": "fotografiya", "компьютер": "kompyuter", "дом": "dom", "да": "da", "домашний": "domashniy"}

    def romanize(word: str) -> str:
        return letters.get(word, word)

    english = ["photography", "computer", "dam", "12", "do"]
    assert found(english, list(letters)) == set()
    assert found(english, list(letters), romanizer=romanize) == {("phot", "фото"), ("comp", "комп")}
    with pytest.raises(VocabTransferError, match="made int of 'photography'"):
        found(english, list(letters), romanizer=len)


def test_dictionaries_count_word_for_word() -> None:
    entries = [("House", "ДОМ"), ("big house", "дом"), ("tree", "нет"), ("cat", "кошка"), ("cat", "кот")]
    pairs = found(["house", "tree", "cat"], ["дом", "кошка", "кот"], dictionary=entries)
    assert pairs == {("hous", "дом"), ("cat", "кошк"), ("cat", "кот")}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(min_size=1, max_size=5), min_size=1, unique=True),
    st.lists(st.text(min_size=1, max_size=5), unique=True),
)
def test_evidence_is_sorted_and_holds_every_equal_stem(source: list[str], target: list[str]) -> None:
    sides = side(source), side(target)
    evidence = find_prior(*sides, romanizer=lambda word: word)
    assert len(evidence.row) == len(sides[0].stems) + 1 and evidence.row[-1] == len(evidence.columns)
    for number, stem in enumerate(sides[0].stems):
        columns = evidence.columns[evidence.row[number] : evidence.row[number + 1]]
        assert (np.diff(columns) > 0).all()
        assert (stem in sides[1].stems) <= (stem in [sides[1].stems[column] for column in columns])
