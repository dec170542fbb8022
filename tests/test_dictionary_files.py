"""Dictionaries in every form that people have them give the same entries; what is damaged is refused by its name."""

import base64
import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocabtransfer.alignment.dictionary_files import read_dictionary, read_stardict, without_definitions
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.languages import find_language

ENGLISH, DUTCH, HINDI = (find_language(name) for name in ("english", "dutch", "hindi"))
ENTRIES = [("house", "huis"), ("house", "woning"), ("to walk", "lopen"), ("tree", "boom")]
ARTICLES = {"house": "1. huis, woning\n   Note: also a family", "to walk": "lopen (on foot)", "tree": "boom"}


def dictd(folder: Path, name: str, articles: dict[str, str], *, packed: bool = True) -> Path:
    """Write a dictd dictionary as dictfmt does and return its index."""

    def number(value: int) -> str:
        digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        text = digits[value % 64]
        while value := value // 64:
            text = digits[value % 64] + text
        return text

    lines, text = [], b""
    for headword, article in articles.items():
        data = f"{headword} /x/ <n>\n{article}\n".encode()
        lines.append(f"{headword}\t{number(len(text))}\t{number(len(data))}\n")
        text += data
    (folder / f"{name}.index").write_text("".join(lines), encoding="utf-8")
    suffix, data = (".dict.dz", gzip.compress(text)) if packed else (".dict", text)
    (folder / f"{name}{suffix}").write_bytes(data)
    return folder / f"{name}.index"


def stardict(folder: Path, articles: dict[str, str], *, types: str = "m", wide: bool = False) -> Path:
    """Write a StarDict dictionary: its description, its index and its text."""
    index, text = b"", b""
    for headword, article in articles.items():
        data = article.encode()
        if types in ("tm", ""):
            spoken = b"x\0"
            data = spoken + data if types else b"t" + spoken + b"W" + struct.pack(">I", 3) + b"\0\1\2m" + data + b"\0"
        index += headword.encode() + b"\0" + struct.pack(">QI" if wide else ">II", len(text), len(data))
        text += data
    facts = ["StarDict's dict ifo file", "version=2.4.2", "bookname=x", f"wordcount={len(articles)}"]
    facts += [f"sametypesequence={types}"] if types else []
    facts += ["idxoffsetbits=64"] if wide else []
    (folder / "d.ifo").write_text("\n".join(facts) + "\n", encoding="utf-8")
    (folder / "d.idx").write_bytes(index)
    (folder / "d.dict.dz").write_bytes(gzip.compress(text))
    return folder / "d.ifo"


def tei(folder: Path) -> Path:
    entries = "".join(
        f'<entry><form><orth>{word}</orth><pron>x</pron></form><sense n="1"><cit type="trans"><quote>{quote}</quote></cit>'
        f'<cit type="example"><quote>a long example</quote></cit></sense></entry>'
        for word, quote in ENTRIES
    )
    path = folder / "d.tei"
    path.write_text(
        f'<?xml version="1.0"?><TEI xmlns="http://www.tei-c.org/ns/1.0"><text><body>{entries}</body></text></TEI>'
    )
    return path


@pytest.mark.parametrize("packed", [True, False])
def test_dictd_by_its_index_or_its_text(tmp_path: Path, packed: bool) -> None:
    index = dictd(tmp_path, "freedict-eng-nld", ARTICLES, packed=packed)
    text = index.with_suffix(".dict.dz" if packed else ".dict")
    assert read_dictionary(index) == read_dictionary(text) == ENTRIES
    assert read_dictionary(index, (ENGLISH, DUTCH)) == ENTRIES
    assert read_dictionary(index, (DUTCH, ENGLISH)) == [(target, source) for source, target in ENTRIES]


