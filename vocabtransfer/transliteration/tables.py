"""Tables for languages that uroman romanizes oddly: Tatar and Kazakh in Cyrillic, Amharic and Tigrinya.

The result is plain ASCII. Tatar and Kazakh follow the BGN/PCGN romanizations without their diacritics; Ethiopic is read
as names are commonly written in English (ኢትዮጵያ: ityopya, ቤት: bet), where uroman writes out the vowel that most
syllables of the sixth order have lost (iteyopheyaa, beete).
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from typing import ClassVar

from vocabtransfer.transliteration.base import Digits, Piece
from vocabtransfer.transliteration.cached import CachedTransliterator
from vocabtransfer.transliteration.engine import Rule, Rules, keep_unless_zero_width
from vocabtransfer.transliteration.units import Units

# Raised when a table changes: it is stored with every checkpoint that was made with one.
VERSION = "2"

_CYRILLIC = (
    "а a б b в v г g д d е e ё yo ж zh з z и i й y к k л l м m н n о o п p р r с s т t у u ф f х kh ц ts ч ch ш sh "
    "щ shch ъ _ ы y ь _ э e ю yu я ya і i ї yi є ye ґ g ў w ң ng һ h ү u ө o ә e җ j қ q ғ gh ұ u"
)
_KAZAKH = "ә a"
_VOWELS = "аәеёиоөуүұыіэюяъь"

_CONSONANTS = {
    "HH": "h",
    "SZ": "s",
    "TH": "t",
    "PH": "p",
    "TZ": "ts",
    "QH": "q",
    "KX": "h",
    "X": "h",
    "C": "ch",
    "DD": "d",
    "GG": "g",
    "GLOTTAL": "",
    "PHARYNGEAL": "",
}
_GUTTURALS = ("H", "HH", "X", "GLOTTAL", "PHARYNGEAL")
_ORDERS = {"A": "e", "U": "u", "I": "i", "AA": "a", "EE": "e", "E": "", "O": "o", "OA": "wa"}
_SYLLABLE = re.compile(r"ETHIOPIC SYLLABLE (?:(GLOTTAL|PHARYNGEAL) )?([B-DF-HJ-NP-TV-Z]*)(AA|EE|OA|A|U|I|E|O)")
_ETHIOPIC_SIGNS = {"፡": " ", "።": ".", "፣": ",", "፤": ";", "፥": ":", "፦": ":", "፧": "?"}


class TableTransliterator(CachedTransliterator):
    """Romanizes one language by a table of ours; letters of other scripts are kept.

    >>> list(TableTransliterator("tat").romanize(["Җәй һәм өч ел, Казанның ЩУКАСЫ"]))
    ['Jey hem och yel, Kazannyng SHCHUKASY']
    """

    name: ClassVar[str] = "table"

    def __init__(self, language: str, digits: Digits = "fold"):
        fallback = _digit_folded if digits == "fold" else _kept
        self._rules = Rules(_TABLES[language](), fallback=fallback, lone_capitals=True)
        spaced = [sign for sign, text in _ETHIOPIC_SIGNS.items() if text == " "]
        super().__init__(language, digits, Units(self._rules.context_free, spaced=spaced))

    @cached_property
    def version(self) -> str:
        """The edition of the tables."""
        return VERSION

    def _romanize_unit(self, unit: str) -> str:
        return self._rules.romanize(unit)

    def _unit_pieces(self, unit: str) -> list[Piece]:
        return self._rules.pieces(unit)


def _kept(character: str) -> str:
    """Return a character without a rule; joiners and accents that go with any letter leave no trace.

    Marks of another script, such as the vowel signs of Devanagari, stay with the letters that stay.
    """
    if unicodedata.category(character) == "Mn" and "COMBINING" not in unicodedata.name(character, ""):
        return character
    return keep_unless_zero_width(character)


def _digit_folded(character: str) -> str:
    value = unicodedata.decimal(character, None)
    return _kept(character) if value is None else str(value)


@cache
def _tatar() -> dict[str, list[Rule]]:
    return _with_capitals(_cyrillic())


@cache
def _kazakh() -> dict[str, list[Rule]]:
    return _with_capitals(_cyrillic() | _pairs(_KAZAKH))


def _cyrillic() -> dict[str, list[Rule]]:
    rules = _pairs(_CYRILLIC)
    rules["е"] = [Rule("ye", at_start=True), Rule("ye", after=_VOWELS + _VOWELS.upper()), Rule("e")]
    return rules


def _pairs(table: str) -> dict[str, list[Rule]]:
    words = table.split()
    return {letter: [Rule(text.replace("_", ""))] for letter, text in zip(words[::2], words[1::2], strict=True)}


def _with_capitals(rules: dict[str, list[Rule]]) -> dict[str, list[Rule]]:
    """Add upper case, and the spellings of letters with a combining mark of their own (й as и and a breve)."""
    everything = dict(rules)
    for letter, found in rules.items():
        everything[letter.upper()] = [Rule(rule.text.upper(), rule.at_start, rule.at_end, rule.after) for rule in found]
    for letter, found in list(everything.items()):
        taken_apart = unicodedata.normalize("NFD", letter)
        if taken_apart != letter:
            everything[taken_apart] = found
    return everything


@cache
def _ethiopic() -> dict[str, list[Rule]]:
    rules = {sign: [Rule(text)] for sign, text in _ETHIOPIC_SIGNS.items()}
    rules.update(_syllables())
    rules["ይ"] = [Rule("yi", at_start=True), Rule("y")]
    return rules


def _syllables() -> Iterator[tuple[str, list[Rule]]]:
    """Yield the Ethiopic syllables of Unicode; their names are a transcription of consonant and vowel order."""
    for character in map(chr, range(0x1200, 0x1360)):
        match = _SYLLABLE.fullmatch(unicodedata.name(character, ""))
        if match is None:
            continue
        consonant = match[1] or match[2]
        glide = "w" if len(consonant) > 1 and consonant.endswith("W") else ""
        consonant = consonant.removesuffix("W") if glide else consonant
        vowel = _ORDERS[match[3]]
        if match[3] == "A" and consonant in _GUTTURALS:
            vowel = "a"
        if match[3] == "E" and consonant in ("GLOTTAL", "PHARYNGEAL"):
            vowel = "i"
        yield character, [Rule(_CONSONANTS.get(consonant, consonant.lower()) + glide + vowel)]


_TABLES: dict[str, Callable[[], dict[str, list[Rule]]]] = {
    "tat": _tatar,
    "kaz": _kazakh,
    "amh": _ethiopic,
    "tir": _ethiopic,
}
# The script that a table reads; the same language in another script is uroman's.
TABLE_SCRIPTS = {"tat": "Cyrl", "kaz": "Cyrl", "amh": "Ethi", "tir": "Ethi"}
