"""Writes ``docs/languages.md``: what there is for each language. ``python -m vocabtransfer.corpora.language_table``.

Everything comes out of listings that packages ship: the data base of opustools, the index of mtdata, CLDR's numbers of
speakers, the declaration of human rights, pywikibot's list of Wikipedias. No service is asked, so the table can be made
anywhere. Listed are the 200 languages with most speakers and every language that has a Wikipedia.
"""

import argparse
import ast
import json
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from vocabtransfer.alignment.table import shipped_table
from vocabtransfer.corpora.identification import canonical, known_languages
from vocabtransfer.corpora.registry import SOURCES
from vocabtransfer.corpora.sources.mtdata_index import usable_entries
from vocabtransfer.corpora.sources.opus import shipped_listing
from vocabtransfer.corpora.sources.udhr import editions
from vocabtransfer.errors import UsageError
from vocabtransfer.files.packages import fetch_npm, unpack_wheel
from vocabtransfer.languages import Language, find_language

LARGEST = 200
CLDR_CORE = "cldr-core@48.2.0"
POPULATION = "package/supplemental/territoryInfo.json"
PYWIKIBOT, WIKIPEDIAS = "pywikibot==11.9.0", "pywikibot/families/wikipedia_family.py"
#: What Wikipedias are called that have no code of their own; "" for those of no language.
_WIKIPEDIA_CODES = {
    "als": "gsw",
    "bat-smg": "sgs",
    "bh": "bho",
    "cbk-zam": "cbk",
    "fiu-vro": "vro",
    "map-bms": "jv",
    "nds-nl": "nds",
    "roa-rup": "rup",
    "roa-tara": "nap",
    "simple": "en",
    "zh-classical": "lzh",
    "zh-min-nan": "nan",
    "zh-yue": "yue",
}


@dataclass(frozen=True)
class Row:
    """What is known of one language."""

    language: Language
    speakers: float
    opus_sets: int
    opus_pairs: int
    dictionaries: int
    mtdata_pairs: int
    mtdata_text: int
    packages: int
    held_out: bool
    table: bool
    identified: bool
    wikipedia: bool


def speakers() -> Counter[str]:
    """Return the number of speakers by language code: CLDR's shares of every territory's population, added up."""
    folder = fetch_npm(CLDR_CORE, [POPULATION])
    territories = json.loads((folder / POPULATION).read_text(encoding="utf-8"))["supplemental"]["territoryInfo"]
    found: Counter[str] = Counter()
    for territory in territories.values():
        population = float(territory["_population"])
        for tag, facts in territory.get("languagePopulation", {}).items():
            code = _code(tag.replace("_", "-"))
            if code:
                found[code] += int(population * float(facts["_populationPercent"]) / 100)
    return found


def wikipedias() -> set[str]:
    """Return the codes of the languages that have a Wikipedia, by the list that pywikibot ships; nothing of it is run."""
    folder = unpack_wheel(PYWIKIBOT, [WIKIPEDIAS])
    tree = ast.parse((folder / WIKIPEDIAS).read_text(encoding="utf-8"))
    lists = [
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "codes" for t in node.targets)
    ]
    codes = (_code(_WIKIPEDIA_CODES.get(name, name)) for name in sorted(set().union(*lists)))
    return {code for code in codes if code}


def opus_counts() -> dict[str, tuple[int, int, int]]:
    """Return (data sets, pairs, dictionaries) beside English by language code."""
    sets: defaultdict[str, set[str]] = defaultdict(set)
    pairs: Counter[str] = Counter()
    dictionaries: Counter[str] = Counter()
    query = (
        "SELECT source, target, corpus, preprocessing, alignment_pairs FROM opusfile WHERE latest = 'True' "
        "AND (source = 'en' OR target = 'en') AND preprocessing IN ('moses', 'dic')"
    )
    with closing(sqlite3.connect(f"file:{shipped_listing()}?mode=ro", uri=True)) as connection:
        for source, target, corpus, preprocessing, count in connection.execute(query):
            code = _code(target if source == "en" else source) if target else None
            if code is None:
                continue
            if preprocessing == "dic":
                dictionaries[code] += 1
            else:
                sets[code].add(corpus)
                pairs[code] += count if isinstance(count, int) else 0
    codes = sets.keys() | dictionaries.keys()
    return {code: (len(sets[code]), pairs[code], dictionaries[code]) for code in codes}


def _code(tag: str) -> str | None:
    try:
        return find_language(tag).code
    except UsageError:
        return None


def rows() -> list[Row]:
    """Return the table, largest languages first."""
    people = speakers()
    opus, written = opus_counts(), wikipedias()
    chosen = {code for code, _ in people.most_common(LARGEST)} | written
    chosen.discard("en")
    listed = []
    for code in sorted(chosen, key=lambda code: (-people[code], code)):
        language = find_language(code)
        counts = usable_entries(language)
        listed.append(
            Row(
                language,
                people[code] / 1e6,
                *opus.get(code, (0, 0, 0)),
                *counts,
                sum(source.locale(language) is not None for source in SOURCES),
                bool(editions(language)),
                shipped_table(language) is not None,
                canonical(code) in known_languages(),
                code in written,
            )
        )
    return listed


def page(table: list[Row]) -> str:
    """Return the page."""
    lines = [
        "# Languages",
        "",
        "What there is for each language, from the listings that packages ship. The page is made by",
        "`python -m vocabtransfer.corpora.language_table`; `vocabtransfer corpus list LANGUAGE` shows the same for one",
        "language, with sizes, licences and what answers now.",
        "",
        f"Listed are the {LARGEST} languages with most speakers (CLDR) and all that have a Wikipedia (pywikibot's list):",
        f"{len(table)} languages. Everything is counted beside English.",
        "",
        "- **OPUS**: data sets and sentence pairs, by the data base of opustools (older than the site: a lower bound).",
        "- **dic**: dictionaries that OPUS made from its corpora.",
        "- **mtdata**: sets of pairs / of text in its index, without OPUS, the hub and benchmarks.",
        "- **packages**: kinds of Debian, npm and PyPI packages with the language; these need no other service.",
        "- **held out**: the declaration of human rights is there to score on.",
        "- **table**: an alignment table ships, so `build --target LANGUAGE` needs nothing else.",
        "- **told**: the language model that checks fetched text can tell the language.",
        "- **wiki**: there is a Wikipedia, so the hub has running text.",
        "",
        "| language | code | speakers, M | OPUS | pairs | dic | mtdata | packages | held out | table | told | wiki |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|---|---|---|",
    ]
    for row in table:
        people = f"{row.speakers:,.1f}" if row.speakers else ""
        marks = " | ".join("yes" if mark else "" for mark in (row.held_out, row.table, row.identified, row.wikipedia))
        lines.append(
            f"| {row.language.name} | {row.language.code} | {people} | {row.opus_sets} | {row.opus_pairs:,} | "
            f"{row.dictionaries} | {row.mtdata_pairs} / {row.mtdata_text} | {row.packages} | {marks} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m vocabtransfer.corpora.language_table", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/languages.md"))
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(rows()), encoding="utf-8")


if __name__ == "__main__":
    main()
