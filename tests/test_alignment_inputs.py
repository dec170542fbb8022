"""Sentence pairs in the files people have: columns and records by name, TMX of every dialect."""

import bz2
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vocabtransfer.alignment.corpora import read_parallel
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.languages import find_language

PAIRS = [(f'I see "house" number {n}, and you.', f'Ik zie "huis" nummer {n}, en jij.') for n in range(30)]
ENGLISH, DUTCH = find_language("en"), find_language("nl")


def quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"'


def tmx(units: str, *, root: str = "<tmx>", declared: str = "UTF-8", header: str = '<header srclang="en"/>') -> str:
    return f'<?xml version="1.0" encoding="{declared}"?>\n{root}{header}<body>\n{units}\n</body></tmx>'


def unit(**variants: str) -> str:
    parts = (f'<tuv xml:lang="{tag.replace("_", "-")}"><seg>{text}</seg></tuv>' for tag, text in variants.items())
    return f"<tu>{''.join(parts)}</tu>"


KINDS = {
    "a.csv": "\n".join(f"{quoted(s)},{quoted(t)}" for s, t in PAIRS),
    "head.csv": "id;nl;en\n" + "\n".join(f"{n};{quoted(t)};{quoted(s)}" for n, (s, t) in enumerate(PAIRS)),
    "quoted.tsv": "\n".join(f"{quoted(s)}\t{quoted(t)}" for s, t in PAIRS),
    "plain.tsv": "\n".join(f"{s}\t{t}" for s, t in PAIRS),
    "named.tsv": "target\tsource\n" + "\n".join(f"{t}\t{s}" for s, t in PAIRS),
    "a.jsonl": "\n".join(json.dumps({"english": s, "dutch": t, "score": 1}) for s, t in PAIRS),
    "nested.jsonl": "\n".join(json.dumps({"translation": {"nl": t, "en": s}}) for s, t in PAIRS),
    "a.json": json.dumps([{"src": s, "tgt": t} for s, t in PAIRS]),
    "bars": "\n".join(f"{s}|||{t}" for s, t in PAIRS),
    "wide-bars": "\n".join(f"{s} ||| {t}" for s, t in PAIRS),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(KINDS[name], encoding="utf-8")
    assert list(read_parallel(path, source=ENGLISH, target=DUTCH)) == PAIRS
    path.write_bytes(bz2.compress(KINDS[name].encode()))
    assert list(read_parallel([str(path)], source=ENGLISH, target=DUTCH)) == PAIRS


def test_parquet_with_a_translation_column(tmp_path: Path) -> None:
    rows = pa.table({"translation": [{"nl": t, "en": s} for s, t in PAIRS], "id": list(range(30))})
    pq.write_table(rows, tmp_path / "a.parquet")
    assert list(read_parallel(tmp_path / "a.parquet", source=ENGLISH, target=DUTCH)) == PAIRS
    assert list(read_parallel(tmp_path / "a.parquet", columns=("translation.en", "translation.nl"))) == PAIRS


def test_columns_are_named_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("note,one,two\n" + "\n".join(f"note {n},one {n},two {n}" for n in range(30)))
    assert next(iter(read_parallel(path, columns=("Two", "one")))) == ("two 0", "one 0")
    assert next(iter(read_parallel(path, columns=(1, "two"))))[1] == "two 0"
    with pytest.raises(UsageError, match="no field 'three': it has"):
        list(read_parallel(path, columns=("one", "three")))
    with pytest.raises(UsageError, match="say which two hold source and target"):
        list(read_parallel(path, source=ENGLISH, target=DUTCH))


def test_a_sentence_in_quotes_keeps_them(tmp_path: Path) -> None:
    pairs = [('"Hello."', '"Hallo."'), ('"Yes," he said.', '"Ja," zei hij.'), ("No.", "Nee.")]
    path = tmp_path / "a.tsv"
    path.write_text("\n".join(map("\t".join, pairs)))
    assert list(read_parallel(path)) == pairs


def test_one_column_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one,een\ntwo,twee\n")
    with pytest.raises(UsageError, match=r"parted by commas, name it \.csv"):
        read_parallel(path)


@pytest.mark.parametrize("root", ["<tmx>", '<tmx xmlns="http://www.lisa.org/tmx14">', '<x:tmx xmlns:x="urn:x">'])
def test_tmx_in_any_namespace(tmp_path: Path, root: str) -> None:
    path = tmp_path / "a.tmx"
    content = tmx(unit(en="The house.", nl="Het huis."), root=root)
    path.write_text(content.replace("</tmx>", "</x:tmx>") if "x:tmx" in root else content)
    assert list(read_parallel(path, source=ENGLISH, target=DUTCH)) == [("The house.", "Het huis.")]


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("dut", "dutch"), ("nld", "dutch"), ("NL-BE", "dutch"), ("nl_NL.UTF-8", "dutch"), ("Dutch", "dutch"),
        ("Nederlands", "dutch"), ("Dutch (Belgium)", "dutch"), ("ger", "german"), ("iw", "hebrew"), ("in", "indonesian"),
        ("swh", "swahili"), ("zsm", "malay"), ("lvs", "latvian"), ("pes", "persian"), ("no", "norwegian bokmål"),
        ("arb", "arabic"), ("cze", "czech"),
    ],
)  # fmt: skip
def test_tmx_knows_every_code_and_name(tmp_path: Path, tag: str, language: str) -> None:
    target = find_language(language)
    text = {"Hebr": "בית", "Arab": "خانه"}.get(target.script, "huis")
    path = tmp_path / "a.tmx"
    path.write_text(
        tmx(f'<tu><tuv lang="eng"><seg>house</seg></tuv><tuv xml:lang="{tag}"><seg>{text}</seg></tuv></tu>')
    )
    assert list(read_parallel(path, source=ENGLISH, target=target)) == [("house", text)]


