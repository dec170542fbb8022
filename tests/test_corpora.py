"""Parallel text: cleaning, the readers of every kind of package, the registry, and a corpus from end to end."""

import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import polib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabtransfer.alignment.dictionary_files import glosses, read_dictd
from vocabtransfer.corpora import cleaning, locales
from vocabtransfer.corpora.cleaning import clean_pair, split_sentences, strip_accelerators
from vocabtransfer.corpora.package_source import Source, locale_key
from vocabtransfer.corpora.parallel import fetch_parallel
from vocabtransfer.corpora.registry import SOURCES, sources_for
from vocabtransfer.corpora.sources.gettext_catalogues import read_catalogue
from vocabtransfer.corpora.sources.json_strings import read_json
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.packages import REGISTRIES
from vocabtransfer.languages import find_language

SHIPPED = ("tt", "nl", "ru", "tr", "kk", "sw", "hi", "de")
BY_NAME = {source.name: source for source in SOURCES}


# --- cleaning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("_File", "File"),
        ("Save _As…", "Save As…"),
        ("E&xit", "Exit"),
        ("~Insert", "Insert"),
        ("Файл (_F)", "Файл"),
        ("文件(&F)...", "文件..."),
        ("Black & white", "Black & white"),
        ("&lt;none&gt;", "&lt;none&gt;"),
        ("LC_ALL_NAMES", "LC_ALL_NAMES"),
        ("https://example.org/a_b", "https://example.org/a_b"),
    ],
)
def test_accelerators(text: str, expected: str) -> None:
    assert strip_accelerators(text) == expected


@pytest.mark.parametrize(
    "message",
    (
        "%d files",
        "Saved %(name)s",
        "%1$s of %2$s",
        "Open {file}",
        "{count, plural, one {a} other {b}}",
        "$1 pages",
        "Use ${HOME}",
        "@PACKAGE@ version",
        "[[link]] text",
        "100%% sure",
        "%1 of %2",
        "a\\nb",
    ),
)
def test_messages_with_holes_are_dropped(message: str) -> None:
    assert clean_pair(message, "татарча сүзләр", "Cyrl") is None
    assert clean_pair("English words", f"сүзләр {message}", "Cyrl") is None


@pytest.mark.parametrize(
    ("english", "target", "script", "expected"),
    [
        ("_Open  file", "Файлны\u00a0ачу", "Cyrl", ("Open file", "Файлны ачу")),
        ("Press <b>Save</b>", "<b>Саклау</b> басыгыз", "Cyrl", ("Press Save", "Саклау басыгыз")),
        ("Caf\u00e9 name", "Cafe\u0301naam", "Latn", ("Café name", "Cafénaam")),
        ("New list", "Nieuwe l\u0133st", "Latn", ("New list", "Nieuwe lijst")),
        ("Go", "Башкарырга", "Cyrl", ("Go", "Башкарырга")),
        ("The file could not be opened", "无法打开该文件", "Hans", ("The file could not be opened", "无法打开该文件")),
    ],
)
def test_kept_pairs(english: str, target: str, script: str, expected: tuple[str, str]) -> None:
    assert clean_pair(english, target, script) == expected


@pytest.mark.parametrize(
    ("english", "target", "script"),
    [
        ("", "сүз", "Cyrl"),
        ("word", " ", "Cyrl"),
        ("Linux", "linux", "Latn"),
        ("Not translated yet", "Not translated yet", "Latn"),
        ("Open the file in a window", "Open the file in window", "Latn"),
        ("Open file", "Open bestand", "Cyrl"),
        ("Short", "Бик озын тәрҗемә, инглизчәсе белән чагыштырганда артык озын", "Cyrl"),
        ("A sentence that is far longer than what it is said to mean", "Юк", "Cyrl"),
        ("Broken \ufffd text", "Татарча текст", "Cyrl"),
        ("less <than that", "шуннан ким", "Cyrl"),
        ("x" * 1600, "ы" * 1600, "Cyrl"),
    ],
)
def test_refused_pairs(english: str, target: str, script: str) -> None:
    assert clean_pair(english, target, script) is None


