"""Corpora in shards: the same words and the same pairs however the work is spread, from files and object stores."""

import json
import random
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from vocabtransfer_cli.main import app

from vocabtransfer.alignment.engines import open_engine
from vocabtransfer.alignment.filters import PairFilter
from vocabtransfer.alignment.words import split_words
from vocabtransfer.corpora import shards as shards_module
from vocabtransfer.corpora.shards import count_corpus, filter_corpus
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files import remote
from vocabtransfer.files.text_files import read_lines
from vocabtransfer.languages import find_language

NOUNS = {"house": "дом", "river": "река", "book": "книга", "window": "окно", "bread": "хлеб", "city": "город"}
KINDS = {"new": "новый", "old": "старый", "green": "зелёный", "small": "маленький", "good": "хороший"}
RULES = PairFilter(find_language("en"), find_language("russian"))


def pairs(count: int) -> list[tuple[str, str]]:
    chance = random.Random(1)
    made = []
    for _ in range(count):
        words = [chance.choice([*NOUNS.items(), *KINDS.items()]) for _ in range(chance.randint(2, 6))]
        pair = " ".join(word for word, _ in words), " ".join(word for _, word in words)
        made.append(chance.choice([pair] * 12 + [(pair[0], pair[0]), (pair[0], "Ð´Ð¾Ð¼"), (pair[0] * 9, pair[1])]))
    return made


def write_shards(folder: Path, count: int = 900, size: int = 200) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    everything = pairs(count)
    for number in range(0, count, size):
        lines = (f"{source}\t{target}\n" for source, target in everything[number : number + size])
        (folder / f"in-{number:04d}.tsv").write_text("".join(lines), encoding="utf-8")
    return [str(folder / "in-*.tsv")]


def lines_of(files: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for file in files:
        with remote.fetched(file) as path:
            found += [line for _, line in read_lines(path)]
    return found


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    return write_shards(tmp_path / "in")


def test_words_are_those_of_the_whole_text(shards: list[str]) -> None:
    expected = Counter(word for _, target in pairs(900) for word in split_words(target))
    counted = count_corpus(shards, field="1")
    assert counted == expected and list(counted) == sorted(counted)


def test_shards_keep_what_one_file_keeps(shards: list[str], tmp_path: Path) -> None:
    judged = list(RULES.judge(pairs(900)))
    made = filter_corpus(shards, str(tmp_path / "out"), rules=RULES)
    assert made.read == 900 and made.kept == sum(pair.reason is None for pair in judged)
    # A reader that knows the languages drops what is in another script before it comes to be judged.
    assert sum(made.dropped.values()) == 900 - made.kept
    assert made.dropped["seen before"] == sum(pair.reason == "seen before" for pair in judged)
    assert len(made.dropped) >= 3
    assert lines_of(made.files) == [f"{pair.source}\t{pair.target}" for pair in judged if pair.reason is None]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"part-{i:05d}.tsv.zst" for i in range(5)]


def test_an_output_is_replaced_only_when_asked(shards: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    filter_corpus(shards, out, rules=RULES)
    with pytest.raises(VocabTransferError, match="holds 5 parts"):
        filter_corpus(shards, out, rules=RULES)
    made = filter_corpus(remote.expanded(shards)[:2], out, rules=RULES, overwrite=True)
    assert sorted(map(str, (tmp_path / "out").iterdir())) == list(made.files)


def test_a_bad_shard_leaves_nothing_behind(shards: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "SAMPLE", 100)  # so that the last shard is not looked at before it is judged
    (tmp_path / "in" / "in-9999.tsv").write_bytes(b"PK\x03\x04 no text")
    with pytest.raises(VocabTransferError, match="zip archive"):
        filter_corpus(shards, str(tmp_path / "out"), rules=RULES)
    assert not list((tmp_path / "out").glob("*"))
    with pytest.raises(VocabTransferError, match="matches no file"):
        filter_corpus([str(tmp_path / "none-*.tsv")], str(tmp_path / "out"))
    with pytest.raises(VocabTransferError, match="no sentence pair is left"):
        (tmp_path / "same.tsv").write_text("дом\tдом\nрека\tрека\n")
        filter_corpus([str(tmp_path / "same.tsv")], str(tmp_path / "other"), rules=RULES)
    assert not list((tmp_path / "other").glob("*"))


def test_an_object_store_gives_and_takes(shards: list[str], tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    for file in remote.expanded(shards):
        store.pipe_file(f"/bucket/in/{Path(file).name}", Path(file).read_bytes())
    here = filter_corpus(shards, str(tmp_path / "out"), rules=RULES)
    there = filter_corpus(["memory://bucket/in/in-*.tsv"], "memory://bucket/out", rules=RULES)
    assert lines_of(there.files) == lines_of(here.files) and there.dropped == here.dropped
    assert sorted(store.ls("/bucket/out", detail=False)) == [f"/bucket/out/part-{i:05d}.tsv.zst" for i in range(5)]
    assert count_corpus(["memory://bucket/in/in-*.tsv"], field="1") == count_corpus(shards, field="1")
    for address, error, said in (
        ("memory://bucket/none.tsv", VocabTransferError, "does not exist"),
        ("nothing://bucket/x.tsv", UsageError, "no address that can be read"),
    ):
        with pytest.raises(error, match=said):
            count_corpus([address])


def run(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    assert app(args=[*map(str, words), "--json"], standalone_mode=False) is None
    return dict(json.loads(capsys.readouterr().out))


def test_the_commands_count_filter_and_train(
    shards: list[str], tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = run(capsys, "corpus", "filter", *shards, "--target", "russian", "--output", tmp_path / "clean")
    assert facts["read"] == 900 and facts["parts"] == 5
    counts = tmp_path / "words.tsv.zst"
    counted = run(capsys, "corpus", "count", tmp_path / "clean" / "part-*.tsv.zst", "--field", 1, "--output", counts)
    assert counted["words"] == len(NOUNS) + len(KINDS)
    made = ("tokenizer", "train", "--like", tiny_llama, "--vocab-size", 300, "--output", tmp_path / "tokenizer")
    assert run(capsys, *made, "--counts", counts)["tokens"] == 300
    (tmp_path / "bad.tsv").write_text("дом\t3\nрека много\n")
    for words, said in ((("--counts", tmp_path / "bad.tsv"), "line 2"), ((), "either --text")):
        with pytest.raises(VocabTransferError, match=said):
            run(capsys, *made, *words, "--overwrite")


@pytest.mark.slow
def test_two_processes_and_two_workers_of_ray_do_what_one_process_does(shards: list[str], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'vocabtransfer[ray]'")
    address = f"file://{tmp_path}/in/in-*.tsv"  # what a store's address looks like to fsspec, from any process
    here = filter_corpus(shards, str(tmp_path / "here"), rules=RULES)
    words = count_corpus(shards, field="1")
    for engine in ("local", "ray"):
        there = filter_corpus([address], f"file://{tmp_path}/{engine}", rules=RULES, engine=engine, processes=2)
        assert lines_of(there.files) == lines_of(here.files) and there.dropped == here.dropped
        assert count_corpus([address], field="1", engine=engine, processes=2) == words
    with open_engine("ray", 2):
        import ray

        assert ray.cluster_resources()["CPU"] == 2
