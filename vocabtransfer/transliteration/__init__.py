"""Romanizers behind one interface, vocabularies on romanized text, and cognates between scripts.

The names below load their modules on first use: a romanizer needs neither transformers nor a tokenizer.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Transliterator": "base",
    "Romanized": "base",
    "find_transliterator": "registry",
    "TRANSLITERATORS": "registry",
    "romanizer": "registry",
    "romanizing_normalizer": "normalizer",
    "RomanizingNormalizer": "normalizer",
    "romanizing_tokenizer": "tokenizer",
    "RomanizingTokenizer": "tokenizer",
    "prepare_romanized": "recipe",
    "Romanization": "record",
    "read_romanization": "record",
    "cognates": "similar",
    "Cognates": "similar",
    "romanized_words": "similar",
}
__all__ = [
    "TRANSLITERATORS",
    "Cognates",
    "Romanization",
    "Romanized",
    "RomanizingNormalizer",
    "RomanizingTokenizer",
    "Transliterator",
    "cognates",
    "find_transliterator",
    "prepare_romanized",
    "read_romanization",
    "romanized_words",
    "romanizer",
    "romanizing_normalizer",
    "romanizing_tokenizer",
]

if TYPE_CHECKING:
    from vocabtransfer.transliteration.base import Romanized, Transliterator
    from vocabtransfer.transliteration.normalizer import RomanizingNormalizer, romanizing_normalizer
    from vocabtransfer.transliteration.recipe import prepare_romanized
    from vocabtransfer.transliteration.record import Romanization, read_romanization
    from vocabtransfer.transliteration.registry import TRANSLITERATORS, find_transliterator, romanizer
    from vocabtransfer.transliteration.similar import Cognates, cognates, romanized_words
    from vocabtransfer.transliteration.tokenizer import RomanizingTokenizer, romanizing_tokenizer


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