def test_fewest_words() -> None:
    assert clean_pair("Open", "Ачу", "Cyrl") == ("Open", "Ачу")
    assert clean_pair("Open", "Ачу", "Cyrl", min_words=2) is None


@given(st.text(), st.text(), st.sampled_from(["Cyrl", "Latn", "Deva", "Hans"]))
def test_whatever_passes_is_clean(english: str, target: str, script: str) -> None:
    kept = clean_pair(english, f"{target} сүз word शब्द 字", script)
    if kept is not None:
        for side in kept:
            assert side == cleaning.normalise(side) and not set("\t\n\r<>\ufffd") & set(side)
            assert not cleaning.has_placeholder(side)
        assert cleaning.script_share(kept[1], script) >= 0.5


@given(st.lists(st.from_regex(r"[A-Z][a-z]{1,8}[.!?]", fullmatch=True), min_size=1, max_size=5))
def test_sentences_split_only_when_both_sides_agree(sentences: list[str]) -> None:
    text = " ".join(sentences)
    assert split_sentences(text, text) == [(sentence, sentence) for sentence in sentences]
    if len(sentences) > 1:
        assert split_sentences(text, sentences[0]) == [(text, sentences[0])]


# --- readers --------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def catalogue() -> polib.POFile:
    entries = polib.POFile()
    entries.metadata = {"Content-Type": "text/plain; charset=UTF-8"}
    entries.append(polib.POEntry(msgid="_Open file", msgstr="Файлны _ачу"))
    entries.append(polib.POEntry(msgid="Book", msgstr="Китап", msgctxt="noun"))
    entries.append(polib.POEntry(msgid="Unsure", msgstr="Төгәл түгел", flags=["fuzzy"]))
    entries.append(polib.POEntry(msgid="Nothing", msgstr=""))
    entries.append(polib.POEntry(msgid="One file", msgid_plural="Files", msgstr_plural={0: "Файл", 1: "Файллар"}))
    entries.append(polib.POEntry(msgid="Gone", msgstr="Юк", obsolete=True))
    return entries


def test_catalogues_give_finished_translations_only(tmp_path: Path) -> None:
    catalogue().save(str(tmp_path / "x.po"))
    catalogue().save_as_mofile(str(tmp_path / "x.mo"))
    expected = {("_Open file", "Файлны _ачу"), ("Book", "Китап")}
    assert set(read_catalogue(tmp_path / "x.po")) == expected
    assert set(read_catalogue(tmp_path / "x.mo")) == expected


@pytest.mark.parametrize("name", ["bad.mo", "bad.po"])
def test_damaged_catalogues_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x01\x02 no catalogue at all")
    with pytest.raises(VocabTransferError, match=name):
        list(read_catalogue(tmp_path / name))


