"""A romanizer written down as a normaliser of the `tokenizers` library, so that plain transformers applies it.

Three kinds of step. Where a character depends on its neighbours, a `Replace` with a regular expression turns each
exception into a private character of its own, so that later steps still see the neighbours as they were. One `Replace`
takes out what leaves no trace. One `Precompiled` map, SentencePiece's trie, writes everything else at once.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models
from tokenizers.normalizers import Normalizer

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.progress import step
from vocabtransfer.scripts import character_scripts
from vocabtransfer.transliteration.base import Transliterator
from vocabtransfer.transliteration.charsmap import charsmap
from vocabtransfer.transliteration.learned import Exceptional, Learned, is_word_character, labels, learn
from vocabtransfer.transliteration.patterns import Variants, character_set, pattern

MOST_EXCEPTIONS = 600
# Scripts with fewer of the corpus's letters than this get no rules for letters the corpus lacks.
SCRIPT_SHARE = 0.01
EXAMPLES = 20
# Made-up words show what letters do beside neighbours that they never met in the corpus: all pairs of its commonest
# letters. One occurrence in the corpus weighs as much as this many made-up words.
PROBED_CHARACTERS = 80
PROBE_SHARE = 1000


@dataclass(frozen=True)
class RomanizingNormalizer:
    """A normaliser that does what a romanizer does, and how well it does it on the words it was made from.

    ``document`` is the normaliser as in tokenizer.json. The shares are of ``words`` different words and of their
    ``occurrences``; ``examples`` are (word, normaliser, romanizer) where the two differ, the commonest first.
    """

    document: Mapping[str, Any]
    words: int
    occurrences: int
    equal_words: float
    equal_occurrences: float
    context_free_words: float
    context_free_occurrences: float
    examples: tuple[tuple[str, str, str], ...]

    @property
    def steps(self) -> int:
        """The number of steps of the normaliser."""
        return len(self.document["normalizers"])

    @cached_property
    def normalizer(self) -> Normalizer:
        """The normaliser itself."""
        return build_normalizer(self.document)


def build_normalizer(document: Mapping[str, Any]) -> Normalizer:
    """Return the normaliser that a section of tokenizer.json describes."""
    tokenizer = json.loads(Tokenizer(models.BPE()).to_str())
    tokenizer["normalizer"] = document
    built: Normalizer = Tokenizer.from_str(json.dumps(tokenizer, ensure_ascii=False)).normalizer
    return built


def count_tokens(lines: Iterable[str]) -> Counter[str]:
    """Count the stretches between spaces that are not all ASCII.

    Raises `UsageError` for a corpus that is not lines of text, and `VocabTransferError` for half of a surrogate pair.
    """
    if isinstance(lines, str | bytes):
        raise UsageError("The corpus must be lines of text or word counts, not one string: open the file first.")
    counts: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str):
            raise UsageError(f"Line {number} of the corpus is {type(line).__name__}, not text: decode it first.")
        if not line.isascii():
            counts.update(token for token in line.split() if not token.isascii())
    check_encodable(counts)
    return counts


def check_encodable(texts: Iterable[str]) -> None:
    """Raise `VocabTransferError` for the first text that holds half of a surrogate pair."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            raise VocabTransferError(
                f"The corpus holds {text[problem.start]!a}, half of a surrogate pair, which is not text: "
                "read the file as UTF-8 with errors='replace'."
            ) from None


def romanizing_normalizer(
    transliterator: Transliterator, words: Mapping[str, int], *, most_exceptions: int = MOST_EXCEPTIONS
) -> RomanizingNormalizer:
    """Write a romanizer down as a normaliser, learnt from what it does to words.

    Args:
        transliterator: the romanizer.
        words: stretches of text without spaces and how often each occurs; those that are all ASCII do not matter.
        most_exceptions: how many rules may depend on neighbours; the rarest are left out beyond that. Scripts such as
            Thai or Tibetan, and Chinese words read as a whole, need more than is worth having.

    Raises:
        VocabTransferError: none of the words has a character beyond ASCII.
    """
    kept = {word: count for word, count in sorted(words.items()) if not word.isascii() and count > 0}
    check_encodable(kept)
    if not kept:
        raise VocabTransferError("There is nothing to romanize: the corpus has no character beyond ASCII.")
    with step(f"turning {transliterator.name} into a normaliser"):
        labelled = {word: labels(word, transliterator.pieces(word)) for word in kept}
        probes = {probe: labels(probe, transliterator.pieces(probe)) for probe in _probes(kept) if probe not in kept}
        weights = {**{word: count * PROBE_SHARE for word, count in kept.items()}, **dict.fromkeys(probes, 1)}
        learned = learn(weights, {**labelled, **probes}.__getitem__, most_exceptions)
        usual = {**_others(transliterator, kept), **learned.usual}
        document = {"type": "Sequence", "normalizers": list(_steps(learned, usual))}
        return _measured(document, kept, labelled, learned)