ZH = {"zh_CN": "我读一本书。", "zh_TW": "我讀一本書。"}


@pytest.mark.parametrize(
    ("asked", "variants", "wanted"),
    [
        ("zh-TW", ZH, "zh_TW"),
        ("zh-Hant", ZH, "zh_TW"),
        ("zh-CN", ZH, "zh_CN"),
        ("chinese", ZH, "zh_CN"),
        ("chinese", {"zh_TW": "我讀", "zh_Hans_SG": "我读"}, "zh_Hans_SG"),
        ("zh-TW", {"zh": "我讀一本書。"}, "zh"),
        ("pt-BR", {"pt_PT": "autocarro", "pt": "carro", "pt_BR": "ônibus"}, "pt_BR"),
        ("pt-BR", {"pt_PT": "autocarro", "pt": "carro"}, "pt"),
        ("pt", {"pt_BR": "ônibus"}, "pt_BR"),
        ("sr-Latn", {"sr_Cyrl": "кућа", "sr_Latn": "kuća"}, "sr_Latn"),
        ("serbian", {"sr_Latn": "kuća", "sr_Cyrl": "кућа"}, "sr_Cyrl"),
    ],
)
def test_script_and_region_choose_the_variant(
    tmp_path: Path, asked: str, variants: dict[str, str], wanted: str
) -> None:
    path = tmp_path / "a.tmx"
    path.write_text(tmx(unit(en="A book.", **variants)), encoding="utf-8")
    assert list(read_parallel(path, source=ENGLISH, target=find_language(asked))) == [("A book.", variants[wanted])]


def test_a_wrong_script_is_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx"
    path.write_text(tmx(unit(en="One.", zh_TW="一個") + unit(en="Two.", zh_CN="两个")), encoding="utf-8")
    corpus = read_parallel(path, source=ENGLISH, target=find_language("zh-TW"))
    assert list(corpus) == [("One.", "一個")]
    assert corpus.statistics.skipped == {"with a target in another script": 1}


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-16", "latin-1", "windows-1252", "iso-8859-15", "big5", "gb18030", "shift_jis", "euc-kr"]
)
def test_tmx_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    text = {"big5": "我讀", "gb18030": "我读", "shift_jis": "本です", "euc-kr": "한국어"}.get(encoding, "één")
    path = tmp_path / "a.tmx"
    path.write_bytes(tmx(unit(en="one", qaa=text), declared=encoding).encode(encoding))
    assert list(read_parallel(path, source=ENGLISH)) == [("one", text)]


NESTED = "<hi>" * 3000 + "house" + "</hi>" * 3000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('<tmx><header srclang="en"/>\n<tu/></tmx>', "line 2: a <tu> stands outside <body>"),
        ('<tmx><header srclang="en"/>\n</tmx>', "line 2: the file ends without a <body>"),
        (tmx("", declared="no-such-encoding"), "line 1 names the encoding 'no-such-encoding'"),
        (tmx("", declared="base64"), "line 1 names the encoding 'base64'"),
        (tmx(unit(en="a", nl="b") + "<tu>\n<tuv>"), "line 5, column"),
    ],
)
def test_a_broken_tmx_is_one_sentence_with_the_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.tmx"
    path.write_text(content)
    with pytest.raises(VocabTransferError, match=message) as caught:
        list(read_parallel(path, source=ENGLISH, target=DUTCH))
    assert str(path) in str(caught.value)


def test_bytes_that_are_not_in_the_declared_encoding_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx"
    path.write_bytes(tmx(unit(en="a", nl="b"), declared="big5").encode() + b"\n\xff\xff")
    with pytest.raises(VocabTransferError, match="line 5 is not in big5"):
        list(read_parallel(path, source=ENGLISH, target=DUTCH))


def test_nested_markup_of_any_depth(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx"
    path.write_text(tmx(unit(en=NESTED, nl="huis <bpt><sub>x</sub></bpt>nu")))
    assert list(read_parallel(path, source=ENGLISH, target=DUTCH)) == [("house", "huis nu")]