def test_desktop_strings_keep_single_words_apart(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/locale/tt/LC_MESSAGES"
    folder.mkdir(parents=True)
    catalogue().save_as_mofile(str(folder / "x.mo"))
    catalogue().save_as_mofile(str(folder / "iso_639-3.mo"))
    found = sorted(BY_NAME["gettext"].read([tmp_path], "tt"))
    assert found == [("gettext", "_Open file", "Файлны _ачу"), ("gettext-terms", "Book", "Китап")]


def test_mediawiki_pairs_lines_where_they_match(tmp_path: Path) -> None:
    english = {"@metadata": {"authors": ["x"]}, "a": "'''Book'''", "b": "one\ntwo", "c": "x\ny", "only": "English"}
    write(tmp_path / "i18n/en.json", json.dumps(english))
    write(tmp_path / "i18n/tt-cyrl.json", json.dumps({"a": "[[Китап|китап]]", "b": "бер\nике", "c": "икс", "d": "юк"}))
    write(tmp_path / "other/i18n/en.json", json.dumps({"a": "not in Tatar"}))
    found = list(BY_NAME["mediawiki"].read([tmp_path], "tt-cyrl"))
    assert [pair[1:] for pair in found] == [("Book", "китап"), ("one", "бер"), ("two", "ике"), ("x y", "икс")]


def test_names_from_npm_packages(tmp_path: Path) -> None:
    for code, bench, search in (("en", "Bench", "seat"), ("nl", "Bank", "zitplaats")):
        preset = {"presets": {"amenity/bench": {"name": bench, "terms": search}}}
        write(tmp_path / f"package/dist/translations/{code}.json", json.dumps({code: {"presets": preset}}))
    assert list(BY_NAME["osm-tags"].read([tmp_path], "nl")) == [("osm-tags", "Bench", "Bank")]

    for code, language, flower in (("en", "Dutch", ["flower"]), ("nl", "Nederlands", ["bloem"])):
        names = {"main": {code: {"localeDisplayNames": {"languages": {"nl": language}}}}}
        write(tmp_path / f"package/main/{code}/languages.json", json.dumps(names))
        notes = {"annotations": {"annotations": {"✿": {"default": ["x"], "tts": flower}}}}
        write(tmp_path / f"package/annotations/{code}/annotations.json", json.dumps(notes))
    found = list(BY_NAME["cldr"].read([tmp_path, tmp_path], "nl"))
    assert found == [("cldr", "Dutch", "Nederlands"), ("cldr", "flower", "bloem")]


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "en.json").write_bytes(b'{"a": ')
    with pytest.raises(VocabTransferError, match=r"en\.json is not valid JSON"):
        read_json(tmp_path / "en.json")


def test_pages_are_paired_by_structure_or_identifier(tmp_path: Path) -> None:
    guide = tmp_path / "usr/share/doc/installation-guide-amd64"
    write(guide / "en/a.html", "<title>Disks</title><p>First disk. Second disk.</p><p>Third</p>")
    write(guide / "nl/a.html", "<title>Schijven</title><p>Eerste schijf. Tweede schijf.</p><p>Derde</p>")
    write(guide / "en/b.html", "<p>Same</p><p>number</p>")
    write(guide / "nl/b.html", "<p>Niet</p><h1>zo</h1>")
    found = [pair[1:] for pair in BY_NAME["install-guide"].read([tmp_path], "nl")]
    assert found == [
        ("Disks", "Schijven"),
        ("First disk.", "Eerste schijf."),
        ("Second disk.", "Tweede schijf."),
        ("Third", "Derde"),
    ]

    office = "usr/share/libreoffice/help"
    write(tmp_path / "e" / office / "en-US/x.html", "<p id='1'>Open it</p><p id='2'>English only</p><p>none</p>")
    write(tmp_path / "t" / office / "nl/x.html", "<div><p id='9'>Anders</p><p id='1'>Open dit</p></div>")
    found = [pair[1:] for pair in BY_NAME["libreoffice-help"].read([tmp_path / "e", tmp_path / "t"], "nl")]
    assert found == [("Open it", "Open dit")]


def test_only_one_of_the_variants_in_a_help_page_is_read(tmp_path: Path) -> None:
    office = "usr/share/libreoffice/help"
    for folder, locale, verb in (("e", "en-US", "Choose"), ("t", "nl", "Kies")):
        variants = "<span hidden='true' class='MAC'>Command</span><span hidden='true' class='d'>Ctrl <b>F</b></span>"
        page = f"<p id='1'>{verb} <span id='s' class='switchinline'>{variants}</span><!-- x --> now</p>"
        write(tmp_path / folder / office / locale / "x.html", page)
    (found,) = BY_NAME["libreoffice-help"].read([tmp_path / "e", tmp_path / "t"], "nl")
    assert found == ("libreoffice-help", "Choose Ctrl F now", "Kies Ctrl F now")


