"""The alignment tables that ship: whole, sorted, documented, and right about common words."""

import json
import lzma
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from vocabtransfer.alignment.aligner import align_corpus
from vocabtransfer.alignment.table import WordTable, shipped_table
from vocabtransfer.corpora import rebuild
from vocabtransfer.corpora.cleaning import script_share
from vocabtransfer.corpora.parallel import CorpusReport, PartReport
from vocabtransfer.corpora.rebuild import MOST_BYTES, SHIPPED, TABLES, save_small
from vocabtransfer.corpora.registry import SOURCES
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.languages import find_language

# Words a reader of the language can check: the most frequent translation, letter case aside.
MEANINGS = {
    "tt": {"китап": "book", "бит": "page", "яңа": "new", "файл": "file", "һәм": "and", "өчен": ("for", "to")},
    "nl": {"huis": "house", "boek": "book", "bestand": "file", "niet": "not", "water": "water", "groot": "large"},
    "ru": {"книга": "book", "файл": "file", "не": "not", "новый": "new", "вода": "water", "день": "day"},
    "tr": {"kitap": "book", "dosya": "file", "ve": "and", "yeni": "new", "su": "water", "gün": "day"},
    "kk": {"кітап": "book", "файл": "file", "және": "and", "жаңа": "new", "құжат": "document", "бет": "page"},
    "sw": {"kitabu": "book", "na": "and", "mpya": "new", "ukurasa": "page", "maji": "water", "siku": "day"},
    "hi": {"पुस्तक": "book", "फ़ाइल": "file", "और": "and", "नया": "new", "पानी": "water", "दिन": "day"},
    "de": {"Buch": "book", "Datei": "file", "und": "and", "neue": "new", "nicht": "not", "Wasser": "water"},
}


@cache
def table(code: str) -> WordTable:
    found = shipped_table(find_language(code))
    assert found is not None, f"no table ships for {code}"
    return found


def best(code: str, word: str) -> str:
    """The most frequent English word for a word, letter case aside."""
    totals: dict[str, float] = {}
    for english, count in table(code).lookup(word):
        totals[english.casefold()] = totals.get(english.casefold(), 0.0) + count
    return max(totals, key=lambda english: (totals[english], english)) if totals else ""


def test_every_promised_language_ships_and_nothing_else() -> None:
    assert {path.name for path in TABLES.iterdir()} == {f"en-{code}.tsv.xz" for code in SHIPPED} | {"README.md"}
    assert set(MEANINGS) == set(SHIPPED)


@pytest.mark.parametrize("code", SHIPPED)
def test_common_words_mean_what_they_mean(code: str) -> None:
    wrong = {
        word: best(code, word)
        for word, meaning in MEANINGS[code].items()
        if best(code, word) not in ((meaning,) if isinstance(meaning, str) else meaning)
    }
    assert not wrong


@pytest.mark.parametrize("code", SHIPPED)
def test_tables_say_where_they_come_from(code: str) -> None:
    facts = table(code).metadata
    assert (facts["source"], facts["target"]) == ("en", code)
    assert facts["pairs"] == sum(part["pairs"] for part in facts["provenance"]) > 6000
    assert facts["rebuild"].endswith(f"vocabtransfer.corpora.rebuild {code}") and facts["aligner"]
    sources = {source.name: source for source in SOURCES}
    for part in facts["provenance"]:
        source = sources[part["name"].removesuffix("-terms")]
        assert part["licence"] == source.licence and part["licence"] in facts["licence"]
        assert part["packages"] and part["pairs"] > 0
        # Registry, name, version.
        assert all(len(package.split()) == 3 for package in part["packages"])
    assert "http" not in json.dumps(facts)


@pytest.mark.parametrize("code", SHIPPED)
def test_tables_are_whole_sorted_and_small(code: str) -> None:
    shipped = table(code)
    assert (TABLES / f"en-{code}.tsv.xz").stat().st_size <= MOST_BYTES
    for words in (shipped.source_words, shipped.target_words):
        assert all(one < other for one, other in pairwise(words))
    # Every occurrence is counted, so a tokenizer can be trained from the totals; punctuation comes on top of words.
    for totals, side in ((shipped.source_totals, "english_words"), (shipped.target_totals, "target_words")):
        running = sum(part[side] for part in shipped.metadata["provenance"])
        assert (totals >= 1).all() and 0.9 * running < totals.sum() < 2 * running
    links = shipped.counts.tocoo()
    assert (links.data > 0).all()
    # A word linked with a repeated one counts more often than it occurs; that is rare, and never much more often.
    excess = links.data / np.minimum(shipped.source_totals[links.col], shipped.target_totals[links.row])
    assert (excess > 1.01).mean() < 1e-3 and excess.max() < 2
    aligned = shipped.counts.sum() / min(shipped.source_totals.sum(), shipped.target_totals.sum())
    assert 0.4 < aligned <= 1


