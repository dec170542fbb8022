"""Held-out text, dictionaries, pivots and screens: what goes into a build, and what must not."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocabtransfer.alignment.aligner import align_corpus
from vocabtransfer.alignment.dictionary import dictionary_table, with_dictionary
from vocabtransfer.alignment.pivot import pivot_tables
from vocabtransfer.corpora import fetch
from vocabtransfer.corpora.held_out import HeldOutEditions
from vocabtransfer.corpora.offers import SOURCES, CorpusSource, Found, Offer
from vocabtransfer.corpora.package_source import wanted_keys
from vocabtransfer.corpora.pivot import join_pairs
from vocabtransfer.corpora.screening import PartReport, Screen
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.languages import Language, find_language, members
from vocabtransfer.pipeline.held_out import set_aside, shipped

PAIRS = [("the book", "китап"), ("a new house", "яңа йорт"), ("the house", "йорт"), ("a new book", "яңа китап")] * 6
TEXT = Offer("test", "test", "text", "", "tt", "CC0-1.0", "here")
LINES = [f"Бу {number} нче җөмлә, аны беркем дә кабатламый, {'сүз ' * (number % 7)}" for number in range(2_000)]


@settings(deadline=None)
@given(st.permutations(range(40)), st.integers(2_000, 6_000))
def test_held_out_lines_do_not_depend_on_order_or_repeats(order: list[int], most: int) -> None:
    lines = [LINES[number] for number in order] + LINES[40:]
    chosen = set_aside(lines, "here", most)
    assert chosen == set_aside([*lines, *lines[:300]], "here", most)
    size = sum(len(line.encode()) for line in chosen.lines)
    assert 1_000 <= size <= most + max(len(line.encode()) for line in lines)
    assert size <= 0.05 * sum(len(line.encode()) for line in [*lines, *lines[:300]])
    left = list(chosen.allowed(lines))
    assert set(left) | set(chosen.lines) == set(lines) and not set(left) & set(chosen.lines)


def test_too_little_text_is_left_whole() -> None:
    chosen = set_aside(LINES[:50], "here")
    assert not chosen.lines and list(chosen.allowed(LINES[:50])) == LINES[:50]


def test_text_ships_for_every_language_with_a_table() -> None:
    tables = Path(__file__).parents[1] / "data" / "alignments"
    tags = [path.name.split(".")[0].removeprefix("en-") for path in tables.glob("en-*.tsv.xz")]
    assert len(tags) == 8
    for tag in tags:
        assert sum(len(line.encode()) for line in shipped(find_language(tag)).lines) > 7_000
    assert not shipped(find_language("welsh")).lines


def test_dictionary_entries_count_beside_links() -> None:
    table = align_corpus(PAIRS, metadata={"pairs": len(PAIRS)})
    entries = [("window", "тәрәзә"), ("book", "китап"), ("book", "китап"), ("give up", "ташлау")]
    merged = with_dictionary(table, entries, weight=4)
    assert dict(merged.lookup("тәрәзә")) == {"window": 4.0}
    assert dict(merged.lookup("ташлау")) == {"give": 2.0, "up": 2.0}
    assert dict(merged.lookup("китап"))["book"] == pytest.approx(dict(table.lookup("китап"))["book"] + 4, abs=1e-3)
    assert merged.metadata["pairs"] == len(PAIRS) and merged.metadata["dictionary_entries"] == 3
    # A word is as often as the text says; nothing is linked more often than it occurs.
    assert (np.asarray(merged.counts.sum(axis=1)).ravel() <= merged.target_totals + 1e-3).all()
    with pytest.raises(UsageError, match="must be more than 0"):
        dictionary_table(entries, weight=0)
    with pytest.raises(VocabTransferError, match="no entry with words"):
        dictionary_table([("", "")])


def test_a_pivot_shares_counts_among_the_source_words() -> None:
    first = dictionary_table([("book", "книга"), ("novel", "книга"), ("house", "дом")], weight=10)
    second = dictionary_table([("книга", "китап"), ("дом", "йорт"), ("окно", "тәрәзә")], weight=8)
    table = pivot_tables(first, second, trust=0.5)
    assert dict(table.lookup("китап")) == {"book": 2.0, "novel": 2.0}
    assert dict(table.lookup("йорт")) == {"house": 4.0}
    assert table.lookup("тәрәзә") == []
    with pytest.raises(UsageError, match="trust"):
        pivot_tables(first, second, trust=0)


def test_ambiguous_pivots_are_passed_over() -> None:
    many = [("OK", f"да {number}") for number in range(20)]
    assert list(join_pairs([*many, ("Open", "Открыть")], [("OK", "ярый"), ("Open", "Ачу"), ("Open", "Ачу")])) == [
        ("Открыть", "Ачу")
    ]


def screened(lines: list[str], verdict: tuple[str, float] = ("", 0.0)) -> tuple[list[str], PartReport]:
    screen = Screen(find_language("en"), find_language("tt"))
    screen.held_out.add("Бу җөмлә бервакытта да өйрәнелми торган җөмлә.")
    reports: dict[str, PartReport] = {}
    found = (Found("part", "", line) for line in lines)
    kept = [item.target for item in screen.text(found, TEXT, reports)]
    return kept, reports["part"]


def test_every_dropped_line_has_its_reason() -> None:
    good = "Татарстанда яңа китапханә ачылды, анда мең китап бар."
    lines = [
        *(good, good.upper().replace("мең", "МЕҢ"), "кыска", "This is an English line which nobody asked for."),
        *(
            "Безнең сайт: https://example.org/ диеп язылган",
            "Бу җөмлә бервакытта да өйрәнелми торган җөмлә!",
            "а \ufffd",
        ),
        "Бүген һава торышы бик яхшы, балалар урамда уйныйлар.",
    ]
    kept, report = screened(lines)
    assert kept == [lines[0], lines[-1]]
    assert dict(report.dropped) == {
        "nearly the same as another": 1,
        "too short for a sentence": 1,
        "in another script": 1,
        "boilerplate or markup": 1,
        "held out to score on": 1,
        "garbled by a wrong encoding": 1,
    }
    assert report.kept == 2 and report.samples[0] == ("", lines[0])


def test_a_part_in_another_language_is_reported_by_share() -> None:
    words = [
        "детей",
        "взрослых",
        "школы",
        "города",
        "страны",
        "людей",
        "учителей",
        "врачей",
        "матерей",
        "отцов",
        "друзей",
        "соседей",
        "коллег",
    ]
    russian = [
        f"В городе сегодня открыли новую библиотеку для {word}, в которой есть {thing}."
        for word in words
        for thing in ("книги", "газеты", "журналы", "карты", "ноты", "письма")
    ]
    kept, report = screened(russian)
    assert report.languages.share("ru") > 0.9 and kept
    warning = report.warning(find_language("tatar"))
    assert "only 0 % of its lines are taken for Tatar" in warning and "ru" in warning


def test_a_build_with_nothing_to_build_from_names_the_command(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vocabtransfer_cli.main import run

    monkeypatch.setenv("VOCABTRANSFER_OFFLINE", "1")
    with pytest.raises(SystemExit) as stop:
        run(["build", "--source", str(tiny_llama), "--target", "chuvash", "--output", str(tmp_path / "out")])
    said = " ".join(capsys.readouterr().err.split())
    assert stop.value.code == 1 and "add --fetch" in said and "`vocabtransfer corpus fetch cv --output" in said
    with pytest.raises(SystemExit) as stop:
        run(["build", "--source", str(tiny_llama), "--target", "tt", "--fetch", "--corpus", str(tmp_path)])
    assert stop.value.code == 2


def test_a_corpus_folder_becomes_a_checkpoint_that_credits_it(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vocabtransfer as vt
    from vocabtransfer.corpora import offers
    from vocabtransfer.corpora.fetch import fetch_corpus

    class Pretend(offers.CorpusSource):
        name, summary = "pretend", "a source of the test"

        def offers(self, source: Language, target: Language) -> list[Offer]:
            kinds = ("pairs", "text", "dictionary", "held-out")
            return [Offer("pretend", kind, kind, "en", "tt", "CC-BY-4.0", "here", attribution="us") for kind in kinds]  # type: ignore[arg-type]

        def read(self, offer: Offer, most_bytes: int):  # type: ignore[no-untyped-def]
            if offer.kind == "pairs":
                yield from (
                    Found("strings", f"the book number {n}", f"китап саны {'а' * (n % 9 + 1)}") for n in range(60)
                )
            elif offer.kind == "dictionary":
                yield Found("words", "window", "тәрәзә")
            else:
                lines = LINES[:20] if offer.kind == "held-out" else LINES
                yield from (Found(offer.kind, "", f"{line} {chr(1072 + n % 30) * 3}") for n, line in enumerate(lines))

    monkeypatch.setitem(offers.SOURCES, "pretend", Pretend())
    corpus = fetch_corpus("tatar", tmp_path / "corpus", names=["pretend"])
    held = corpus.held_out
    assert held is not None and corpus.text is not None
    from vocabtransfer.files.text import read_text

    assert not set(read_text([held])) & set(read_text([corpus.text]))
    request = vt.BuildRequest(
        source=str(tiny_llama), target="tatar", output=tmp_path / "out", corpus=corpus.path, vocab_size=600
    )
    vt.build(request)
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["held_out"]["text"] == "held-out.txt"
    assert report["held_out"]["untouched"]["tokens_per_word"] > report["held_out"]["result"]["tokens_per_word"]
    assert report["alignment"]["dictionary_entries"] == 1
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| strings | pairs |" in card and "CC-BY-4.0" in card and "bits per byte on held-out text" in card
    assert "the untouched model" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


QUECHUA = {
    "udhr:quz": ["Runakuna kausayninpi allin kananpaq llapan simikuna.", "Manan pipas runata sarunchananchu."],
    "udhr:quy": ["Lliw runakunam nacesenku libre llapan derechonkunapi.", "Manam pipas runata waqachinanchu."],
}


def editions(text: list[str]) -> tuple[HeldOutEditions, list[str], list[PartReport]]:
    """Return the editions of two pretend declarations after some text was kept, the lines chosen, and the reports."""
    offer = Offer("udhr", "udhr", "held-out", "", "qu", "free", "here")
    found, reports = HeldOutEditions(), [PartReport(TEXT, "part")]
    for part, lines in QUECHUA.items():
        for line in lines:
            found.add(offer, Found(part, "", line))
    for line in text:
        found.see(line)
    return found, list(found.choose(reports)), reports


def test_the_edition_that_is_written_as_the_text_is_scored_on() -> None:
    found, lines, reports = editions(["Lliw llapan runakunam libre derechonkunapi, manam pipas nacesenku", "runata"])
    assert lines == QUECHUA["udhr:quy"] and [report.part for report in reports] == ["udhr:quy", "part"]
    facts = found.facts()
    assert facts is not None and facts["edition"] == "udhr:quy" and facts["known_words"]["udhr:quz"] < 0.4
    assert not found.warning(find_language("qu"))


def test_a_text_unlike_what_is_scored_on_is_told_and_ties_go_to_the_usual_edition() -> None:
    found, lines, _ = editions(["chay huk simi"])
    assert lines == QUECHUA["udhr:quz"]
    assert "Only 0% of the running words" in found.warning(find_language("qu"))
    assert HeldOutEditions().choose([]) == () and HeldOutEditions().facts() is None


@pytest.mark.parametrize(
    ("name", "member", "other"),
    [("norwegian", "nob", "fin"), ("quechua", "quy", "aym"), ("estonian", "ekk", "lvs"), ("malay", "zsm", "id")],
)
def test_a_macrolanguage_is_found_by_its_members(name: str, member: str, other: str) -> None:
    language = find_language(name)
    assert member in members(language) and other not in members(language)
    assert not members(find_language("tatar")) and not members(find_language("nynorsk"))


def test_packages_of_bokmal_serve_norwegian() -> None:
    assert wanted_keys(find_language("no"))[0] == "nb"
    assert wanted_keys(find_language("nn"))[0] == "nn" and "nb" not in wanted_keys(find_language("nn"))


class _Pretend(CorpusSource):
    """A source with direct pairs, and one by way of a third language."""

    name = "pretend"
    summary = "for tests"

    def offers(self, source: Language, target: Language) -> list[Offer]:
        common = {"source": self.name, "kind": "pairs", "source_language": "ru", "target_language": "tt"}
        rest = {"licence": "CC0-1.0", "address": "here"}
        return [
            Offer(name="pivot", pivot=True, style="strings", **common, **rest),  # type: ignore[arg-type]
            Offer(name="direct", style="mined", **common, **rest),  # type: ignore[arg-type]
        ]

    def read(self, offer: Offer, most_bytes: int) -> Iterator[Found]:
        words = ("книга", "дом", "окно", "школа")
        for number, word in enumerate(words):
            yield Found(offer.label, f"Это {word} {offer.name}.", f"Бу китап {'әйе ' * number} {offer.name}.")


@pytest.mark.parametrize("enough", [4, 5])
def test_pivots_are_taken_where_direct_pairs_are_few(
    enough: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "pretend", _Pretend())
    monkeypatch.setattr(fetch, "ENOUGH_DIRECT", enough)
    monkeypatch.setattr("vocabtransfer.corpora.screening.identify", lambda lines, identifier: [("", 0.0)] * len(lines))
    monkeypatch.setattr("vocabtransfer.corpora.screening.script_share", lambda text, script: 1.0)
    corpus = fetch.fetch_corpus("tatar", tmp_path / "tt", source_language="russian", names=["pretend"])
    kept = [part["part"] for part in corpus.parts]
    if enough == 4:
        assert kept == ["pretend:direct"]
        assert corpus.facts["missing"] == ["pretend:pivot: left out, as 4 direct pairs are enough"]
    else:
        assert kept == ["pretend:direct", "pretend:pivot"] and not corpus.facts["missing"]