@pytest.mark.parametrize("write", [dictd, lambda folder, _, articles: stardict(folder, articles)])
def test_a_packed_text_without_end_is_refused(
    tmp_path: Path, write: Callable[[Path, str, dict[str, str]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vocabtransfer.alignment.dictionary_files._MOST_BYTES", 1 << 20)
    path = write(tmp_path, "d", ARTICLES)
    assert read_dictionary(path) == ENTRIES
    packed = path.with_suffix(".dict.dz")
    packed.write_bytes(gzip.compress(bytes(1 << 26)))  # 64 MiB of nothing in 64 KiB
    assert packed.stat().st_size < 1 << 17
    with pytest.raises(VocabTransferError, match=r"d\.dict\.dz has more than 1 MiB"):
        read_dictionary(path)


def test_definitions_of_wikdict_are_no_translations(tmp_path: Path) -> None:
    """Of each sense a line translates and a line defines."""
    articles = {"00databaseinfo": "Automatic creation by WikDict", "pit": "1. kuil\na hole\n2. pit\nthe stone of fruit"}
    assert read_dictionary(dictd(tmp_path, "eng-nld", articles)) == [("pit", "kuil"), ("pit", "pit")]
    assert without_definitions("Bali\nBali\nisland") == "Bali\nBali"


@pytest.mark.parametrize("types", ["m", "tm", "h", ""])
@pytest.mark.parametrize("wide", [False, True])
def test_stardict_in_its_variants(tmp_path: Path, types: str, wide: bool) -> None:
    articles = {word: text.replace("\n", "<br>") for word, text in ARTICLES.items()} if types == "h" else ARTICLES
    assert read_dictionary(stardict(tmp_path, articles, types=types, wide=wide)) == ENTRIES
    assert read_dictionary(tmp_path / "d.idx") == ENTRIES


def test_tei(tmp_path: Path) -> None:
    path = tei(tmp_path)
    assert read_dictionary(path) == ENTRIES
    packed = tmp_path / "d.tei.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_dictionary(packed) == ENTRIES


def test_columns_and_records_by_name_or_place(tmp_path: Path) -> None:
    rows = {
        "a.csv": "target,source\n" + "".join(f"{target},{source}\n" for source, target in ENTRIES),
        "b.csv": "".join(f"{source};{target}\n" for source, target in ENTRIES),
        "c.csv": "id,nl,en\n" + "".join(f"7,{target},{source}\n" for source, target in ENTRIES),
        "d.jsonl": "".join(json.dumps({"translation": target, "word": source}) + "\n" for source, target in ENTRIES),
        "e.tsv": "# words\nsource\ttarget\n" + "".join(f"{source}\t{target}\tnoun\n" for source, target in ENTRIES),
    }
    for name, text in rows.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_dictionary(tmp_path / name, (ENGLISH, DUTCH)) == ENTRIES, name
    assert read_dictionary(tmp_path / "c.csv") == [(target, source) for source, target in ENTRIES]


def test_words_are_counted_in_scripts_with_marks(tmp_path: Path) -> None:
    index = dictd(tmp_path, "eng-hin", {"dictionary": "शब्दकोश, हिन्दी का शब्दकोश"})
    assert [target for _, target in read_dictionary(index, (ENGLISH, HINDI))] == ["शब्दकोश", "हिन्दी का शब्दकोश"]


@pytest.mark.parametrize("name", ["d.ifo", "d.idx", "d.dict.dz"])
def test_a_stardict_that_is_cut_short_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = stardict(tmp_path, ARTICLES)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: 10 if name == "d.ifo" else len(whole) // 2])
    with pytest.raises(VocabTransferError, match=r"d\.ifo"):
        read_dictionary(path)
    (tmp_path / name).unlink()
    with pytest.raises(VocabTransferError, match=r"d\.ifo"):
        read_dictionary(path)


@settings(max_examples=60, deadline=None)
@given(index=st.binary(max_size=60), text=st.binary(max_size=60))
def test_no_bytes_give_a_foreign_error(tmp_path_factory: pytest.TempPathFactory, index: bytes, text: bytes) -> None:
    folder = tmp_path_factory.mktemp("d")
    path = stardict(folder, {"a": "b"})
    (folder / "d.idx").write_bytes(index)
    (folder / "d.dict.dz").write_bytes(text)
    (folder / "x.index").write_bytes(base64.b64encode(index) + b"\t" + text)
    (folder / "x.dict").write_bytes(text)
    (folder / "t.tei").write_bytes(b"<TEI>" + text)
    for read in (
        lambda: list(read_stardict(path)),
        *(lambda n=n: read_dictionary(folder / n) for n in ("x.index", "t.tei")),
    ):
        try:
            read()
        except VocabTransferError as problem:
            assert str(folder) in str(problem)


def test_entities_are_not_unfolded(tmp_path: Path) -> None:
    path = tmp_path / "d.tei"
    path.write_text('<!DOCTYPE x [<!ENTITY a "b">]><TEI><entry><form><orth>&a;</orth></form></entry></TEI>')
    with pytest.raises(VocabTransferError, match="not a TEI dictionary"):
        read_dictionary(path)
