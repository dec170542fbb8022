"""Cleaning of interface strings and documentation into sentence pairs that a word aligner can learn from."""

import html
import unicodedata

import regex

from vocabtransfer.languages import Language
from vocabtransfer.scripts import chinese_variants

# Scripts that ISO 15924 names as a mixture or a variant of what Unicode calls a script.
SCRIPT_PARTS = {
    "Hans": ("Hani",),
    "Hant": ("Hani",),
    "Jpan": ("Hani", "Hira", "Kana"),
    "Kore": ("Hang", "Hani"),
    "Aran": ("Arab",),
}
# Letters of the script that say as much as one letter of English does.
DENSITY = {"Hans": 0.4, "Hant": 0.4, "Jpan": 0.5, "Kore": 0.5}
#: Languages of which is known which characters "Hans" and "Hant" are.
CHINESE = ("zh", "yue")
MOST_CHARACTERS = 1500
# A short label may be translated by a word many times its length; past this many characters the ratio decides.
SLACK = 12

_SPACE = regex.compile(r"\s+")
_TAG = regex.compile(r"<[^<>]{1,200}>")
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*")
# "Файл (_F)", "文件(&F)": the accelerator of a language whose letters have no key.
_ADDED_ACCELERATOR = regex.compile(r"\s?\([_&~]\w\)")
_ACCELERATOR = regex.compile(r"(?<![_&~])[_~&](?=\p{L})(?!\w+;)")
_PLACEHOLDER = regex.compile(
    r"%(?:\([\w-]+\)|\d+\$)?[-#0 +']*\d*(?:\.\d+)?[a-zA-Z]|%\d+|%%"  # printf, Qt
    r"|\{[^{}]*\}"  # Python, Java, ICU, MediaWiki, Scratch
    r"|\$\{?[\w$]+\}?"  # shell, MediaWiki's $1
    r"|@\w+@|\\[ntr\"\\]|\[\[|\]\]|&\w+;"
)
_SENTENCE_END = regex.compile(r"(?<=[.!?…।])[\"»”)]*\s+(?=[«“\"(]?[\p{Lu}\p{Lo}])|(?<=[。！？])")


def normalise(text: str) -> str:
    """Return the text in NFC, the Dutch ligature ĳ as two letters, every run of white space as one space."""
    text = unicodedata.normalize("NFC", text).replace("ĳ", "ij").replace("Ĳ", "IJ")
    return str(_SPACE.sub(" ", text)).strip()


def count_words(text: str) -> int:
    """Return the number of runs of letters and marks."""
    return len(_WORD.findall(text))


def strip_accelerators(text: str) -> str:
    """Remove the marks of keyboard accelerators: ``_File``, ``&File``, ``~File``, ``Файл (_F)``.

    A mark that occurs more than once is left alone: that is an identifier such as ``LC_ALL_NAMES``, not an accelerator.

    >>> strip_accelerators("_Open"), strip_accelerators("Q&uit"), strip_accelerators("Файл (_F)")
    ('Open', 'Quit', 'Файл')
    """
    if "://" in text:
        return text
    text = _ADDED_ACCELERATOR.sub("", text)
    return _ACCELERATOR.sub("", text) if sum(map(text.count, "_&~")) == 1 else text


def strip_markup(text: str) -> str:
    """Remove tags and resolve character references.

    >>> strip_markup("Press <b>Save</b> &amp; close")
    'Press  Save  & close'
    """
    return html.unescape(_TAG.sub(" ", text))


def has_placeholder(text: str) -> bool:
    """Tell whether a message has a hole that a program fills: ``%s``, ``{name}``, ``$1``, ``@VERSION@`` ..."""
    return _PLACEHOLDER.search(text) is not None


def script_share(text: str, script: str) -> float:
    """Return the share of letters that belong to an ISO 15924 script (0 for a text without letters).

    >>> script_share("Linux буенча", "Cyrl")
    0.5454545454545454
    """
    letters = sum(map(str.isalpha, text))
    parts = "".join(rf"\p{{Script={part}}}" for part in SCRIPT_PARTS.get(script, (script,)))
    inside = sum(map(str.isalpha, "".join(regex.findall(f"[{parts}]+", text))))
    return inside / letters if letters else 0.0


def in_other_variant(text: str, language: Language) -> bool:
    """Tell whether Chinese is written with the other characters than those asked for, simplified or traditional.

    Only of Mandarin and Cantonese: which of the two other languages mean is not known.
    """
    if language.code not in CHINESE or language.script not in ("Hans", "Hant"):
        return False
    simplified, traditional = chinese_variants(text)
    return traditional > simplified if language.script == "Hans" else simplified > traditional


def looks_untranslated(english: str, target: str) -> bool:
    """Tell whether the target is mostly the English words again (three of four of them, in four words or more)."""
    words = [word.casefold() for word in _WORD.findall(target)]
    known = {word.casefold() for word in _WORD.findall(english)}
    return len(words) >= 4 and sum(word in known for word in words) >= 0.75 * len(words)


def clean_pair(
    english: str, target: str, script: str, *, min_words: int = 1, max_ratio: float = 3.0
) -> tuple[str, str] | None:
    """Return both sides cleaned, or None when the pair would teach an aligner nothing or something wrong.

    ``script`` is the ISO 15924 code of the target's script. Refused: empty or equal sides, holes for variables,
    leftover markup, fewer than ``min_words`` English words, a target less than half in its script or mostly English,
    lengths that differ by more than ``max_ratio``, and anything above `MOST_CHARACTERS` characters.
    """
    english = normalise(strip_markup(strip_accelerators(english)))
    target = normalise(strip_markup(strip_accelerators(target)))
    if not english or not target or max(len(english), len(target)) > MOST_CHARACTERS:
        return None
    if english.casefold() == target.casefold() or looks_untranslated(english, target):
        return None
    for side in (english, target):
        if has_placeholder(side) or "<" in side or ">" in side or "\ufffd" in side:
            return None
    if count_words(english) < min_words or script_share(target, script) < 0.5:
        return None
    expected = len(english) * DENSITY.get(script, 1.0)
    if abs(len(target) - expected) > SLACK and not expected / max_ratio < len(target) < expected * max_ratio:
        return None
    return english, target


def split_sentences(english: str, target: str) -> list[tuple[str, str]]:
    """Split a paragraph pair into sentences when both sides have equally many, else keep it whole.

    >>> split_sentences("Save it. Close it.", "Сакла. Яп.")
    [('Save it.', 'Сакла.'), ('Close it.', 'Яп.')]
    """
    left, right = _SENTENCE_END.split(normalise(english)), _SENTENCE_END.split(normalise(target))
    left, right = [part for part in left if part], [part for part in right if part]
    return list(zip(left, right, strict=True)) if len(left) == len(right) else [(english, target)]