def _steps(learned: Learned, usual: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    variants = Variants()
    for character, exceptions in sorted(learned.exceptions.items()):
        for exception in exceptions:
            variants.add(character, exception.text)
    # The library hands short groups of a letter and its marks to the map as a whole and then reads the letter only.
    marks = [
        character
        for character in sorted(usual)
        if unicodedata.category(character)[0] == "M" and character < "\u0800" and usual[character]
    ]
    for mark in marks:
        variants.add(mark, usual[mark])
    word = variants.word_class()
    for character, exceptions in sorted(learned.exceptions.items()):
        for text, together in _runs(exceptions):
            contexts = [exception.neighbours for exception in together]
            yield _replace({"Regex": pattern(character, contexts, variants, word)}, variants.get(character, text))
    for mark in marks:
        yield _replace({"String": mark}, variants.get(mark, usual[mark]))
    written = {character: text for character, text in usual.items() if text != character}
    written.update(variants.texts())
    silent = [character for character, text in written.items() if not text]
    spoken = {character: text for character, text in written.items() if text}
    # Marks without a rule go as well, as they do in every romanizer here.
    yield _replace({"Regex": _silent_pattern(silent, usual)}, "")
    if spoken:
        yield {"type": "Precompiled", "precompiled_charsmap": charsmap(spoken)}


def _silent_pattern(silent: Sequence[str], usual: Mapping[str, str]) -> str:
    kept_marks = [mark for mark, text in usual.items() if text and unicodedata.category(mark) in ("Mn", "Cf")]
    marks = r"[\p{Mn}\p{Cf}]"
    if kept_marks:
        marks = f"(?!{character_set(kept_marks)}){marks}"
    return f"{character_set(silent)}|{marks}" if silent else marks


def _replace(sought: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": sought, "content": content}


def _runs(exceptions: Sequence[Exceptional]) -> Iterator[tuple[str, list[Exceptional]]]:
    """Yield neighbouring exceptions with one result together."""
    run: list[Exceptional] = []
    for exception in exceptions:
        if run and run[-1].text != exception.text:
            yield run[-1].text, run
            run = []
        run.append(exception)
    if run:
        yield run[-1].text, run


def _probes(words: Mapping[str, int]) -> list[str]:
    """Return every pair of the commonest word characters, as a word and inside one."""
    counts = Counter(dict.fromkeys(filter(is_word_character, "".join(words)), 0))
    for word, count in words.items():
        for character in word:
            if character in counts:
                counts[character] += count
    common = [character for character, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    frame = next((character for character in common if not character.isascii() and character.isalpha()), "")
    common = common[:PROBED_CHARACTERS]
    return [f"{edge}{first}{second}{edge}" for edge in ("", frame) for first in common for second in common]


def _others(transliterator: Transliterator, words: Mapping[str, int]) -> dict[str, str]:
    """Return what characters become that the words lack: the rest of their scripts, marks, digits, punctuation."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    points = np.array([ord(character) for character in counts], dtype=np.uint32)
    weights = np.bincount(character_scripts(points), weights=np.array(list(counts.values()), dtype=np.float64))
    weights[0] = 0
    frequent = np.flatnonzero(weights >= max(SCRIPT_SHARE * weights.sum(), 1))
    assigned = [chr(code) for code in range(0x80, 0x32000) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")]
    scripts = character_scripts(np.array([ord(character) for character in assigned], dtype=np.uint32))
    usual = np.isin(scripts, frequent)
    wanted = [
        character
        for character, of_script in zip(assigned, usual.tolist(), strict=True)
        if of_script or unicodedata.category(character)[0] in "NPSZ"
    ]
    return dict(zip(wanted, transliterator.romanize(wanted), strict=True))


def _measured(
    document: Mapping[str, Any],
    words: Mapping[str, int],
    labelled: Mapping[str, Sequence[str]],
    learned: Learned,
) -> RomanizingNormalizer:
    normalizer = build_normalizer(document)
    different: list[tuple[str, str, str]] = []
    free_words = free_occurrences = 0
    for word, count in words.items():
        wanted = "".join(labelled[word])
        got = normalizer.normalize_str(word)
        if got != wanted:
            different.append((word, got, wanted))
        if wanted == "".join([learned.usual[character] for character in word]):
            free_words += 1
            free_occurrences += count
    different.sort(key=lambda example: (-words[example[0]], example[0]))
    total = sum(words.values())
    return RomanizingNormalizer(
        document=document,
        words=len(words),
        occurrences=total,
        equal_words=1 - len(different) / len(words),
        equal_occurrences=1 - sum(words[word] for word, _, _ in different) / total,
        context_free_words=free_words / len(words),
        context_free_occurrences=free_occurrences / total,
        examples=tuple(different[:EXAMPLES]),
    )