def test_mallard_pages_load_nothing_from_outside(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret", encoding="utf-8")
    page = f"<!DOCTYPE page [<!ENTITY x SYSTEM 'file://{secret}'>]><page><title>{{}} &x;</title></page>"
    write(tmp_path / "usr/share/help/C/a/x.page", page.format("Keys"))
    write(tmp_path / "usr/share/help/nl/a/x.page", page.format("Toetsen"))
    (found,) = BY_NAME["gnome-help"].read([tmp_path], "nl")
    assert found[1].startswith("Keys") and found[2].startswith("Toetsen") and "secret" not in str(found)


def dictd(folder: Path, name: str, articles: dict[str, str]) -> None:
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(value: int) -> str:
        return (number(value // 64) if value >= 64 else "") + digits[value % 64]

    text, index = b"", ""
    for headword, article in articles.items():
        index += f"{headword}\t{number(len(text))}\t{number(len(article.encode()))}\n"
        text += article.encode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.dict.dz").write_bytes(gzip.compress(text))
    (folder / f"{name}.index").write_text(index, encoding="utf-8")


def test_dictionaries_of_both_directions(tmp_path: Path) -> None:
    header = {"00-database-info": "ignore, this " * 20}
    dictd(tmp_path / "a", "freedict-eng-nld", header | {"house": "house /x/\n1. huis, woning\n"})
    dictd(tmp_path / "b", "freedict-nld-eng", header | {"boek": 'boek <n>\na book\n      "een boek"\n   Note: no'})
    found = list(BY_NAME["freedict"].read([tmp_path / "a", tmp_path / "b"], "nld"))
    assert found == [("freedict", "house", "huis"), ("freedict", "house", "woning"), ("freedict", "a book", "boek")]


def test_glosses_that_lost_their_spaces_are_dropped(tmp_path: Path) -> None:
    dictd(tmp_path / "a", "freedict-eng-nld", {"human being": "x\nmens\n", "man": "man\nman\n"})
    dictd(tmp_path / "b", "freedict-nld-eng", {"mens": "mens\nhumanbeing, man\n"})
    found = [pair[1:] for pair in BY_NAME["freedict"].read([tmp_path / "a", tmp_path / "b"], "nld")]
    assert found == [("human being", "mens"), ("man", "man"), ("man", "mens")]


def test_damaged_dictionaries_are_named(tmp_path: Path) -> None:
    dictd(tmp_path, "x", {"a": "a\nb\n"})
    (tmp_path / "x.dict.dz").write_bytes((tmp_path / "x.dict.dz").read_bytes()[:-12])
    with pytest.raises(VocabTransferError, match=r"x\.index"):
        list(read_dictd(tmp_path / "x.index"))
    assert list(glosses("only a headword")) == []


# --- registry -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_every_source_tells_all(source: Source) -> None:
    assert source.name == source.name.lower() and source.description and source.licence and source.locales.split()
    assert 1 <= source.min_words <= 2 and source.max_ratio > 1
    for locale in source.locales.split():
        wanted = source.packages(locale)
        assert wanted and all(package.registry in REGISTRIES and package.members for package in wanted)
        for package in wanted:
            # Registries that keep old versions are asked for one; Debian is asked for its release's.
            pinned = {"pypi": "==" in package.name, "npm": "@" in package.name[1:], "deb": True}
            assert pinned[package.registry]


def test_names_are_unique_and_languages_comparable() -> None:
    assert len(BY_NAME) == len(SOURCES)
    for name, text in vars(locales).items():
        if name.isupper():
            keys = [locale_key(locale) for locale in text.split()]
            assert len(keys) == len(set(keys)), name


@pytest.mark.parametrize("code", SHIPPED)
def test_shipped_languages_have_many_sources(code: str) -> None:
    names = {source.name for source in sources_for(find_language(code))}
    assert {"mediawiki", "cldr", "gettext", "django"} <= names


@pytest.mark.parametrize(
    ("code", "name", "locale"),
    [
        ("tt", "mediawiki", "tt-cyrl"),
        ("tt-Latn", "mediawiki", "tt-latn"),
        ("tt-Latn", "cldr", None),
        ("zh", "gettext", "zh_CN"),
        ("zh-Hant", "gettext", "zh_TW"),
        ("sr", "mediawiki", "sr-ec"),
        ("sr-Latn", "gettext", "sr@latin"),
        ("kk", "cldr", "kk"),
        ("de", "debian-handbook", "de-DE"),
        ("sw", "freedict", "swh"),
        ("nl", "freedict", "nld"),
        ("de", "quran", None),
    ],
)
def test_locales_are_found_under_any_spelling(code: str, name: str, locale: str | None) -> None:
    assert BY_NAME[name].locale(find_language(code)) == locale


def test_impossible_requests_are_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"no source 'newspapers': choose from mediawiki, "):
        sources_for(find_language("nl"), ["newspapers"])
    with pytest.raises(UsageError, match="'quran' has no Dutch"):
        sources_for(find_language("nl"), ["quran"])


# --- a corpus from end to end ---------------------------------------------------------------------------------------


@pytest.fixture
def django_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[polib.POFile], None]:
    """Puts a catalogue where the cache keeps Django's wheel, so that nothing is fetched."""
    monkeypatch.setenv("VOCABTRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PATH", "/nonexistent")

    def put(entries: polib.POFile) -> None:
        wheel = tmp_path / "cache/packages/pypi/django==5.2.8/django-5.2.8-py3-none-any.whl"
        wheel.parent.mkdir(parents=True)
        with zipfile.ZipFile(wheel, "w") as bundle:
            bundle.writestr("django/conf/locale/tt/LC_MESSAGES/django.po", str(entries))

    return put


def test_a_corpus_with_its_provenance(django_wheel: Callable[[polib.POFile], None], tmp_path: Path) -> None:
    entries = catalogue()
    entries.append(polib.POEntry(msgid="Open file", msgstr="Файлны ачу"))
    django_wheel(entries)
    report = fetch_parallel("tatar", tmp_path / "out", ["django"])
    assert report.path == tmp_path / "out/en-tt.tsv.xz"
    text = lzma.decompress(report.path.read_bytes()).decode()
    assert text == "django\tOpen file\tФайлны ачу\ndjango\tBook\tКитап\n"
    (part,) = report.parts
    assert (part.pairs, part.english_words, part.target_words, part.packages) == (2, 3, 3, ("PyPI django 5.2.8",))
    told = (tmp_path / "out/en-tt.SOURCES").read_text(encoding="utf-8")
    assert "BSD-3-Clause" in told and "PyPI django 5.2.8" in told
    first = report.path.read_bytes()
    fetch_parallel("tt", tmp_path / "out", ["django"])
    assert report.path.read_bytes() == first
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["en-tt.SOURCES", "en-tt.tsv.xz"]


def test_what_cannot_be_fetched_is_told(django_wheel: Callable[[polib.POFile], None], tmp_path: Path) -> None:
    django_wheel(catalogue())
    report = fetch_parallel("tt", tmp_path / "out")
    assert [part.name for part in report.parts] == ["django"]
    reasons = " ".join(report.missing)
    assert all(name in reasons for name in ("mediawiki", "cldr", "gettext")) and "does not have" in reasons
    with pytest.raises(VocabTransferError, match="needs apt-get"):
        fetch_parallel("tt", tmp_path / "strict", ["mediawiki"])
    assert not list((tmp_path / "strict").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("code", ["tt", "sw"])
def test_real_packages_give_thousands_of_pairs(code: str, tmp_path: Path) -> None:
    report = fetch_parallel(code, tmp_path)
    if not report.missing:
        assert report.pairs > 6000
    assert {part.name for part in report.parts} >= {"django"}
