"""Text in every kind of file people have is the same text; what is unclear is said, and nothing foreign surfaces."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import vocabtransfer as vt
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.text import Text, as_text, read_text

LINES = ["Mijn broer ziet brood.", 'Zij zei: "Nee, dank je."', "Өй зур, китап яхшы.", "一本书"]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows: list[list[str]], delimiter: str, quoting: Any = csv.QUOTE_MINIMAL) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows(rows)
    return text.getvalue().encode()


RECORDS = [{"id": number, "text": line, "url": "x"} for number, line in enumerate(LINES)]
ROWS = [["id", "text", "url"], *([str(row["id"]), str(row["text"]), "x"] for row in RECORDS)]
FILES = {
    "a.txt": "\n".join(LINES).encode(),
    "a.jsonl": jsonl(RECORDS),
    "a": jsonl(RECORDS),  # what a file is shows in its lines
    "a.json": json.dumps(RECORDS).encode(),
    "a.csv": table(ROWS, ","),
    "semicolons.csv": table(ROWS, ";"),
    "one.csv": table([["text"], *([line] for line in LINES)], ","),
    "a.tsv": table(ROWS, "\t"),
    "all.tsv": table(ROWS, "\t", csv.QUOTE_ALL),
    "plain.tsv": "\n".join("\t".join(row) for row in ROWS).encode(),
}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_lines(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(COMPRESS[suffix](FILES[name]))
    text = vt.read_text(path)
    assert list(text) == LINES == list(text)  # again and again
    if name not in ("a.txt", "one.csv"):
        assert list(read_text(path, field="text")) == LINES


def test_parquet_arrow_and_saved_datasets(tmp_path: Path) -> None:
    rows = pa.table({"id": list(range(4)), "text": LINES, "meta": [{"url": "x"}] * 4})
    pq.write_table(rows, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    saved = tmp_path / "saved" / "train"
    saved.mkdir(parents=True)
    (saved / "data-00000-of-00001.arrow").write_bytes((tmp_path / "a.arrow").read_bytes())
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (saved.parent / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (tmp_path / "parts").mkdir()
    pq.write_table(rows, tmp_path / "parts" / "0.parquet")
    for path in ("a.parquet", "a.arrow", "saved", "saved/train", "parts"):
        assert list(read_text(tmp_path / path)) == LINES, path
    assert list(read_text(tmp_path / "a.parquet", field="meta.url")) == ["x"] * 4
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(VocabTransferError, match=r"a\.parquet is damaged"):
        list(read_text(tmp_path / "a.parquet"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(VocabTransferError, match="is a folder"):
        list(read_text(tmp_path / "empty"))


def test_paths_are_taken_however_they_come(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n\ntwo\n")
    for given_ in (str(path), path, [str(path)], (path,), iter([path]), read_text(path)):
        assert list(vt.read_text(given_)) == ["one", "two"]
    assert list(read_text([path, str(path)])) == ["one", "two"] * 2
    assert list(as_text(["one", "two"])) == list(as_text(iter(["one", "two"]))) == ["one", "two"]
    assert list(as_text(lambda: ["one"])) == ["one"] and list(as_text([path])) == ["one", "two"]
    assert list(read_text(path).documents()) == ["one", "two"] and not Text() and read_text(path)
    with pytest.raises(UsageError, match="has to be str"):
        read_text([1])  # type: ignore[list-item]


def test_a_record_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl([{"text": "one\ntwo"}, {"text": "three\n\nfour"}, {"text": None}, {}]))
    assert list(read_text(path).documents()) == ["one\ntwo", "three", "four"]
    path.write_bytes(
        jsonl([{"messages": [{"role": "user", "content": "Hoi"}, {"role": "assistant", "content": "Ja"}]}])
    )
    assert list(read_text(path).documents()) == ["Hoi\nJa"]


@pytest.mark.parametrize(
    ("name", "content", "field", "message"),
    [
        ("a.jsonl", jsonl([{"q": "a b", "a": "c d"}] * 2), None, "has the fields q, a: say which holds the text"),
        ("a.jsonl", jsonl([{"q": "a b"}]), "text", "no field 'text'|no field text"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', None, "line 2 is not a JSON object"),
        ("a.jsonl", b"[" * 9000 + b"\n", None, "line 1 is not a JSON object"),
        ("a.json", b"[1, 2]", None, "not a list of JSON objects"),
        ("a.json", b"[{]", None, "is not JSON"),
        ("a.csv", b"text,x\n" + b'"open ' + b"line\n" * 4_000_000, None, "quote never closed"),
        ("a.csv", b"een zin,nog een\nen dit,of dat\n", None, "2 columns: say which holds the text"),
        ("a.csv", b"een zin,nog een\nen dit,of dat\n", "7", "no column 7"),
        ("a.tsv", b"en,nl\tx\nx\xff\ty\n", "0", "line 2 is not UTF-8"),
    ],
)
def test_what_is_unclear_or_broken_is_said(
    tmp_path: Path, name: str, content: bytes, field: str | None, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VocabTransferError, match=message) as caught:
        list(read_text(path, field=field))
    assert str(path) in str(caught.value)


def test_columns_may_be_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"een zin,nog een\nen dit,of dat\n")
    assert list(read_text(path, field="1")) == ["nog een", "of dat"]


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip), min_size=1),
    delimiter=st.sampled_from(",;\t"),
)
def test_what_csv_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], delimiter: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(table([["id", "text"], *([f"n{n}", row] for n, row in enumerate(rows))], delimiter, csv.QUOTE_ALL))
    assert list(read_text(path)) == rows
