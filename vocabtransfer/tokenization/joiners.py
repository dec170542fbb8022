"""The zero-width joiners, U+200C and U+200D: letters of Persian, Sinhala or Malayalam that many normalisers take for noise.

SentencePiece's rule nmt_nfkc (T5, mT5, XLM-R, NLLB) turns them into spaces, BERT's cleaning drops them: میخواهم in place of
می‌خواهم. A normaliser can be told to let them pass.
"""

from typing import Any

import regex
from tokenizers import Tokenizer

from vocabtransfer.tokenization.carry import bare_tokenizer

# One word in a thousand: less than that is what editors leave behind.
SHARE_OF_JOINERS = 0.001
_JOINED = regex.compile(r"[\p{L}\p{M}][\u200c\u200d](?=\p{L})")
_WORD = regex.compile(r"[\p{L}\p{M}\u200c\u200d]+")
#: Stand for the joiners while the other rules run: private characters of the last plane, which no rule knows.
_STAND_INS = {"\u200c": "\U0010200c", "\u200d": "\U0010200d"}
_PROBES = ("می\u200cخواهم", "ක්\u200dෂය")


def joiner_share(sample: str) -> float:
    """Return the share of words with a joiner between two of their letters (0.0 for a text without words).

    >>> joiner_share("می\u200cخواهم کتاب"), joiner_share("a word\u200c")
    (0.5, 0.0)
    """
    words = _WORD.findall(sample)
    return sum(_JOINED.search(word) is not None for word in words) / len(words) if words else 0.0


def loses_joiners(normalizer: Any) -> bool:
    """Say whether a normaliser (its part of a tokenizer.json) changes the joiners between letters."""
    tokenizer: Tokenizer = bare_tokenizer({"normalizer": normalizer, "pre_tokenizer": None})
    if tokenizer.normalizer is None:
        return False
    joiners = [set(probe) & _STAND_INS.keys() for probe in _PROBES]
    found = (set(tokenizer.normalizer.normalize_str(probe)) for probe in _PROBES)
    return any(not wanted <= there for wanted, there in zip(joiners, found, strict=True))


def with_joiners_kept(normalizer: Any) -> Any | None:
    """Return a normaliser that lets joiners pass and does everything else as this one; None if that cannot be had."""
    kept = _wrapped(_without_cleaning(normalizer))
    return None if loses_joiners(kept) else kept


def _wrapped(normalizer: dict[str, Any]) -> dict[str, Any]:
    there = [_replace({"String": joiner}, mark) for joiner, mark in _STAND_INS.items()]
    back = [_replace({"String": mark}, joiner) for joiner, mark in _STAND_INS.items()]
    if not loses_joiners(normalizer):
        return normalizer
    own = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    return {"type": "Sequence", "normalizers": [*there, *own, *back]}


def _without_cleaning(normalizer: dict[str, Any]) -> dict[str, Any]:
    """Return BERT's normaliser with its cleaning spelled out, joiners left alone; it would drop the stand-ins, too."""
    if normalizer["type"] == "Sequence":
        return {**normalizer, "normalizers": [_without_cleaning(part) for part in normalizer["normalizers"]]}
    if normalizer["type"] != "BertNormalizer" or not normalizer["clean_text"]:
        return normalizer
    controls = _replace({"Regex": r"[[\p{C}\x{FFFD}]&&[^\t\n\r\x{200C}\x{200D}]]"}, "")
    spaces = _replace({"Regex": r"\s"}, " ")
    return {"type": "Sequence", "normalizers": [controls, spaces, {**normalizer, "clean_text": False}]}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}
