"""Bad sentence pairs out of a parallel corpus: what is dropped is counted by reason, and nothing is held in memory.

What is usual is learnt from the first pairs of the corpus itself: how long a translation is for the length of its source,
and which words belong to which side. So no language needs a table, and none is left out.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from math import exp, log
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

from vocabtransfer.alignment.options import MAX_WORDS
from vocabtransfer.alignment.sides import script_pattern
from vocabtransfer.alignment.words import split_words
from vocabtransfer.errors import UsageError
from vocabtransfer.public import settle_fields

if TYPE_CHECKING:
    from vocabtransfer.languages import Language

#: Pairs from which it is learnt what is usual.
SAMPLE = 20_000
#: Why the second of two alike is dropped.
SEEN = "seen before"
_BATCH = 5_000
# Short labels may be translated by something many times their length.
_SLACK = 15
# A name or a command stays as it is in any language; three words in a row are a sentence in the wrong one.
_LEAST_WORDS = 3
_LEAST_SCRIPT = 0.25
# A word is so many times likelier on one side before it counts, and words a sentence needs on balance.
_TELLING = log(4)
_LEAST_TELLING = 3
_LETTER = regex.compile(r"\p{L}")
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*+")
_SPACE = regex.compile(r"\s+")
# UTF-8 that was read as Latin-1 or its Windows cousin: a capital with an accent, then a sign.
_GARBLED = regex.compile("[\u00c2-\u00f4][\u0080-\u00bf\u0152-\u2122]|\ufffd")


class Judged(NamedTuple):
    """A sentence pair, and why it is dropped (None when it is kept)."""

    source: str
    target: str
    reason: str | None


@dataclass(frozen=True)
class PairFilter:
    """Rules for sentence pairs; every one can be turned off.

    ``max_ratio``: how many times longer or shorter than usual a translation may be (None: any). ``max_words``: on one side.
    ``source`` and ``target`` are the languages, for their scripts. ``same_language`` drops sentences in the language of
    the other side, ``identical`` pairs whose sides are alike, ``duplicates`` pairs seen before, ``garbled`` text that went
    through a wrong encoding.
    """

    source: "Language | None" = None
    target: "Language | None" = None
    max_ratio: float | None = 3.0
    max_words: int = MAX_WORDS
    same_language: bool = True
    identical: bool = True
    duplicates: bool = True
    garbled: bool = True

    def __post_init__(self) -> None:
        settle_fields(self)
        if (self.max_ratio is not None and self.max_ratio <= 1) or self.max_words < 1:
            raise UsageError("the length ratio must be more than 1, and sentences must be allowed a word.")

    def judge(self, pairs: Iterable[tuple[str, str]]) -> Iterator[Judged]:
        """Yield every pair with the reason to drop it, in order.

        The first 20,000 pairs are read before the first comes back; later ones come in batches.
        """
        waiting = iter(pairs)
        head = list(islice(waiting, SAMPLE))
        usual, seen = Usual.of(head), Seen()
        single = self.judge_single(chain(head, waiting), usual)
        while batch := list(islice(single, _BATCH)):
            kept = [number for number, judged in enumerate(batch) if judged.reason is None]
            if self.duplicates:
                digests = np.fromiter((digest(*batch[number][:2]) for number in kept), np.uint64, len(kept))
                for place in np.flatnonzero(~seen.fresh(digests)).tolist():
                    batch[kept[place]] = batch[kept[place]]._replace(reason=SEEN)
            yield from batch

    def judge_single(self, pairs: Iterable[tuple[str, str]], usual: "Usual") -> Iterator[Judged]:
        """Yield every pair with the reason to drop it, each judged by itself: duplicates stay."""
        patterns = [script_pattern(language.script) if language else None for language in (self.source, self.target)]
        for source, target in pairs:
            pair = _plain(source), _plain(target)
            yield Judged(*pair, self._reason(*pair, usual, patterns))

    def _reason(
        self, source: str, target: str, usual: "Usual", patterns: list["regex.Pattern[str] | None"]
    ) -> str | None:
        if not source or not target:
            return "with an empty side"
        if "\0" in source or "\0" in target:
            return "with a NUL"
        if self.garbled and (_is_garbled(source) or _is_garbled(target)):
            return "garbled by a wrong encoding"
        if _is_longer(source, self.max_words) or _is_longer(target, self.max_words):
            return f"of more than {self.max_words} words"
        if not _LETTER.search(source) or not _LETTER.search(target):
            return "without letters on a side"
        if self.identical and source.casefold() == target.casefold():
            return "with identical sides"
        for name, text, pattern in zip(("source", "target"), (source, target), patterns, strict=True):
            if pattern is not None and _in_another_script(text, pattern):
                return f"with a {name} in another script"
        if self.same_language and usual.telling:
            if usual.leaning(target) <= -_LEAST_TELLING:
                return "with a target in the source's language"
            if usual.leaning(source) >= _LEAST_TELLING:
                return "with a source in the target's language"
        if self.max_ratio is not None and not 1 / self.max_ratio <= usual.ratio(source, target) <= self.max_ratio:
            return "of unusual length for a translation"
        return None


class Usual(NamedTuple):
    """What is usual in a corpus: the ratio of lengths, and the words that tell its sides apart.

    ``telling`` is +1 for a word of the target's language, -1 for one of the source's.
    """

    length_ratio: float
    telling: dict[str, int]

    @classmethod
    def of(cls, pairs: list[tuple[str, str]]) -> "Usual":
        """Learn it from the first pairs of a corpus, `SAMPLE` of them."""
        ratios = [log((len(target) + _SLACK) / (len(source) + _SLACK)) for source, target in pairs if source and target]
        counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        for pair in pairs:
            for count, text in zip(counts, pair, strict=True):
                count.update(set(_WORD.findall(text.casefold())))
        telling = {}
        for word in counts[0].keys() | counts[1].keys():
            # A word seen once or twice tells nothing: half a sighting on either side is taken for granted.
            leaning = log((counts[1][word] + 0.5) / (counts[0][word] + 0.5))
            if abs(leaning) >= _TELLING:
                telling[word] = 1 if leaning > 0 else -1
        return cls(exp(float(np.median(ratios))) if ratios else 1.0, telling)

    def ratio(self, source: str, target: str) -> float:
        """Return how many times longer than usual the target is."""
        return (len(target) + _SLACK) / (len(source) + _SLACK) / self.length_ratio

    def leaning(self, text: str) -> int:
        """Return by how many words a sentence is in the target's language rather than the source's."""
        return sum(self.telling.get(word, 0) for word in _WORD.findall(text.casefold()))


class Seen:
    """Which numbers were seen, in sorted runs that are merged as they grow: eight bytes a number."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.uint64]] = []

    def fresh(self, numbers: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which numbers are seen for the first time, and take them in."""
        first = np.zeros(len(numbers), dtype=np.bool_)
        ordered, places = np.unique(numbers, return_index=True)
        first[places] = True
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, numbers), len(run) - 1)
            first &= run[at] != numbers
        new = np.intersect1d(ordered, numbers[first], assume_unique=True)
        if len(new):
            self._runs.append(new)
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            last = self._runs.pop()
            self._runs[-1] = np.sort(np.concatenate([self._runs[-1], last]), kind="stable")
        return first


def _plain(text: str) -> str:
    return str(_SPACE.sub(" ", text)).strip()


def digest(source: str, target: str) -> int:
    """Return a number of 64 bits that another pair has only by a rare chance."""
    made = hashlib.blake2b(digest_size=8)
    for text in (source, "\n", target):
        made.update(text.encode("utf-8", "surrogatepass"))
    return int.from_bytes(made.digest(), "little")


def _is_garbled(text: str) -> bool:
    """Tell whether UTF-8 was read as Latin-1 or Windows-1252 on the way, or characters were lost.

    >>> _is_garbled("cafÃ©"), _is_garbled("café"), _is_garbled("SÃO PAULO"), _is_garbled("lost \\ufffd")
    (True, False, False, True)
    """
    if not _GARBLED.search(text):
        return False
    if "\ufffd" in text:
        return True
    for encoding in ("cp1252", "latin-1"):
        try:
            text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        return True
    return False


def _is_longer(text: str, words: int) -> bool:
    # No word is shorter than a character.
    return len(text) > words and len(split_words(text)) > words


def _in_another_script(text: str, pattern: "regex.Pattern[str]") -> bool:
    words = _WORD.findall(text)
    if len(words) < _LEAST_WORDS:
        return False
    inside, needed = 0, _LEAST_SCRIPT * len(words)
    for word in words:  # a sentence in its own script is known by its first words
        inside += pattern.search(word) is not None
        if inside >= needed:
            return False
    return True
