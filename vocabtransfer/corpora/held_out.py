"""Text to score on, in the edition that is written as the fetched text is.

A language may have a declaration in each of its orthographies and dialects (Quechua: fourteen). A model that was given
one of them is not judged on another: the edition is taken of which most running words stand in the text.
"""

from collections.abc import Sequence
from typing import Any

from vocabtransfer.alignment.words import split_words
from vocabtransfer.corpora.offers import Found, Offer
from vocabtransfer.corpora.screening import PartReport
from vocabtransfer.languages import Language

#: Editions this close to the best (as a share of running words) are as good: the likeliest one is taken.
TIE = 0.02
#: Below this share of known words, the text to score on is told to be unlike what was fetched.
LEAST_KNOWN = 0.4
SAMPLES = 2


class HeldOutEditions:
    """The editions of held-out text of one language, and the words of what was fetched to choose between them."""

    def __init__(self) -> None:
        self._editions: dict[str, tuple[Offer, list[str]]] = {}
        self._words: set[str] = set()
        self.shares: dict[str, float] = {}
        self.chosen = ""

    def add(self, offer: Offer, found: Found) -> None:
        """Take a line in; its part is its edition, and the likeliest edition comes first."""
        self._editions.setdefault(found.part, (offer, []))[1].append(found.target)

    def see(self, text: str) -> None:
        """Note the words of a line that is kept to train on."""
        if self._editions:
            self._words.update(_words(text))

    def choose(self, reports: list[PartReport]) -> Sequence[str]:
        """Return the lines of the best edition, and put its report in front of the others; nothing where there is none."""
        if not self._editions:
            return ()
        self.shares = {part: self._known(lines) for part, (_, lines) in self._editions.items()}
        best = max(self.shares.values())
        self.chosen = next(part for part, share in self.shares.items() if share >= best - TIE)
        offer, lines = self._editions[self.chosen]
        report = PartReport(offer, self.chosen, kept=len(lines), samples=[("", line) for line in lines[:SAMPLES]])
        report.target_words = sum(len(line.split()) for line in lines)
        report.bytes = sum(len(line.encode("utf-8")) + 1 for line in lines)
        reports.insert(0, report)
        return lines

    def facts(self) -> dict[str, Any] | None:
        """Return which edition was chosen, and the share of every edition's words that the text has."""
        return {"edition": self.chosen, "known_words": dict(self.shares)} if self.chosen else None

    def warning(self, target: Language) -> str:
        """Return a sentence where the held-out text is unlike what was fetched; "" where it is not."""
        share = self.shares.get(self.chosen, 1.0)
        if share >= LEAST_KNOWN:
            return ""
        return (
            f"Only {share:.0%} of the running words of the text to score on ({self.chosen}) stand in what was fetched: it "
            f"is thin, or another {target.name} than that text. Give `held_out` with text as you write it."
        )

    def _known(self, lines: Sequence[str]) -> float:
        words = [word for line in lines for word in _words(line)]
        return round(sum(word in self._words for word in words) / max(len(words), 1), 4)


def _words(text: str) -> list[str]:
    return [word for word in split_words(text.casefold()) if word[:1].isalpha()]
