"""The tables of `sources.py`: for every source, language, shape and domain `auto`, its best rival, the untouched model."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from table_parts import NAMES, markdown, rows_in
from table_parts import RESULTS as ALL_RESULTS

from vocabtransfer.leaderboard.contest import Row
from vocabtransfer.leaderboard.untouched import SAME_TEXT

RESULTS = ALL_RESULTS / "sources"
SOURCES = {"SmolLM2-135M-Instruct": "SmolLM2", "gemma-3-270m-q4_k_m": "Gemma 3 270M"}
SHAPES = ("replace", "extend")
AUTO = "auto"
#: `auto` after distillation, in files of their own, ``...-extend-distilled-N.json``; with fewer new tokens than `build`
#: takes for the text, ``...-extend-TOKENS-distilled-N.json``.
DISTILLED = "auto, distilled"
_DISTILLED = re.compile(r"-extend(?:-(\d+))?-distilled-(\d+)$")
#: A cell counts when `auto` was measured against so many others, by number of updates: at once all but inner_lexicon, which
#: takes the longest; trained, the two that are nearest at once.
RIVALS = {"0": 4, "50": 2, "200": 2}
#: `auto` this near to the best is level with it.
LEVEL = 0.005


@dataclass(frozen=True)
class Domain:
    """One domain of a cell: bits per byte of `auto`, of the best other method, of the untouched model; None: not run."""

    auto: float
    rival: str
    best: float
    untouched: float | None

    @property
    def above(self) -> float:
        """How far `auto` is above the best other method, as a share; negative where it is ahead."""
        return self.auto / self.best - 1


@dataclass(frozen=True)
class Cell:
    """A source, a language and a shape after a number of updates, in both domains."""

    source: str
    language: str
    shape: str
    updates: str
    rivals: int
    tokens_per_word: tuple[float | None, float | None]
    own: Domain
    other: Domain

    @property
    def domains(self) -> tuple[Domain, Domain]:
        """The tokenizer's own domain and the other one."""
        return self.own, self.other


def read_rows(name: str) -> dict[str, Row]:
    """Return the rows of a results file by method; none where it was not run."""
    return {row.label: row for row in rows_in(RESULTS / f"{name}.json")}


def best_rows(name: str, updates: str) -> dict[str, Row]:
    """Return the rows of a cell after so many updates by method, each at the rate that is best in the cell's own domain."""
    files = [path.stem for path in sorted(RESULTS.glob(f"{name}-*.json"))] if updates != "0" else [name]
    rows: dict[str, Row] = {}
    for label, row in (pair for file in files for pair in read_rows(file).items()):
        if updates in row.scores and (label not in rows or row.scores[updates] < rows[label].scores[updates]):
            rows[label] = row
    return rows


def cells(updates: str) -> Iterator[Cell]:
    """Yield the cells that have `auto` and a rival after so many updates."""
    for source in SOURCES:
        for language in NAMES:
            alone = read_rows(f"{source}-{language}-untouched").get(SAME_TEXT)
            for shape in SHAPES:
                rows = best_rows(f"{source}-{language}-{shape}", updates)
                untouched = rows.pop(SAME_TEXT, alone if updates == "0" else None)
                if AUTO in rows and len(rows) > 1:
                    yield _cell(source, language, shape, updates, rows, untouched)


def _cell(source: str, language: str, shape: str, updates: str, rows: dict[str, Row], untouched: Row | None) -> Cell:
    found = []
    for facts in ("scores", "other"):
        scores = {label: getattr(row, facts)[updates] for label, row in rows.items()}
        auto = scores.pop(AUTO)
        rival = min(scores, key=lambda label: scores[label])
        found.append(Domain(auto, rival, scores[rival], getattr(untouched, facts)[updates] if untouched else None))
    words = (untouched.tokens_per_word if untouched else None, rows[AUTO].tokens_per_word)
    return Cell(source, language, shape, updates, len(rows) - 1, words, *found)


def number(value: float | None, places: int = 3) -> str:
    return "" if value is None else f"{value:.{places}f}"


def above(value: float, untouched: float) -> str:
    """Return how far a value is above the untouched model's, in per cent."""
    return f"{value / untouched - 1:+.1%}"


def _line(cell: Cell) -> list[str]:
    line = [NAMES[cell.language], SOURCES[cell.source], cell.shape, str(cell.rivals)]
    line.append(" → ".join(filter(None, (number(value, 2) for value in cell.tokens_per_word))))
    for domain in cell.domains:
        mark = "**" if domain.above <= LEVEL else ""
        line.append(number(domain.untouched))
        line.append(f"{mark}{domain.auto:.3f}{mark}")
        line.append(f"{domain.best:.3f} `{domain.rival}`")
        line.append(f"{domain.above:+.1%}")
    return line


