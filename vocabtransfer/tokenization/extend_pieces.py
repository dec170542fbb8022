"""New pieces for vocabularies that have no merges: Unigram and WordPiece; and the characters that any kind may lack."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import Unigram, WordPiece

from vocabtransfer.tokenization.carry import bare_tokenizer
from vocabtransfer.tokenization.merge_learner import learn_more_merges, words_to_learn_from
from vocabtransfer.tokenization.ragged import IntArray, Pieces, row_pointers
from vocabtransfer.tokenization.reshape import UNREACHABLE_SCORE, Learnt, Shape
from vocabtransfer.tokenization.train_bpe import MAX_CHARACTERS
from vocabtransfer.tokenization.train_corpus import alphabet, character_counts, within_alphabet
from vocabtransfer.tokenization.train_unigram import learn_pieces
from vocabtransfer.tokenization.train_wordpiece import inside_forms

# More pieces are learnt than asked for: some turn out to be there already, others never to win.
SPARE, SPARE_MERGES = 1.3, 2_000
ROUNDS = 20


def missing_letters(shape: Shape, known: Collection[str], counts: Mapping[str, int], room: int) -> list[str]:
    """Return the characters to add first: all missing bytes of a byte-level vocabulary, else the common characters.

    Characters take at most half of the ``room`` (a byte-level vocabulary cannot lack many).
    """
    found = character_counts(counts)
    there = [letter for letter in found if letter in known]
    if shape.kind == "bpe":
        return sorted(found.keys() - set(there), key=lambda letter: (-found[letter], letter))[:room]
    chosen = alphabet(found, always=there, limit=len(there) + room // 2)
    return [letter for letter in chosen if letter not in known and letter not in shape.added]


def letter_gains(letters: Sequence[str], counts: Mapping[str, int]) -> IntArray:
    """Return how many byte tokens (at least one each time) new characters save, int64 (letters,)."""
    found = character_counts(counts)
    return np.array([found[letter] * max(1, len(letter.encode()) - 1) for letter in letters], np.int64)


# --- Unigram --------------------------------------------------------------------------------------------------------


def learn_unigram(shape: Shape, counts: Mapping[str, int], new_tokens: int, least: int) -> Learnt:
    """Choose pieces of a Unigram model of the corpus that the old one lacks, those first that save most tokens.

    The old model's probabilities are those of all its text, the new one's those of this corpus. What both have tells
    the share of this kind of text in the old one: all new scores are lowered by it, as if the pieces had been there
    from the start. Pieces that would still lose against a split into others are left out.
    """
    section = shape.document["model"]
    old: dict[str, float] = {text: float(score) for text, score in section["vocab"]}
    letters = missing_letters(shape, old, counts, new_tokens)
    usable = sorted({*(letter for letter in character_counts(counts) if letter in old), *letters})
    if not usable:
        return Learnt((), np.zeros(0, np.int64), section, old)
    words = _cut(within_alphabet(counts, usable))
    used = _UnigramSplits(section, old).usage(words)
    size = round(SPARE * new_tokens) + int(np.count_nonzero(used)) + len(usable)
    pieces = learn_pieces(words, usable, size, max(1, least // 2))
    lowest = min((score for score in old.values() if score > UNREACHABLE_SCORE), default=0.0)
    scale = _scale(old, pieces)
    base = old | {text: max(pieces.get(text, lowest) + scale, lowest) for text in letters}
    found = [text for text in pieces if text not in base and text not in shape.added]
    saved = dict(zip(found, np.diff(_UnigramSplits(section, base).split(found).indptr) - 1, strict=True))
    found = sorted(filter(saved.get, found), key=lambda text: (-np.exp(pieces[text]) * saved[text], text))
    scores = {text: max(pieces[text] + scale, lowest) for text in found}

    def losing(chosen: Sequence[str]) -> tuple[list[bool], IntArray]:
        splits = _UnigramSplits(section, base | {text: scores[text] for text in chosen})
        usage = splits.usage(words)[len(base) :]
        whole = np.diff(splits.split(chosen).indptr) == 1
        return (~whole | (usage < least)).tolist(), usage

    winners, usage = _winners(found, new_tokens - len(letters), losing)
    gains = usage * np.array([saved[text] for text in winners], np.int64)
    scores = base | {text: scores[text] for text in winners}
    return Learnt((*letters, *winners), np.append(letter_gains(letters, counts), gains), section, scores)


def _cut(counts: Mapping[str, int]) -> dict[str, int]:
    """Cut very long stretches, over which the trainer would stumble."""
    short: Counter[str] = Counter()
    for word, count in zip(*words_to_learn_from(counts), strict=True):
        short[word] += int(count)
    return dict(sorted(short.items()))


def _scale(old: Mapping[str, float], pieces: Mapping[str, float]) -> float:
    """Return what the old scores of common pieces are lower by, on average over the corpus; 0.0 without any."""
    shared = [text for text in pieces if old.get(text, UNREACHABLE_SCORE) > UNREACHABLE_SCORE]
    weights = np.exp([pieces[text] for text in shared])
    if not weights.sum():
        return 0.0
    lower = np.array([old[text] - pieces[text] for text in shared])
    return min(0.0, float(np.average(lower, weights=weights)))


class _UnigramSplits:
    """What a Unigram model makes of words."""

    def __init__(self, section: Mapping[str, Any], scores: Mapping[str, float]) -> None:
        self._size = len(scores)
        model = Unigram(list(scores.items()), section["unk_id"], section.get("byte_fallback", False))
        self._tokenizer = Tokenizer(model)

    def split(self, words: Sequence[str]) -> Pieces:
        """Return the pieces of every word, by their order in the scores."""
        return split_words(self._tokenizer, words)

    def usage(self, counts: Mapping[str, int]) -> IntArray:
        """Return how often counted words take each piece, int64 (pieces,)."""
        return usage_in(self.split(list(counts)), counts, self._size)


# --- WordPiece ------------------------------------------------------------------------------------------------------


def learn_wordpiece(shape: Shape, counts: Mapping[str, int], new_tokens: int, least: int) -> Learnt:
    """Choose pieces that join two that follow each other in the corpus, as BPE does; those that are never used go.

    A WordPiece tokenizer takes the longest piece it finds, so a piece that wins as a merge may never be found.
    """
    section = shape.document["model"]
    prefix = section["continuing_subword_prefix"]
    old: dict[str, int] = section["vocab"]
    letters = missing_letters(shape, {text.removeprefix(prefix) for text in old}, counts, new_tokens // 2)
    inside = inside_forms(bare_tokenizer(shape.document), letters, prefix)
    first = [text for text in dict.fromkeys([*letters, *inside]) if text not in old]
    base = [*sorted(old, key=old.__getitem__), *first]
    words, weights = list(counts), np.fromiter(counts.values(), np.int64, len(counts))
    spelling = _Initials(base, prefix)
    pieces = split_words(_wordpiece(section, base), words)
    pieces.ids[pieces.ids == base.index(section["unk_token"])] = -1
    learnt = learn_more_merges(
        [spelling.marked(text) for text in base],
        pieces,
        weights,
        round(SPARE * new_tokens) + SPARE_MERGES,
        longest=MAX_CHARACTERS,
        least=least,
    )
    counted = dict(zip(map(spelling.plain, learnt.tokens), learnt.counts.tolist(), strict=True))
    found = [text for text in counted if text not in shape.added]

    def losing(chosen: Sequence[str]) -> tuple[list[bool], IntArray]:
        vocabulary = [*base, *chosen]
        usage = usage_in(split_words(_wordpiece(section, vocabulary), words), counts, len(vocabulary))[len(base) :]
        return (usage < least).tolist(), usage

    winners, _ = _winners(found, new_tokens - len(first), losing)
    gains = np.array([counted[text] for text in winners], np.int64)
    character_gains = letter_gains([text.removeprefix(prefix) for text in first], counts)
    return Learnt((*first, *winners), np.append(character_gains, gains), section, {})


def _wordpiece(section: Mapping[str, Any], vocabulary: Sequence[str]) -> Tokenizer:
    model = WordPiece(
        {text: i for i, text in enumerate(vocabulary)},
        unk_token=section["unk_token"],
        continuing_subword_prefix=section["continuing_subword_prefix"],
        max_input_chars_per_word=section["max_input_chars_per_word"],
    )
    return Tokenizer(model)


class _Initials:
    """Writes word-initial letters in a private plane that text does not use, so that pieces join like strings."""

    _PLANE = 0x100000

    def __init__(self, vocabulary: Iterable[str], prefix: str) -> None:
        self._prefix = prefix
        initials = sorted({text[0] for text in vocabulary if text and not text.startswith(prefix)})
        self._marks = {letter: chr(self._PLANE + place) for place, letter in enumerate(initials)}
        self._letters = {mark: letter for letter, mark in self._marks.items()}

    def marked(self, piece: str) -> str:
        """Return a piece of the vocabulary with its first letter marked, or without the prefix."""
        if piece.startswith(self._prefix):
            return piece[len(self._prefix) :]
        return self._marks[piece[0]] + piece[1:] if piece else ""

    def plain(self, marked: str) -> str:
        """Undo `marked`."""
        letter = self._letters.get(marked[0])
        return self._prefix + marked if letter is None else letter + marked[1:]


# --- shared -----------------------------------------------------------------------------------------------------------


def split_words(tokenizer: Tokenizer, words: Sequence[str]) -> Pieces:
    """Return the tokens of words with a tokenizer that has nothing but a model."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(words), add_special_tokens=False)]
    starts = row_pointers(np.fromiter(map(len, rows), np.int64, len(rows)))
    return Pieces(starts, np.fromiter(chain.from_iterable(rows), np.int32, starts[-1]))


def usage_in(pieces: Pieces, counts: Mapping[str, int], size: int) -> IntArray:
    """Return how often counted words, cut into pieces, take each token, int64 (size,)."""
    weights = np.repeat(np.fromiter(counts.values(), np.int64, len(counts)), np.diff(pieces.indptr))
    usage = np.zeros(size, np.int64)
    np.add.at(usage, pieces.ids, weights)
    return usage


def _winners(
    found: Sequence[str], wanted: int, losing: Callable[[Sequence[str]], tuple[list[bool], IntArray]]
) -> tuple[list[str], IntArray]:
    """Take the first ``wanted`` pieces, replace those that lose by the next ones until none loses; with their usage."""
    chosen, waiting = list(found[:wanted]), iter(found[wanted:])
    for _ in range(ROUNDS):
        lost, _ = losing(chosen)
        if not any(lost):
            break
        chosen = [text for text, loses in zip(chosen, lost, strict=True) if not loses]
        chosen += islice(waiting, wanted - len(chosen))
    lost, usage = losing(chosen)
    kept = [place for place, loses in enumerate(lost) if not loses]
    return [chosen[place] for place in kept], usage[kept]
