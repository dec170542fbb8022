"""Every service's client against a small server of the same shape, with what goes wrong out there."""

import bz2
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from corpus_servers import Fault, Site, hub_site, opus_site, serving
from vocabtransfer_cli.main import run

from vocabtransfer.corpora import services
from vocabtransfer.corpora.catalogue import list_corpora, sources
from vocabtransfer.corpora.fetch import fetch_corpus
from vocabtransfer.corpora.folder import open_corpus
from vocabtransfer.corpora.identification import identify
from vocabtransfer.corpora.licences import opus_data_set
from vocabtransfer.corpora.sources import hub, mtdata_index, opus
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files import download as downloading
from vocabtransfer.languages import find_language

ENGLISH = [
    "The book lies on the table.",
    "A new file was opened today.",
    "I see two houses and one book.",
    "Close it, please.",
]
TATAR = [
    "Китап өстәл өстендә ята.",
    "Бүген яңа файл ачылды.",
    "Мин ике йорт һәм бер китап күрәм.",
    "Ябыгыз аны, зинһар.",
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, no waiting, and hosts that are asked afresh."""
    monkeypatch.setenv("VOCABTRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VOCABTRANSFER_OFFLINE", raising=False)
    monkeypatch.setattr(downloading.time, "sleep", lambda seconds: None)
    # The language model comes from a package; these few lines are no matter for it.
    monkeypatch.setattr("vocabtransfer.corpora.screening.identify", lambda lines, identifier: [("", 0.0)] * len(lines))
    services._knock.cache_clear()


@pytest.fixture
def opus_here(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A pretend OPUS with three data sets and a dictionary."""
    site = opus_site(
        {
            "GNOME": {"en": ENGLISH[:2], "tt": TATAR[:2]},
            "Tatoeba": {"en": ENGLISH[1:], "tt": TATAR[1:]},
            "Elhuyar": {"en": ["A sentence."], "tt": ["Җөмлә бу."]},
        },
        {"QED": "3\t0.5\tbook\tкитап\n2\t0.4\thouse\tйорт\nhouse\tйорт\n"},
    )
    with serving(site):
        monkeypatch.setenv("VOCABTRANSFER_SERVICE_OPUS", f"{site.url}/api")
        monkeypatch.setenv("VOCABTRANSFER_SERVICE_OPUS_FILES", site.url)
        yield site


def test_opus_is_listed_with_sizes_and_licences(opus_here: Site) -> None:
    offers = {offer.label: offer for offer in list_corpora("tatar", names=["opus"])}
    assert set(offers) == {"opus:GNOME", "opus:Tatoeba", "opus:Elhuyar", "opus:QED-dic"}
    tatoeba = offers["opus:Tatoeba"]
    assert tatoeba.licence == "CC-BY-2.0-FR" and tatoeba.pairs == 3 and not tatoeba.refusal
    assert tatoeba.address.startswith(opus_here.url)
    assert offers["opus:Elhuyar"].licence == opus_data_set("?").licence
    assert offers["opus:QED-dic"].kind == "dictionary"


def test_opus_is_fetched_cleaned_and_credited(opus_here: Site, tmp_path: Path) -> None:
    opus_here.faults["/OPUS-GNOME/v1/moses/en-tt.txt.zip"] = [Fault(cut_after=50), Fault(status=429, retry_after="1")]
    corpus = fetch_corpus("tt", tmp_path / "tt", names=["opus"])
    rows = [line.split("\t") for line in _read(corpus.pairs)]
    assert {tuple(row[1:]) for row in rows} == {*zip(ENGLISH, TATAR, strict=True), ("A sentence.", "Җөмлә бу.")}
    assert _read(corpus.dictionary) == ["book\tкитап", "house\tйорт"]
    parts = {part["part"]: part for part in corpus.parts}
    # The second sentence stands in both data sets.
    assert parts["opus:GNOME"]["kept"] + parts["opus:Tatoeba"]["kept"] == 4
    assert sum(sum(part["dropped"].values()) for part in corpus.parts) == 2
    assert "CC-BY-2.0-FR" in corpus.licences()
    page = (corpus.path / "corpus.html").read_text(encoding="utf-8")
    assert "Tiedemann" in page and "Китап өстәл" in page and "nearly the same as another" in page
    assert open_corpus(tmp_path / "tt").facts == corpus.facts
    asked = len(opus_here.asked)
    again = fetch_corpus("tt", tmp_path / "again", names=["opus"])
    assert again.pairs is not None and corpus.pairs is not None
    assert again.pairs.read_bytes() == corpus.pairs.read_bytes()
    assert len(opus_here.asked) == asked + 2, "only the two listings were asked for again"


def test_limits_are_kept(opus_here: Site, tmp_path: Path) -> None:
    corpus = fetch_corpus("tt", tmp_path / "tt", names=["opus"], pairs=2)
    assert corpus.facts["totals"]["pairs"] == 2
    with pytest.raises(VocabTransferError, match="may be: not fetched"):
        fetch_corpus("tt", tmp_path / "none", names=["opus:GNOME"], most_download=10)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("answer", [b"", b"<html>busy</html>", {"corpora": "none"}, [1]])
def test_an_answer_that_is_none_is_said(opus_here: Site, tmp_path: Path, answer: object) -> None:
    opus_here.answers["/api/"] = answer
    (offer,) = list_corpora("tt", names=["opus"])
    assert "the service has changed" in offer.refusal
    with pytest.raises(VocabTransferError, match="nothing could be fetched for Tatar from opus"):
        fetch_corpus("tt", tmp_path / "tt", names=["opus"])


def test_a_list_without_corpora_is_no_fault(opus_here: Site) -> None:
    opus_here.answers["/api/"] = {"corpora": []}
    assert list_corpora("tt", names=["opus"]) == []


def test_a_damaged_zip_is_deleted_and_the_rest_goes_on(opus_here: Site, tmp_path: Path) -> None:
    path = "/OPUS-GNOME/v1/moses/en-tt.txt.zip"
    whole = opus_here.files[path]
    opus_here.files[path] = whole[: len(whole) // 2]
    corpus = fetch_corpus("tt", tmp_path / "tt", names=["opus"])
    assert any("is damaged" in reason for reason in corpus.facts["missing"])
    assert corpus.facts["totals"]["pairs"] == 4
    opus_here.files[path] = whole
    assert fetch_corpus("tt", tmp_path / "again", names=["opus"]).facts["totals"]["pairs"] == 5


def test_unequal_sides_and_wrong_encodings_are_noted(tmp_path: Path) -> None:
    from corpus_servers import moses_zip

    unequal = tmp_path / "unequal.zip"
    unequal.write_bytes(moses_zip("X", {"en": ENGLISH, "tt": TATAR[:2]}))
    with pytest.raises(VocabTransferError, match="unequal numbers of lines"):
        list(opus.read_moses_zip(unequal, ("en", "tt")))
    with pytest.raises(VocabTransferError, match=r"has 0 files ending in \.ru"):
        list(opus.read_moses_zip(unequal, ("en", "ru")))
    import zipfile

    wrong = tmp_path / "wrong.zip"
    with zipfile.ZipFile(wrong, "w") as archive:
        archive.writestr("X.en-tt.en", "A book.\n")
        archive.writestr("X.en-tt.tt", "Китап.\n".encode("cp1251"))
    ((_, text),) = opus.read_moses_zip(wrong, ("en", "tt"))
    assert "\ufffd" in text, "which the filters call garbled"


def test_offline_everything_says_what_it_would_have_asked(opus_here: Site, tmp_path: Path) -> None:
    environment = {**os.environ, "VOCABTRANSFER_OFFLINE": "1"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vocabtransfer_cli.main", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)

    listed = run("corpus", "list", "tatar", "--from", "tatoeba", "--json")
    (offer,) = json.loads(listed.stdout)["offers"]
    assert not offer["reachable"] and offer["refusal"] == "VOCABTRANSFER_OFFLINE is set"
    assert offer["address"].endswith("/per_language/tat/tat-eng_links.tsv.bz2")
    fetched = run("corpus", "fetch", "tatar", "--from", "tatoeba", "--output", str(tmp_path / "tt"))
    assert fetched.returncode == 1 and "would have asked https://downloads.tatoeba.org" in fetched.stderr
    assert not (tmp_path / "tt").exists()
    assert not opus_here.asked


def test_tatoeba_joins_sentences_by_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def table(*rows: str) -> bytes:
        return bz2.compress("\n".join(rows).encode() + b"\n")

    site = Site(
        files={
            "/per_language/tat/tat-eng_links.tsv.bz2": table("1\t11", "2\t12", "3\t99", "broken"),
            "/per_language/tat/tat_sentences.tsv.bz2": table(
                *(f"{n + 1}\ttat\t{text}" for n, text in enumerate(TATAR))
            ),
            "/per_language/eng/eng_sentences.tsv.bz2": table(
                *(f"{n + 11}\teng\t{text}" for n, text in enumerate(ENGLISH))
            ),
        }
    )
    with serving(site):
        monkeypatch.setenv("VOCABTRANSFER_SERVICE_TATOEBA", site.url)
        corpus = fetch_corpus("tatar", tmp_path / "tt", names=["tatoeba"])
        assert [line.split("\t")[1:] for line in _read(corpus.pairs)] == [
            [ENGLISH[0], TATAR[0]],
            [ENGLISH[1], TATAR[1]],
        ]
        site.files.clear()
        with pytest.raises(VocabTransferError, match="the server says 404"):
            fetch_corpus("welsh", tmp_path / "cy", names=["tatoeba"])


def test_mtdata_entries_come_through_our_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mtdata")
    import gzip
    import tarfile

    rows = "".join(f"0.9\t{one}\t{other}\n" for one, other in zip(ENGLISH, TATAR, strict=True))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, lines in (("x/a.eng", ENGLISH), ("x/a.tat", TATAR)):
            member = tarfile.TarInfo(name)
            data = ("\n".join(lines) + "\n").encode()
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with serving(Site(files={"/m.tsv.gz": gzip.compress(rows.encode()), "/a.tar.gz": packed.getvalue()})) as site:
        from mtdata.entry import Entry

        entries = [
            Entry("Facebook-wikimatrix-1-eng-tat", f"{site.url}/m.tsv.gz", cols=(1, 2)),
            Entry("Statmt-news-1-eng-tat", f"{site.url}/a.tar.gz", in_paths=["*/a.eng", "*/a.tat"], in_ext="txt"),
        ]
        monkeypatch.setattr(mtdata_index, "entries_of", lambda source, target: entries if source else [])
        corpus = fetch_corpus("tatar", tmp_path / "tt", names=["mtdata"])
        assert corpus.facts["totals"]["pairs"] == 4
        assert {part["part"] for part in corpus.parts} == {"mtdata:Facebook-wikimatrix-1", "mtdata:Statmt-news-1"}
        site.files["/a.tar.gz"] = b"no archive"
        again = fetch_corpus("tatar", tmp_path / "again", names=["mtdata"])
        assert again.facts["totals"]["pairs"] == 4, "what was fetched before is in the cache"


def test_benchmarks_are_never_trained_on() -> None:
    pytest.importorskip("mtdata")
    offers = sources()["mtdata"].offers(find_language("en"), find_language("tt"))
    names = [offer.name.lower() for offer in offers]
    assert names and not any("ntrex" in name or "flores" in name for name in names)


@pytest.mark.slow
def test_the_hub_is_streamed(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    import pyarrow
    from pyarrow import parquet

    packed = io.BytesIO()
    documents = [f"{TATAR[number % 4]}\n{number} нчы җөмлә монда бик озын итеп языла." for number in range(50)]
    parquet.write_table(pyarrow.table({"text": documents}), packed)
    site = hub_site("HuggingFaceFW/fineweb-2", "tat_Cyrl", packed.getvalue())
    # datasets reads its settings when it is imported, so it runs in a process of its own.
    code = (
        "from vocabtransfer.corpora.fetch import fetch_corpus\n"
        "import sys\n"
        "corpus = fetch_corpus('tatar', sys.argv[1], names=['hub:fineweb-2'], text=150)\n"
        "print(corpus.text.read_bytes()[:6].hex(), corpus.facts['totals']['text_bytes'], corpus.licences())\n"
        "try:\n"
        "    fetch_corpus('tatar', sys.argv[1] + '-2', names=['hub:hplt'])\n"
        "except Exception as problem:\n"
        "    print(problem)\n"
    )
    with serving(site):
        environment = {**os.environ, "HF_ENDPOINT": site.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
        command = [sys.executable, "-c", code, str(tmp_path / "tt")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[:2]
    assert first.startswith("fd377a585a00") and "ODC-BY" in first
    assert 150 <= int(first.split()[1]) < 300
    assert "HPLT/HPLT3.0 [tat_Cyrl] cannot be streamed" in second


def test_every_hub_configuration_has_the_language_in_it() -> None:
    language = find_language("tatar")
    assert {name for known in hub.DATA_SETS.values() for name in known.configurations(language)} == {
        "tat_Cyrl",
        "20231101.tt",
        "tat-Cyrl",
    }


def test_unknown_sources_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no source 'opsu'"):
        list_corpora("tatar", names=["opsu"])
    with pytest.raises(UsageError, match="both Tatar"):
        fetch_corpus("tatar", tmp_path / "tt", source_language="tt")
    with pytest.raises(VocabTransferError, match=r"holds no corpus\.json"):
        open_corpus(tmp_path)


def _read(path: Path | None) -> list[str]:
    from vocabtransfer.files.text_files import read_lines

    assert path is not None
    return [line for _, line in read_lines(path)]


def test_a_mixture_and_a_wrong_language_are_told_with_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Russian lines between Tatar ones are dropped; a part that is all Russian is kept and told, in folder and command."""
    monkeypatch.setattr("vocabtransfer.corpora.screening.identify", identify)
    monkeypatch.setattr("vocabtransfer.corpora.screening.LEAST_LINES", 20)
    shipped = Path(__file__).parents[1] / "data" / "held_out"
    tatar, russian = (
        [line for line in (shipped / f"{code}.txt").read_text(encoding="utf-8").splitlines() if len(line) > 60]
        for code in ("tt", "ru")
    )
    assert len(tatar) > 40 and len(russian) > 50
    mixed = [*tatar[:40], *russian[:30]]
    sides = {
        "Mixed": {"en": [f"Line {'x' * n} of an English text, as long as others." for n in range(70)], "tt": mixed},
        "Wrong": {"en": [f"Words {'y' * n} of one more English text." for n in range(50)], "tt": russian[:50]},
    }
    with serving(opus_site(sides, {})) as site:
        monkeypatch.setenv("VOCABTRANSFER_SERVICE_OPUS", f"{site.url}/api")
        monkeypatch.setenv("VOCABTRANSFER_SERVICE_OPUS_FILES", site.url)
        corpus = fetch_corpus("tatar", tmp_path / "tt", names=["opus"])
    parts = {part["part"]: part for part in corpus.parts}
    assert parts["opus:Mixed"]["languages"]["ru"] == pytest.approx(30 / 70, abs=0.05)
    assert parts["opus:Mixed"]["dropped"]["in another language"] == pytest.approx(30, abs=2)
    assert parts["opus:Wrong"]["languages"] == {"ru": 1.0}
    (warning,) = corpus.facts["warnings"]
    assert "opus:Wrong: only 0 % of its lines are taken for Tatar (by py3langid: 100 % ru)" in warning
    run(["corpus", "show", str(corpus.path)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "% tt" in shown and "taken for 100 % ru" in shown
