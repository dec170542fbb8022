"""Tokenizers side by side on the same text: how many tokens they need, where, and for what they have tokens in vain."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, cast

from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation.fertility import TokenizerStatistics, tokenizer_statistics
from vocabtransfer.files.records import open_records
from vocabtransfer.files.text import TextFiles, as_text, is_paths, read_text
from vocabtransfer.public import CHECKED_INSIDE, public
from vocabtransfer.tokenization.audit import audit_tokenizer

EVERYTHING = "all"


@dataclass(frozen=True)
class VocabularyFigures:
    """A tokenizer's vocabulary: its tokens, and those of them that no text produces (of those that stand for text)."""

    tokenizer: str
    tokens: int
    unreachable: int
    unreachable_share: float
    unreachable_because: Mapping[str, int]


@dataclass(frozen=True)
class TextFigures:
    """What a tokenizer makes of the text of a domain; the figures of `TokenizerStatistics`.

    ``parity`` is the number of tokens for one token of the same content in English (Petrov et al. 2023,
    arXiv 2305.15425), with the same tokenizer; ``parity_to_first`` counts the English tokens with the first tokenizer
    of the comparison, which is what a vocabulary for another language is measured by. None without English lines.
    """

    tokenizer: str
    domain: str
    lines: int
    words: int
    tokens: int
    tokens_per_word: float
    characters_per_token: float
    bytes_per_token: float
    continued_word_share: float
    unknown_share: float
    parity: float | None
    parity_to_first: float | None


@dataclass(frozen=True)
class Comparison:
    """The figures of every tokenizer, and of every tokenizer in every domain; "all" is all domains together."""

    vocabularies: tuple[VocabularyFigures, ...]
    texts: tuple[TextFigures, ...]

    @property
    def domains(self) -> list[str]:
        """The domains in their order, "all" last where there are several."""
        return list(dict.fromkeys(figures.domain for figures in self.texts))

    def of(self, tokenizer: str, domain: str = EVERYTHING) -> TextFigures:
        """Return one tokenizer's figures in one domain; of a single domain "all" is the same."""
        wanted = domain if domain in self.domains else self.domains[-1]
        return next(figures for figures in self.texts if (figures.tokenizer, figures.domain) == (tokenizer, wanted))

    def facts(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)


@public
def compare_tokenizers(
    tokenizers: Mapping[str, PreTrainedTokenizerFast],
    texts: Mapping[str, Annotated[Iterable[str] | TextFiles, CHECKED_INSIDE]],
    *,
    english: Mapping[str, Iterable[str]] | None = None,
) -> Comparison:
    """Compare any number of tokenizers, by name, on lines of text by domain.

    ``english`` has the same lines in English for some or all of the domains: there only lines that are not empty on
    both sides count. Collections that can be read more than once (lists, files that are opened anew) are never held in
    memory; iterators are read into a list.

    Raises `UsageError` without tokenizers or texts, for English of a domain without text and for a domain called "all";
    `VocabTransferError` for a domain without text and for parallel texts of unequal length.
    """
    english = {name: as_text(lines) if is_paths(lines) else lines for name, lines in (english or {}).items()}
    lines_of: dict[str, Iterable[str]] = {
        name: as_text(lines) if is_paths(lines) else cast(Iterable[str], lines) for name, lines in texts.items()
    }
    if not tokenizers or not texts:
        raise UsageError("Name at least one tokenizer and one text to compare on.")
    if EVERYTHING in texts or not english.keys() <= texts.keys():
        odd = EVERYTHING if EVERYTHING in texts else min(english.keys() - texts.keys())
        raise UsageError(f"The domain {odd!r} is not one to compare on: name texts and their English alike.")
    domains = {name: _Domain(name, lines, english.get(name)) for name, lines in lines_of.items()}
    measured = {
        name: {domain: part.measure(tokenizer) for domain, part in domains.items()}
        for name, tokenizer in tokenizers.items()
    }
    figures: list[TextFigures] = []
    first = list(next(iter(measured.values())).values())
    for name, by_domain in measured.items():
        measures = list(by_domain.values())
        rows = [
            _figures(name, domain, [by_domain[domain]], [one]) for domain, one in zip(by_domain, first, strict=True)
        ]
        figures += [*rows, _figures(name, EVERYTHING, measures, first)] if len(domains) > 1 else rows
    return Comparison(tuple(_vocabulary(*item) for item in tokenizers.items()), tuple(figures))


