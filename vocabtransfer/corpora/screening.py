"""What is kept of a fetched corpus, and why the rest is not: every line that goes is counted under one reason.

On top of the filters for sentence pairs (`vocabtransfer.alignment.filters`) come the script, near-duplicates,
boilerplate, the language by share, and text that is held out to score on.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import regex

from vocabtransfer.alignment.filters import Judged, PairFilter
from vocabtransfer.corpora.cleaning import DENSITY, in_other_variant, normalise, script_share
from vocabtransfer.corpora.identification import (
    LIKELY,
    SURE,
    LanguageShares,
    canonical,
    identifier_for,
    identify,
    near,
)
from vocabtransfer.corpora.offers import Found, Offer
from vocabtransfer.languages import Language

LEAST_SCRIPT = 0.5
#: A line of running text has so many letters (fewer in scripts that write a word with one or two), and not more characters.
LEAST_LETTERS, MOST_CHARACTERS = 20, 4_000
LEAST_LETTER_SHARE = 0.5
#: One target text for so many different sources is a label or an error page, not a translation.
MOST_SOURCES = 20
#: Below this share of lines in the language asked for, a part is reported as being in another one.
LEAST_SHARE = 0.5
#: Fewer lines than this say nothing about the language of a part.
LEAST_LINES = 50
SAMPLES, BATCH = 5, 1_000

_LETTERS = regex.compile(r"[\p{L}\p{M}]+")
_BOILERPLATE = regex.compile(
    r"https?://|www\.|\S+@\S+\.\w|[{}<>]|\|.*\||\\[nt]|©|(?:\.\s*){5,}|_{4,}|lorem ipsum|javascript", regex.IGNORECASE
)


@dataclass
class PartReport:
    """One part of a corpus: where it came from, what was kept, what was dropped and why, and what it looks like."""

    offer: Offer
    part: str
    kept: int = 0
    target_words: int = 0
    bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    languages: LanguageShares = field(default_factory=LanguageShares)
    samples: list[tuple[str, str]] = field(default_factory=list)

    def warning(self, target: Language) -> str:
        """Return a sentence when the part seems to be in another language; "" when it does not."""
        identifier = identifier_for(target)
        if self.languages.lines < LEAST_LINES or not identifier.knows(target):
            return ""
        share = self.languages.share(canonical(target.code))
        if share >= LEAST_SHARE:
            return ""
        others = ", ".join(f"{100 * part:.0f} % {code}" for code, part in self.languages.largest(3).items())
        return (
            f"{self.part}: only {100 * share:.0f} % of its lines are taken for {target.name} "
            f"(by {identifier.name}: {others}); read the samples: short strings and close languages are told apart badly."
        )


class Seen:
    """Lines seen before, whatever their case, digits and punctuation: sixteen bytes a line."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def add(self, *texts: str) -> bool:
        """Take a line in; False when a near-duplicate was there."""
        digest = self._digest(texts)
        if digest in self._digests:
            return False
        self._digests.add(digest)
        return True

    def holds(self, *texts: str) -> bool:
        """Tell whether a near-duplicate was seen."""
        return self._digest(texts) in self._digests

    @staticmethod
    def _digest(texts: tuple[str, ...]) -> bytes:
        plain = "\n".join(" ".join(_LETTERS.findall(text.casefold())) or text for text in texts)
        return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Screen:
    """Keeps or drops what the sources of one corpus give; near-duplicates are known across all of them."""

    def __init__(self, source: Language, target: Language) -> None:
        self.source, self.target = source, target
        self._filter = PairFilter(source=source, target=target)
        self._pairs, self._lines, self.held_out = Seen(), Seen(), Seen()
        self._renderings: Counter[str] = Counter()
        self.identifier = identifier_for(target)
        self._own = near(canonical(target.code))

    def pairs(self, found: Iterable[Found], offer: Offer, reports: dict[str, PartReport]) -> Iterator[Found]:
        """Yield the pairs that are kept; ``reports`` is filled by part."""
        parts: list[str] = []
        judged = self._filter.judge(_remembering(found, parts))
        kept = self._judged(judged, parts, offer, reports)
        for item in self._in_language(kept, reports):
            report = reports[item.part]
            _keep(report, item)
            yield item

    def text(self, found: Iterable[Found], offer: Offer, reports: dict[str, PartReport]) -> Iterator[Found]:
        """Yield the lines of running text that are kept."""
        for item in self._in_language(self._good_lines(found, offer, reports), reports):
            _keep(reports[item.part], item)
            yield item

    def words(self, found: Iterable[Found], offer: Offer, reports: dict[str, PartReport]) -> Iterator[Found]:
        """Yield the entries of a dictionary that are kept: no sentences, right script, each once."""
        for item in found:
            report = reports.setdefault(item.part, PartReport(offer, item.part))
            source, target = normalise(item.source), normalise(item.target)
            reason = None
            if not source or not target:
                reason = "with an empty side"
            elif max(len(source.split()), len(target.split())) > 4:
                reason = "longer than a term"
            elif self._in_other_script(target):
                reason = "in another script"
            elif not self._pairs.add(source, target):
                reason = "seen before"
            if reason:
                report.dropped[reason] += 1
                continue
            kept = Found(item.part, source, target)
            _keep(report, kept)
            yield kept

    def _judged(
        self, judged: Iterable[Judged], parts: list[str], offer: Offer, reports: dict[str, PartReport]
    ) -> Iterator[Found]:
        for number, verdict in enumerate(judged):
            source, target = verdict.source, verdict.target
            part = parts[number]
            report = reports.setdefault(part, PartReport(offer, part))
            reason = verdict.reason or self._pair_reason(source, target)
            if reason:
                report.dropped[reason] += 1
            else:
                yield Found(part, source, target)

    def _pair_reason(self, source: str, target: str) -> str | None:
        if self._in_other_script(target):
            return "in another script"
        if _BOILERPLATE.search(target):
            return "boilerplate or markup"
        if self.held_out.holds(target):
            return "held out to score on"
        if not self._pairs.add(source, target):
            return "nearly the same as another"
        self._renderings[target] += 1
        if self._renderings[target] > MOST_SOURCES:
            return "one translation for very many sources"
        return None

    def _in_other_script(self, text: str) -> bool:
        return script_share(text, self.target.script) < LEAST_SCRIPT or in_other_variant(text, self.target)

    def _good_lines(self, found: Iterable[Found], offer: Offer, reports: dict[str, PartReport]) -> Iterator[Found]:
        for item in found:
            report = reports.setdefault(item.part, PartReport(offer, item.part))
            text = normalise(item.target)
            reason = self._line_reason(text)
            if reason:
                report.dropped[reason] += 1
            else:
                yield Found(item.part, "", text)

    def _line_reason(self, text: str) -> str | None:
        letters = sum(map(len, _LETTERS.findall(text)))
        if "\ufffd" in text or "\0" in text:
            return "garbled by a wrong encoding"
        if letters < LEAST_LETTERS * DENSITY.get(self.target.script, 1.0):
            return "too short for a sentence"
        if len(text) > MOST_CHARACTERS:
            return "too long for a line"
        if letters + text.count(" ") < LEAST_LETTER_SHARE * len(text) or _BOILERPLATE.search(text):
            return "boilerplate or markup"
        if self._in_other_script(text):
            return "in another script"
        if self.held_out.holds(text):
            return "held out to score on"
        return None if self._lines.add(text) else "nearly the same as another"

    def _in_language(self, items: Iterable[Found], reports: dict[str, PartReport]) -> Iterator[Found]:
        """Drop lines that are surely in another language; what a whole part is taken for is counted by share.

        A line taken for the other side's language goes. One taken for a third language goes only where most of its part
        is in the right one: else the model confuses the two, and the part is reported instead.
        """
        waiting = iter(items)
        while batch := list(islice(waiting, BATCH)):
            verdicts = identify([item.target for item in batch], self.identifier)
            for item, (code, probability) in zip(batch, verdicts, strict=True):
                if probability >= LIKELY:
                    shares = reports[item.part].languages
                    shares.lines += 1
                    shares.counts[code] += 1
            for item, (code, probability) in zip(batch, verdicts, strict=True):
                report = reports[item.part]
                foreign = code != "" and code not in self._own and probability >= SURE
                if foreign and code == canonical(self.source.code):
                    report.dropped[f"in {self.source.name}"] += 1
                elif foreign and self.knows and report.languages.share(canonical(self.target.code)) >= LEAST_SHARE:
                    report.dropped["in another language"] += 1
                else:
                    yield item

    @property
    def knows(self) -> bool:
        """Whether the language asked for is one that the identifier can tell."""
        return self.identifier.knows(self.target)


def _remembering(found: Iterable[Found], parts: list[str]) -> Iterator[tuple[str, str]]:
    for item in found:
        parts.append(item.part)
        yield item.source, item.target


def _keep(report: PartReport, item: Found) -> None:
    report.kept += 1
    report.target_words += len(_LETTERS.findall(item.target))
    report.bytes += len(item.target.encode("utf-8", "replace")) + 1
    # Early ones and then ever fewer: a sample of the whole without knowing how much there is.
    if report.kept & (report.kept - 1) == 0 or len(report.samples) < SAMPLES:
        report.samples.append((item.source, item.target))
        if len(report.samples) > SAMPLES:
            report.samples.pop(len(report.samples) // 2)
