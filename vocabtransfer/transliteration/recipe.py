"""A vocabulary on romanized text, for languages whose script the source model hardly knows (arXiv 2304.08865)."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from numbers import Real
from typing import Any

from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError
from vocabtransfer.languages import Language, find_language
from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.tokenization.carry import NOTES, training_notes
from vocabtransfer.tokenization.train import Algorithm, train_tokenizer
from vocabtransfer.transliteration.base import Digits, Transliterator
from vocabtransfer.transliteration.normalizer import (
    RomanizingNormalizer,
    check_encodable,
    count_tokens,
    romanizing_normalizer,
)
from vocabtransfer.transliteration.record import Romanization
from vocabtransfer.transliteration.registry import find_transliterator
from vocabtransfer.transliteration.tokenizer import with_normalizer

# The rules are learnt from the beginning of a corpus; the whole of it is romanized with them.
SAMPLE_CHARACTERS = 20_000_000
_FAR = 0.99
_TOKEN = re.compile(r"[^ \t\r\n]+")

# Languages that romanization was found to make worse (Purkayastha et al., arXiv 2304.08865, for Tibetan).
HURT = {"bod": "Tibetan", "dzo": "Dzongkha, which is written like Tibetan"}


@public
def prepare_romanized(
    language: str | Language,
    corpus: Iterable[str] | Mapping[str, int],
    like_tokenizer: PreTrainedTokenizerFast,
    vocab_size: int,
    *,
    name: str | None = None,
    digits: Digits = "fold",
    algorithm: Algorithm | None = None,
) -> tuple[PreTrainedTokenizerFast, Romanization]:
    """Train a tokenizer on romanized text, which romanizes what it is given by its own normaliser.

    Vocabulary and normaliser fit exactly: the corpus is romanized by the normaliser itself. What there is to say and to
    warn of is in the record's ``notes`` and in `training_notes` of the tokenizer.

    Args:
        language: the target language.
        corpus: lines of text, read once, or words with counts.
        like_tokenizer: the source's tokenizer, whose specials, template and digit scheme are kept.
        vocab_size: the length of the result.
        name: the romanizer, as in `find_transliterator`.
        digits: "fold" or "keep".
        algorithm: as in `train_tokenizer`.

    Raises:
        UsageError, VocabTransferError: what `find_transliterator` and `train_tokenizer` raise; a corpus that is all
            ASCII.
    """
    known = language if isinstance(language, Language) else find_language(language)
    transliterator = find_transliterator(known, name, digits=digits)
    lines: Iterable[str] = ()
    if isinstance(corpus, Mapping):
        words = _checked(corpus)
    else:
        head, lines = _sampled(corpus)
        words = count_tokens(head)
    first = romanizing_normalizer(transliterator, words)
    apply = _Applied(first)
    with step("romanizing the corpus"):
        romanized = apply.to_words(corpus) if isinstance(corpus, Mapping) else map(apply, lines)
    trained = train_tokenizer(romanized, like=like_tokenizer, vocab_size=vocab_size, algorithm=algorithm)
    merged = 1 - len({apply(word) for word in words}) / len(words)
    notes = _notes(known, transliterator, first, merged)
    tokenizer = with_normalizer(trained, first)
    tokenizer.init_kwargs[NOTES] = [*training_notes(trained), *notes]
    record = Romanization(
        transliterator=transliterator.name,
        version=transliterator.version,
        language=known.tag,
        digits=transliterator.digits,
        steps=first.steps,
        words=first.words,
        equal_words=first.equal_words,
        equal_occurrences=first.equal_occurrences,
        context_free_occurrences=first.context_free_occurrences,
        merged_words=merged,
        notes=tuple(notes),
    )
    return tokenizer, record


def _checked(corpus: Mapping[Any, Any]) -> Counter[str]:
    """Return the words that are not all ASCII with their counts."""
    for word, count in corpus.items():
        if not isinstance(word, str) or not isinstance(count, Real) or not 0 <= float(count) < math.inf:
            raise UsageError(f"Word counts must map words to numbers of at least 0, but {word!r} has {count!r}.")
    return Counter({word: round(count) for word, count in corpus.items() if not word.isascii()})


def _sampled(corpus: Iterable[str]) -> tuple[list[str], Iterator[str]]:
    """Return the first lines of a corpus, and all of its lines."""
    if isinstance(corpus, str | bytes):
        raise UsageError("The corpus must be lines of text or word counts, not one string: open the file first.")
    lines = iter(corpus)
    head: list[str] = []
    size = 0
    for line in lines:
        head.append(line)
        size += len(line) if isinstance(line, str) else 0
        if size >= SAMPLE_CHARACTERS:
            break
    return head, chain(head, lines)


class _Applied:
    """Applies a normaliser to lines, remembering what stretches between spaces became."""

    def __init__(self, normalizer: RomanizingNormalizer):
        self._normalizer = normalizer.normalizer
        self._known: dict[str, str] = {}

    def __call__(self, line: str) -> str:
        # Whatever is not text is left to training, which says which line it is.
        return (
            line
            if not isinstance(line, str) or line.isascii()
            else _TOKEN.sub(lambda match: self._token(match[0]), line)
        )

    def _token(self, token: str) -> str:
        if token.isascii():
            return token
        made = self._known.get(token)
        if made is None:
            check_encodable([token])
            made = str(self._normalizer.normalize_str(token))
            if len(self._known) < 1_000_000:
                self._known[token] = made
        return made

    def to_words(self, words: Mapping[str, int]) -> dict[str, int]:
        """Return romanized words with the counts of all words that are written so."""
        counts: Counter[str] = Counter()
        for word, count in words.items():
            counts[self(word)] += count
        return dict(counts)


def _notes(language: Language, transliterator: Transliterator, first: RomanizingNormalizer, merged: float) -> list[str]:
    romanizer = f"{transliterator.name} {transliterator.version}"
    if transliterator.name == "table":
        romanizer = f"the {language.name} table (edition {transliterator.version})"
    notes = [
        f"Text is romanized by the tokenizer's normaliser in {first.steps} steps; it equals {romanizer} on "
        f"{_percent(first.equal_words)} of {first.words:,} words ({_percent(first.equal_occurrences)} of occurrences), "
        f"a table without context would on {_percent(first.context_free_words)}.",
        "Romanization cannot be undone: what the model generates is romanized text.",
        f"{_percent(merged)} of the words are written like another one once romanized.",
    ]
    if transliterator.digits == "fold":
        notes.append("Digits of other scripts become 0-9 and are generated so.")
    if first.equal_occurrences < _FAR:
        notes.append(
            f"The normaliser departs from {transliterator.name} where that weighs whole words; "
            "RomanizingTokenizer applies it exactly, for a vocabulary trained with it."
        )
    if language.alpha3 in HURT:
        notes.append(f"Warning: romanization was found to hurt {HURT[language.alpha3]}; compare with a build without.")
    if language.script == "Latn":
        notes.append(f"Warning: {language.name} is written in Latin script; romanizing only takes its accents away.")
    return notes


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