def read_domains(
    paths: TextFiles, columns: tuple[int | str, int | str], domain_column: int | str | None = None
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Read files of columns or records with English and a text: (text by domain, English by domain).

    ``columns`` are two columns or fields, by name or counted from 0. The domain of a line is in ``domain_column``;
    without one it is the file's name. Lines with an empty side are skipped. Raises `UsageError` or `VocabTransferError`,
    naming file and line, where a column is missing.
    """
    texts: dict[str, list[str]] = {}
    english: dict[str, list[str]] = {}
    named = (*columns, *(() if domain_column is None else (domain_column,)))
    for path in read_text(paths).files:
        records = open_records(path, named=named)
        if records is None:
            raise VocabTransferError(f"{path} has one column: English and the text stand in two.")
        head = records.head()
        width = len(records.names) or records.width(head)
        places = [records.place(column, width) for column in named]
        for number, cells in enumerate(records.rows(), 1 + (records.kind != "json" and bool(records.names))):
            if len(cells) <= max(places):
                raise VocabTransferError(
                    f"{path}, row {number} has {len(cells)} columns, so there is no column {max(places)} (from 0)."
                )
            domain = domain_name(path) if domain_column is None else cells[places[2]]
            if cells[places[0]].strip() and cells[places[1]].strip():
                english.setdefault(domain, []).append(cells[places[0]])
                texts.setdefault(domain, []).append(cells[places[1]])
    return texts, english


def domain_name(path: Path) -> str:
    """Return the name of a file without its suffixes: what a domain is called that has no other name."""
    return path.name.split(".")[0] or path.name


@dataclass(frozen=True)
class _Measure:
    """What a tokenizer makes of a domain, and of the same in English."""

    text: TokenizerStatistics
    english: TokenizerStatistics | None


class _Domain:
    """The lines of a domain; with English beside them only the pairs that have two sides."""

    def __init__(self, name: str, lines: Iterable[str], english: Iterable[str] | None) -> None:
        self._name = name
        self._lines = list(lines) if isinstance(lines, Iterator) else lines
        self._english = list(english) if isinstance(english, Iterator) else english

    def measure(self, tokenizer: PreTrainedTokenizerFast) -> _Measure:
        """Count what a tokenizer makes of it."""
        try:
            if self._english is None:
                return _Measure(tokenizer_statistics(tokenizer, self._lines), None)
            sides = (tokenizer_statistics(tokenizer, (pair[side] for pair in self._pairs())) for side in (0, 1))
            return _Measure(*sides)
        except VocabTransferError as problem:
            raise VocabTransferError(f"{self._name}: {problem}") from None

    def _pairs(self) -> Iterator[tuple[str, str]]:
        assert self._english is not None
        for number, (line, english) in enumerate(zip_longest(self._lines, self._english), 1):
            if line is None or english is None:
                longer = "English" if line is None else "text"
                raise VocabTransferError(
                    f"the {longer} goes on after line {number - 1}, where the other side ends: parallel texts need one "
                    "sentence a line, in the same order."
                )
            if line.strip() and english.strip():
                yield line, english


def _figures(tokenizer: str, domain: str, measures: list[_Measure], first: list[_Measure]) -> TextFigures:
    text = _sum([measure.text for measure in measures])
    paired = [(own, one) for own, one in zip(measures, first, strict=True) if own.english and one.english]
    tokens = sum(own.text.tokens for own, _ in paired)
    return TextFigures(
        tokenizer=tokenizer,
        domain=domain,
        lines=text.lines,
        words=text.words,
        tokens=text.tokens,
        tokens_per_word=text.tokens_per_word,
        characters_per_token=text.characters_per_token,
        bytes_per_token=text.bytes_per_token,
        continued_word_share=text.continued_word_share,
        unknown_share=text.unknown_share,
        parity=tokens / sum(own.english.tokens for own, _ in paired if own.english) if paired else None,
        parity_to_first=tokens / sum(one.english.tokens for _, one in paired if one.english) if paired else None,
    )


def _sum(parts: list[TokenizerStatistics]) -> TokenizerStatistics:
    return TokenizerStatistics(*(sum(getattr(part, field.name) for part in parts) for field in fields(parts[0])))


def _vocabulary(name: str, tokenizer: PreTrainedTokenizerFast) -> VocabularyFigures:
    found = audit_tokenizer(tokenizer)
    return VocabularyFigures(name, len(tokenizer), len(found.unreachable), found.unreachable_share, found.counts())
