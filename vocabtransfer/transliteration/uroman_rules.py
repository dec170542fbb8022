"""uroman's rules for one language, sorted into those that the fast engine can apply and those that need a lattice."""

import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from vocabtransfer.transliteration.base import Digits
from vocabtransfer.transliteration.engine import Rule, Rules, Table
from vocabtransfer.transliteration.units import Units
from vocabtransfer.transliteration.uroman_lattice import loaded_uroman, unruled

# Scripts in which uroman looks at a letter and the edges of its word and at nothing else ("": marks, symbols). Those
# left out have inherent vowels, vowels written before their consonant, doubling signs or whole syllables to weigh.
PLAIN_SCRIPTS = frozenset(
    (
        "",
        "Latin",
        "Cyrillic",
        "Greek",
        "Armenian",
        "Georgian",
        "Hebrew",
        "Arabic",
        "Syriac",
        "Thaana",
        "Ethiopic",
        "Hangul",
        "CJK",
        "Bopomofo",
        "Cherokee",
        "Yi",
    )
)

LATTICE, NUMBER = "L", "N"
_FLAGS = ("is-vowel-sign", "is-virama", "is-medial-consonant-sign")


@dataclass(frozen=True)
class UromanRules:
    """uroman's rules for a language and a digits policy.

    ``kinds`` is a table for `str.translate`: what is left of a unit are an L for every character that only the lattice
    understands and an N for every one that makes up a number. ``number_parts`` are all characters that a number, or a
    word with a numeral in it, can have.
    """

    rules: Rules
    units: Units
    kinds: Table
    number_parts: frozenset[str]


@cache
def uroman_rules(language: str | None, digits: Digits) -> UromanRules:
    """Sort uroman's rules for a language (ISO 639-3, None for those that hold everywhere)."""
    uroman = loaded_uroman()
    numeric = numerals()
    keep = digits == "keep"
    table = dict(_valid_rules(uroman, language, keep))
    rules = Rules(table, fallback=_unruled_without_digits if keep else unruled)
    longer = [key for key in table if len(key) > 1]
    in_longer = frozenset().union(*longer)
    spaced = {key for key, found in table.items() if len(key) == 1 and any(" " in rule.text for rule in found)}

    def changed(symbol: str) -> str | None:
        if symbol in in_longer or symbol in spaced or symbol in numeric or _is_braille(symbol) or flagged(symbol):
            return None
        text = rules.context_free(symbol)
        return None if text is None or any(character.isalnum() for character in text) else text

    def flagged(character: str) -> bool:
        signs = any(uroman.dict_bool[flag, character] for flag in _FLAGS)
        return signs or bool(uroman.dict_str["tone-mark", character] or uroman.dict_str["syllable-info", character])

    def kind(character: str) -> str:
        if character in numeric and not keep:
            return NUMBER
        script = uroman.chr_script_name(character)
        return LATTICE if script not in PLAIN_SCRIPTS or _is_braille(character) or flagged(character) else ""

    units = Units(
        changed,
        joined=[key for key in longer if not key.isascii() and any(map(_is_ascii_symbol, key))],
        spaced=spaced,
        numeric=() if keep else numeric,
        kept=[character for character in numeric if character.isdecimal()] if keep else (),
    )
    parts = {*numeric, *"0123456789."}.union(uroman.fraction_connectors, uroman.minus_signs, uroman.plus_signs)
    parts.update(*(key for key in longer if not numeric.isdisjoint(key)), *uroman.fraction_connectors)
    return UromanRules(rules, units, Table(kind), frozenset(part for part in parts if len(part) == 1))


@cache
def numerals() -> frozenset[str]:
    """Return the characters beyond ASCII that uroman makes numbers of."""
    known = {text for text in loaded_uroman().num_props if len(text) == 1 and not text.isascii()}
    for character in map(chr, range(0x80, sys.maxunicode + 1)):
        if unicodedata.numeric(character, None) in range(10) and "DIGIT" in unicodedata.name(character, ""):
            known.add(character)
    return frozenset(known)


def _valid_rules(uroman: Any, language: str | None, keep: bool) -> Iterator[tuple[str, list[Rule]]]:
    """Yield each string with the rules that hold for it in a language, those that ask most first."""
    for key, candidates in uroman.rom_rules.items():
        valid = [
            rule
            for rule in candidates
            if rule["t"] is not None and not (rule["lcodes"] and language not in rule["lcodes"])
        ]
        valid.sort(key=lambda rule: -(rule["n-restr"] or 0))
        found = [_rule(rule) for rule in valid]
        if keep:
            found = [rule for rule in found if not _has_digit(rule.text)]
        if key and found:
            yield key, found


def _rule(rule: Any) -> Rule:
    whole = rule["use-only-for-whole-word"]
    at_start = True if rule["use-only-at-start-of-word"] or whole else None
    at_end = True if rule["use-only-at-end-of-word"] or whole else None
    if rule["dont-use-at-start-of-word"]:
        at_start = False
    if rule["dont-use-at-end-of-word"]:
        at_end = False
    return Rule(rule["t"], at_start, at_end)


def _unruled_without_digits(character: str) -> str:
    text = unruled(character)
    return character if _has_digit(text) else text


def _has_digit(text: str) -> bool:
    return any(character.isdecimal() for character in text)


def _is_braille(character: str) -> bool:
    return "\u2800" <= character <= "\u28ff"


def _is_ascii_symbol(character: str) -> bool:
    return character.isascii() and not character.isalpha()
