"""What running text looks like at a glance: letters taken apart (NFD), and markup that was left in it.

Both make a poor vocabulary without anything going wrong, so they are said, with their share.
"""

import unicodedata
from collections import Counter
from dataclasses import dataclass, field

import regex

#: Below this share nothing is said.
LEAST_SHARE = 0.01
#: All of the first lines are looked at, then one in so many.
_FIRST_LINES, _ONE_IN = 20_000, 16
_SHOWN = 40

_TAGS = (
    "a abbr article b blockquote body br caption center code dd div dl dt em figure font footer form h1 h2 h3 h4 h5 h6 head "
    "header hr html i iframe img input label li link main meta nav ol option p pre s script section select small source "
    "span strong style sub sup svg table tbody td template tfoot th thead time title tr u ul video"
)
_DUMP = (
    "mediawiki siteinfo sitename dbname generator namespaces namespace page ns id revision parentid timestamp contributor "
    "username comment model format text sha1 redirect minor origin doc add field str"
)


def _elements(names: str) -> str:
    return rf"</?(?:{'|'.join(names.split())})(?:\s[^<>]*)?/?>"


_KINDS = {
    "wikitext": regex.compile(
        r"\[\[[^\[\]]+\]\]|\{\{|^\s*\}\}|^={2,6}[^=].*={2,6}\s*$|'''|^\{\||^\|[-}+]|^[|!][^|]+(?:=|\|\|)|</?ref\b|&lt;/?ref\b"
        r"|^#(?:REDIRECT|redirect)|__[A-Z]+__|^\*+\s*\[https?:"
    ),
    "XML of a dump": regex.compile(rf"<\?xml|{_elements(_DUMP)}"),
    "HTML": regex.compile(
        rf"(?i:<!doctype|<!--|{_elements(_TAGS)})|&(?:nbsp|amp|lt|gt|quot|apos|\#\d+|\#x[0-9a-fA-F]+);"
    ),
    "JSON": regex.compile(
        r'^\s*[\[{]\s*$|^\s*[\]}],?\s*$|(?:^|[{,])\s*"[^"]{1,60}"\s*:\s*(?:["\[{\-\d]|true|false|null)'
    ),
}
_SIGNS = regex.compile(r"[<\[{}=|'&#_\"\]]")


@dataclass
class TextLooks:
    """Counts of what the lines of a text look like; `see` takes them one by one."""

    lines: int = 0
    looked_at: int = 0
    marked_up: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    example: str = ""
    composed: int = 0
    decomposed: int = 0
    apart: str = ""

    def see(self, line: str) -> None:
        """Take in a line."""
        self.lines += 1
        if self.lines > _FIRST_LINES and self.lines % _ONE_IN:
            return
        self.looked_at += 1
        found = [kind for kind, pattern in _KINDS.items() if pattern.search(line)] if _SIGNS.search(line) else []
        self.kinds.update(found)
        self.marked_up += bool(found)
        if found and not self.example:
            self.example = line.strip()[:_SHOWN]
        if not line.isascii():
            self._see_letters(line, 1)

    def see_word(self, word: str, count: int) -> None:
        """Take in a word that occurs so often."""
        if not word.isascii():
            self._see_letters(word, count)

    @property
    def decomposed_share(self) -> float:
        """The share of decomposed words among those that can be written either way; 0.0 without any."""
        return self.decomposed / max(1, self.decomposed + self.composed)

    def markup_note(self) -> str:
        """Return a sentence on the markup in the text; "" for a text without much."""
        share = self.marked_up / max(1, self.looked_at)
        if share < LEAST_SHARE:
            return ""
        kinds = ", ".join(f"{kind} {count / self.looked_at:.0%}" for kind, count in self.kinds.most_common())
        return (
            f"Markup stands in {share:.0%} of the lines ({kinds}; such as {self.example!r}), and the vocabulary learns it: "
            "take the plain text out first."
        )

    def decomposed_note(self) -> str:
        """Return a sentence on letters taken apart; "" for a text without many."""
        if self.decomposed_share < LEAST_SHARE:
            return ""
        rest = ", so that one word is written in two ways" if self.decomposed_share < 1 - LEAST_SHARE else ""
        return (
            f"Accented letters are taken apart (Unicode's NFD) in {self.decomposed_share:.0%} of the words that have "
            f"some{rest}: bring the text to NFC first (uconv -x nfc, or unicodedata.normalize)."
        )

    def _see_letters(self, text: str, count: int) -> None:
        composed = unicodedata.is_normalized("NFC", text)
        if composed and unicodedata.is_normalized("NFD", text):
            return
        for word in text.split():
            if word.isascii():
                continue
            # Letters that Unicode never composes (Hindi's क़) get longer or stay as they are: they are not taken apart.
            if len(unicodedata.normalize("NFC", word)) < len(word):
                self.decomposed += count
                self.apart = self.apart or word
            elif not unicodedata.is_normalized("NFD", word):
                self.composed += count