@pytest.mark.parametrize("code", SHIPPED)
def test_targets_are_in_the_language(code: str) -> None:
    """Most running words are in the script of the language (the rest is punctuation, digits and product names)."""
    shipped, script = table(code), find_language(code).script
    letters = [i for i, word in enumerate(shipped.target_words) if word[0].isalpha()]
    right = sum(float(shipped.target_totals[i]) for i in letters if script_share(shipped.target_words[i], script) > 0.5)
    assert right > 0.85 * shipped.target_totals[letters].sum()


def test_the_page_beside_the_tables_is_up_to_date() -> None:
    assert (TABLES / "README.md").read_text(encoding="utf-8") == rebuild.readme(TABLES)


# --- the command ----------------------------------------------------------------------------------------------------


def small_table() -> WordTable:
    english = ["a big house", "the house", "a big book", "the book", "big", "house", "book"]
    dutch = ["een groot huis", "het huis", "een groot boek", "het boek", "groot", "huis", "boek"]
    return align_corpus(zip(english, dutch, strict=True), metadata={"target": "nl"})


def test_pruning_drops_links_but_no_word(tmp_path: Path) -> None:
    whole = small_table()
    kept = save_small(whole, tmp_path / "en-nl.tsv.xz")
    assert (tmp_path / "en-nl.tsv.xz").exists() and len(list(tmp_path.iterdir())) == 1
    loaded = WordTable.load(tmp_path / "en-nl.tsv.xz")
    assert loaded.target_words == whole.target_words and loaded.source_words == whole.source_words
    assert np.array_equal(loaded.target_totals, whole.target_totals)
    assert loaded.metadata["links"] == loaded.counts.nnz == kept.counts.nnz
    assert loaded.lookup("huis")[0][0] == "house"
    with pytest.raises(VocabTransferError, match="cannot be made smaller than 10 bytes"):
        save_small(whole, tmp_path / "en-xx.tsv.xz", most_bytes=10)
    assert [path.name for path in tmp_path.iterdir()] == ["en-nl.tsv.xz"]


def test_the_smallest_sufficient_threshold_is_taken(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(300)]
    links = (rng.integers(0, 300, 20_000), rng.integers(0, 300, 20_000), rng.random(20_000))
    totals = np.full(300, 60.0)
    table = WordTable.from_pairs(words, words, links, totals, totals)
    mild = save_small(table, tmp_path / "mild.tsv.xz")
    limit = (tmp_path / "mild.tsv.xz").stat().st_size - 1
    strict = save_small(table, tmp_path / "strict.tsv.xz", most_bytes=limit)
    assert (tmp_path / "strict.tsv.xz").stat().st_size <= limit
    assert mild.metadata["pruned"]["min_count"] < strict.metadata["pruned"]["min_count"]


def test_the_page_lists_languages_parts_and_packages(tmp_path: Path) -> None:
    part = PartReport("django", "messages", "BSD-3-Clause", ("PyPI django 5.2.8",), 7, 14, 14)
    report = CorpusReport(find_language("nl"), tmp_path / "x", (part,), ())
    table = align_corpus([("a house", "een huis")] * 7, metadata=rebuild.metadata(report))
    save_small(table, tmp_path / "en-nl.tsv.xz")
    page = rebuild.readme(tmp_path)
    assert "| `en-nl.tsv.xz` | Dutch | 7 | 14 + 14 | 2 + 2 | 2 |" in page
    assert "| django | messages | BSD-3-Clause | nl 7 |" in page and "**django**: PyPI django 5.2.8" in page


def test_impossible_rebuilds_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rebuild.main(["klingonese", "--output", str(tmp_path)]) == 2
    assert "klingonese" in capsys.readouterr().err
    monkeypatch.setenv("VOCABTRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert rebuild.main(["tt", "--output", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err.strip()
    assert "\n" not in message and message.endswith(".") and "Traceback" not in message
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_rebuilding_gives_the_same_bytes(tmp_path: Path) -> None:
    """No clock, hash order or thread shows. (The packages of another Debian release give other bytes.)"""
    for name in ("one", "two"):
        command = ["tt", "--output", str(tmp_path / name), "--corpora", str(tmp_path / f"corpora {name}")]
        if rebuild.main(command) != 0:
            pytest.skip("this machine cannot fetch every package")
    first, second = ((tmp_path / name / "en-tt.tsv.xz").read_bytes() for name in ("one", "two"))
    assert first == second and lzma.decompress(first).startswith(b"# {")