def full(updates: str) -> str:
    """Return the table of all cells after so many updates."""
    header = ["", "source", "shape", "rivals", "tokens a word"]
    for domain in ("own domain", "other domain"):
        header += [f"{domain}: untouched", "`auto`", "best rival", "`auto` against it"]
    lines = sorted((list(NAMES).index(cell.language), n, _line(cell)) for n, cell in enumerate(cells(updates)))
    return markdown(header, [line for *_, line in lines], 3) if lines else "Not run."


def overview() -> str:
    """Return the short table: in how many cells `auto` is best or level, and where it is nearest to being behind."""
    lines = []
    for updates, rivals in RIVALS.items():
        found = [cell for cell in cells(updates) if cell.rivals >= rivals]
        for source, name in SOURCES.items():
            for shape in SHAPES:
                mine = [
                    (domain, f"{NAMES[cell.language]}, {which} domain")
                    for cell in found
                    if (cell.source, cell.shape) == (source, shape)
                    for which, domain in zip(("own", "other"), cell.domains, strict=True)
                ]
                when = "at once" if updates == "0" else f"{updates} updates"
                if not mine:
                    lines.append([when, name, shape, "not run", "", "", ""])
                    continue
                good = sum(domain.above <= LEVEL for domain, _ in mine)
                worst, where = max(mine, key=lambda item: item[0].above)
                mean = sum(domain.above for domain, _ in mine) / len(mine)
                behind = f"{worst.above:+.1%} (`{worst.rival}`, {where})"
                spelled = [domain for domain, _ in mine if domain.untouched is not None]
                lower = f"{sum(d.auto <= (d.untouched or 0) for d in spelled)} of {len(spelled)}" if spelled else ""
                lines.append([when, name, shape, f"{good} of {len(mine)}", f"{mean:+.1%}", behind, lower])
    header = [
        "",
        "source",
        "shape",
        "best or level",
        "mean against the best rival",
        "worst cell",
        "at or below untouched",
    ]
    return markdown(header, lines, 3)


@dataclass(frozen=True)
class Taught:
    """One domain of a cell after distillation: bits per byte of the untouched model, of `auto` at once, and after it."""

    untouched: float
    once: float
    after: float

    @property
    def against_untouched(self) -> str:
        """How far it is above the untouched model, in per cent; negative where it needs fewer bits."""
        return above(self.after, self.untouched)


@dataclass(frozen=True)
class Distilled:
    """A cell after so many updates of distillation: what was added and saved, and the CPU minutes they took.

    ``fewer`` is how many new tokens were asked for, None where `build` chose; ``tokens`` is the change of tokens a word in
    the own domain, as a share.
    """

    source: str
    language: str
    fewer: int | None
    tokens: float
    updates: int
    minutes: float
    own: Taught
    other: Taught


def distilled_cells() -> Iterator[Distilled]:
    """Yield what was measured after distillation, by source, language, new tokens (most first), and updates."""
    at_once = _extended_at_once()
    for source in SOURCES:
        for language in NAMES:
            names = (_DISTILLED.search(file.stem) for file in RESULTS.glob(f"{source}-{language}-extend-*.json"))
            found = [_distilled_cell(at_once[source, language], said) for said in names if said]
            yield from sorted(found, key=lambda cell: (-(cell.fewer or 1 << 30), cell.updates))


def _extended_at_once() -> dict[tuple[str, str], Cell]:
    """Return the cells at once, by source and language, with as many new tokens as `build` takes."""
    return {(cell.source, cell.language): cell for cell in cells("0") if cell.shape == "extend"}


def _distilled_cell(at_once: Cell, said: re.Match[str]) -> Distilled:
    """Return what the file of a name says; ``at_once`` is the same source and language, see `_extended_at_once`."""
    name = said.string
    found = read_rows(name)
    rows = [found[label] for label in (SAME_TEXT, AUTO, DISTILLED)]
    # Files of before December 2026 do not say what `auto` needs.
    before, after = rows[0].tokens_per_word, rows[1].tokens_per_word or at_once.tokens_per_word[1]
    assert before is not None and after is not None, f"{name} does not say how many tokens a word it needs"
    own, other = (Taught(*(getattr(row, facts)["0"] for row in rows)) for facts in ("scores", "other"))
    fewer = int(said[1]) if said[1] else None
    share, minutes = after / before - 1, rows[-1].seconds / 60
    return Distilled(at_once.source, at_once.language, fewer, share, int(said[2]), minutes, own, other)


