"""Apostrophes at the edges of words: a letter of the orthography, or a quotation mark?

Quotation marks come in pairs: a mark that opens and a later one that closes. A mark that is left over is a letter, but in
the cases where other things are commoner in text (see `lettered_marks`). No language need be known for that.
"""

import unicodedata
from collections import Counter

import regex

_CURLED, _STRAIGHT = "\u2018\u2019\u201a\u201b", "'`\u00b4\uff07"
EDGE_MARKS = regex.compile(f"[{_CURLED}{_STRAIGHT}]")
NO_MARKS: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
#: The comma of German quotations is never a letter; behind an s an apostrophe marks the English genitive (the dogs’).
_LOW, _GENITIVE = "\u201a", "sSxXzZ"
#: They close a quotation that ‚ opened, or one that the same mark opened where no ’ follows.
_TURNED = "\u2018\u201b"
#: Marks that a quotation may open with and that only then stand behind punctuation or at the beginning.
_OPENING = "\u2018\u201b'`\u00b4\uff07"
_STOPS = ".,;:!?\u2026"


def lettered_marks(text: str) -> tuple[frozenset[int], frozenset[int]]:
    """Return the places of marks that are letters at the beginning of a word, and of those at the end of one.

    Not among them are marks that make a pair, what follows an s (the dogs’), and a ‘ or ' that opens the text or stands
    behind punctuation, as a quotation does that goes on in the next line, unless the text has it as a letter elsewhere.

    >>> lettered_marks("ka ‘ōlelo"), lettered_marks("‘quoted’ ta’")
    ((frozenset({3}), frozenset()), (frozenset(), frozenset({11})))
    """
    opened: dict[bool, list[int]] = {True: [], False: []}
    last: list[int] = []
    lettered: Counter[str] = Counter()
    closing = text.rfind("\u2019")
    for match in EDGE_MARKS.finditer(text):
        place, mark = match.start(), match.group()
        before, after = text[place - 1 : place] if place else "", text[place + 1 : place + 2]
        waiting = opened[mark in _CURLED]
        if _is_letter(before) and _is_letter(after):
            lettered[mark] += 1
        elif waiting and before in _STOPS and before:
            waiting.pop()
        elif after.strip() and not before.isalnum() and not _is_letter(before):
            waiting.append(place)
        elif before.strip() and waiting and (mark not in _TURNED or text[waiting[-1]] == _LOW or place > closing):
            waiting.pop()
        elif _is_letter(before) and mark != _LOW and (mark in _TURNED or before not in _GENITIVE):
            last.append(place)
    first = [place for place in opened[True] + opened[False] if _is_letter(text[place + 1]) and text[place] != _LOW]
    lettered.update(text[place] for place in first)
    kept = (place for place in first if lettered[text[place]] > 1 or not _may_open(text, place))
    return frozenset(kept), frozenset(last)


def _is_letter(character: str) -> bool:
    return character.isalpha() or (character != "" and unicodedata.category(character)[0] == "M")


def _may_open(text: str, place: int) -> bool:
    if text[place] not in _OPENING:
        return False
    # Of what stands before only the last two characters are looked at: "word " or the punctuation of a sentence.
    before = text[max(0, place - 2) : place].strip()
    return not before or not before[-1].isalnum()