def distilled() -> str:
    """Return the table of `auto` with an extended vocabulary, at once and distilled, against the untouched model."""
    lines = []
    for cell in distilled_cells():
        size = f", {cell.fewer:,} tokens" if cell.fewer else ""
        line = [NAMES[cell.language] + size, SOURCES[cell.source], f"{cell.tokens:+.1%}"]
        line += [str(cell.updates), f"{cell.minutes:.0f}"]
        for domain in (cell.own, cell.other):
            line += [number(domain.untouched), number(domain.once), number(domain.after), domain.against_untouched]
        lines.append(line)
    header = ["", "source", "tokens", "updates", "CPU minutes"]
    for name in ("own domain", "other domain"):
        header += [f"{name}: untouched", "at once", "distilled", "against untouched"]
    return markdown(header, lines, 2) if lines else "Not run."


def fewer() -> str:
    """Return the table of docs/shapes.md: fewer new tokens than `build` takes, beside as many as it takes, distilled alike.

    In every line both domains, as they lie above the untouched model.
    """
    taught = list(distilled_cells())
    whole = {(cell.source, cell.language, cell.updates): _both(cell) for cell in taught if cell.fewer is None}
    at_once = _extended_at_once()
    lines = []
    for cell in taught:
        if cell.fewer is None:
            continue
        name = f"{NAMES[cell.language]}, {SOURCES[cell.source]}"
        usual = at_once[cell.source, cell.language]
        before, after = usual.tokens_per_word
        assert before and after, "the untouched model is in every such cell"
        once = " and ".join(above(domain.auto, domain.untouched) for domain in usual.domains if domain.untouched)
        distilled_alike = whole.get((cell.source, cell.language, cell.updates), "not run")
        lines.append([name, "by the text", above(after, before), once, distilled_alike])
        once = " and ".join(above(domain.once, domain.untouched) for domain in (cell.own, cell.other))
        lines.append([name, f"{cell.fewer:,}", f"{cell.tokens:+.1%}", once, _both(cell)])
    return markdown(["", "new tokens", "tokens of the same kind of text", "at once", "distilled"], lines)


def _both(cell: Distilled) -> str:
    return f"{cell.own.against_untouched} and {cell.other.against_untouched}"


#: What stands on the front page: a source, a language, a shape, and what a user should do.
FRONT = (
    ("SmolLM2-135M-Instruct", "ka", "replace", "replace: better at once"),
    ("SmolLM2-135M-Instruct", "nl", "replace", "replace: better at once"),
    ("SmolLM2-135M-Instruct", "ru", "replace", "replace only for fewer tokens, and train long"),
    ("gemma-3-270m-q4_k_m", "nl", "extend", "extend or swap, and distil"),
    ("gemma-3-270m-q4_k_m", "nl", "replace", "do not replace"),
)
#: What stands there after distillation: languages of one source, extended, each after the most updates within its time.
FRONT_DISTILLED, FRONT_LANGUAGES, FRONT_MINUTES = "gemma-3-270m-q4_k_m", ("tt", "af", "et", "nl", "tr"), 20
KNOWS = {"SmolLM2-135M-Instruct": "English", "gemma-3-270m-q4_k_m": "many languages"}


def front() -> str:
    """Return the table of the project's front page: text of another domain than the vocabulary's, at once."""
    found = {(cell.source, cell.language, cell.shape): cell for cell in cells("0")}
    lines = []
    for source, language, shape, advice in FRONT:
        if (source, language, shape) not in found:
            continue
        cell = found[source, language, shape]
        words = ", ".join(number(value, 1) for value in cell.tokens_per_word)
        named = f"{SOURCES[source]} ({KNOWS[source]}), {NAMES[language]}, {shape}"
        lines.append([named, words, number(cell.other.untouched), number(cell.other.auto), advice])
    header = ["model, language, shape", "tokens a word: before, after", "untouched", "`auto`", "what to do"]
    table = markdown(header, lines).splitlines()
    table[1] = "| --- | ---: | ---: | ---: | --- |"
    return "\n".join(table)


def front_distilled() -> str:
    """Return the table of the project's front page: what distillation costs and brings, against the untouched model.

    Of a language the last of `distilled_cells` within the time: with the fewest new tokens that were tried.
    """
    lines = {}
    for cell in distilled_cells():
        if cell.source != FRONT_DISTILLED or cell.language not in FRONT_LANGUAGES or cell.minutes > FRONT_MINUTES:
            continue
        changes = [f"{cell.tokens:+.1%}", cell.own.against_untouched, cell.other.against_untouched]
        lines[cell.language] = [NAMES[cell.language], f"{cell.minutes:.0f}", *changes]
    header = ["language", "CPU minutes", "tokens", "bits per byte, same kind of text", "another kind"]
    return markdown(header, list(lines.values()))


def tables() -> dict[str, str]:
    """Return the tables by the name of their mark in README.md."""
    return {
        "sources": overview(),
        "sources at once": full("0"),
        "sources distilled": distilled(),
        "sources after 50": full("50"),
        "sources after 200": full("200"),
    }
