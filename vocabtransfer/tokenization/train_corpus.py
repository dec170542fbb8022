"""Corpora for tokenizer training: streams of text lines or word counts, and pre-token counts made from them."""

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from numbers import Real
from typing import Annotated, Any, cast

import regex
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.looks import TextLooks
from vocabtransfer.files.text import TextFiles, is_paths, read_text
from vocabtransfer.progress import track
from vocabtransfer.public import CHECKED_INSIDE
from vocabtransfer.tokenization.carry import bare_tokenizer
from vocabtransfer.tokenization.joiners import SHARE_OF_JOINERS, joiner_share, loses_joiners
from vocabtransfer.tokenization.stretches import cut_counts, cut_line

LINES_PER_BATCH = 1000
SAMPLE_LINES = 2000
SAMPLE_CHARACTERS = 200_000
WORDS_PER_ATTACHED_WORD = 8
# Counts are fed to trainers as repeated words; this many characters keep that to a few seconds.
FED_CHARACTERS = 24_000_000
# A Unicode noncharacter, never part of text: separates pre-tokens when they are fed to a trainer.
SEPARATOR = "\ufdd0"


#: What tokenizers are trained on: lines, word counts, or files of text as `read_text` takes them.
CorpusLike = Annotated[Iterable[str] | Mapping[str, int] | TextFiles, CHECKED_INSIDE]


class Corpus:
    """Text lines (of files, too) or word counts, checked, with a sample of the beginning taken without losing it.

    Lines are streamed and can be read once. ``once`` is the count that `pretokens` gives to something seen once.
    Raises `UsageError` for a corpus of the wrong type and `VocabTransferError` for one without text.
    """

    def __init__(self, corpus: CorpusLike):
        if is_paths(corpus):
            corpus = read_text(corpus)
        if isinstance(corpus, str | bytes):
            raise UsageError("The corpus must be lines of text or word counts, not one string: open the file first.")
        self.looks = TextLooks()
        self.words = _checked_words(corpus) if isinstance(corpus, Mapping) else None
        self.once = 1 if self.words is None else WORDS_PER_ATTACHED_WORD
        self._lines: Iterator[str] = iter(())
        if self.words is not None:
            # Words are sorted, so the sample takes every n-th of them to see all scripts.
            self.sample = " ".join(list(self.words)[:: 1 + len(self.words) // 20_000])
            for word, count in self.words.items():
                self.looks.see_word(word, count)
            return
        lines = self._seen(checked_lines(cast(Iterable[str], corpus)))
        head = list(islice(lines, SAMPLE_LINES))
        if not head:
            raise VocabTransferError("The corpus to train the tokenizer on has no text: every line of it is empty.")
        self.sample = "\n".join(head)[:SAMPLE_CHARACTERS]
        self._lines = chain(head, lines)

    def notes(self, normalizer: Any) -> list[str]:
        """Return what is to be said of the text that was read, for a tokenizer with this normaliser, a sentence each."""
        notes = [self.looks.markup_note()]
        if not _composes(normalizer, self.looks.apart):
            notes.append(self.looks.decomposed_note())
        share = joiner_share(self.sample)
        if share >= SHARE_OF_JOINERS and loses_joiners(normalizer):
            notes.append(
                f"{share:.1%} of the text's words have zero-width joiners, which this tokenizer's rules lose, so that it "
                "cannot write these words."
            )
        return [note for note in notes if note]

    def _seen(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            self.looks.see(line)
            yield line

    def batches(self, *, cut: bool = False) -> Iterator[list[str]]:
        """Yield the lines in lists (once); with ``cut``, lines with long stretches without a break in parts."""
        lines: Iterator[str] = iter(track(self._lines, "reading text"))
        if cut:
            lines = (part for line in lines for part in cut_line(line))
        while batch := list(islice(lines, LINES_PER_BATCH)):
            yield batch

    def pretokens(self, document: Mapping[str, Any], *, space: str) -> dict[str, int]:
        """Count what the document's normaliser and pre-tokenizer make of the corpus, sorted by string.

        ``space`` is put in front of the words of a word-count corpus to make them word-initial (empty where the
        normaliser marks the start of a text by itself). Memory follows the number of different pre-tokens, not the
        corpus. Stretches longer than 128 characters are cut, text before it becomes bytes.
        """
        tokenizer = bare_tokenizer(document)
        if self.words is not None:
            return cut_counts(_pretokens_of_words(self.words, tokenizer, space))
        # This trainer counts pre-tokens in parallel; with no room for a vocabulary, counting is all that it does.
        counting = Tokenizer(models.WordLevel())
        if document["normalizer"] is not None:
            counting.normalizer = tokenizer.normalizer
        if document["pre_tokenizer"] is not None:
            counting.pre_tokenizer = tokenizer.pre_tokenizer
        trainer = trainers.WordLevelTrainer(vocab_size=0, show_progress=False)
        in_bytes = "ByteLevel" in json.dumps(document["pre_tokenizer"])
        counting.train_from_iterator(self.batches(cut=in_bytes), trainer=trainer)
        words: dict[str, int] = json.loads(trainer.__getstate__())["WordLevelTrainer"]["words"]
        return dict(sorted(words.items())) if in_bytes else cut_counts(dict(sorted(words.items())))


def _composes(normalizer: Any, word: str) -> bool:
    """Say whether a normaliser puts the letters of a word together that were taken apart, or strips their marks."""
    found = bare_tokenizer({"normalizer": normalizer, "pre_tokenizer": None}).normalizer
    return found is not None and unicodedata.is_normalized("NFC", found.normalize_str(word))


def _checked_words(words: Mapping[Any, Any]) -> dict[str, int]:
    kept: dict[str, int] = {}
    for word, count in words.items():
        if not isinstance(word, str) or not isinstance(count, Real) or not 0 <= float(count) < math.inf:
            raise UsageError(f"Word counts must map words to numbers of at least 0, but {word!r} has {count!r}.")
        if word.strip() and round(float(count)):
            kept[_encodable(word, f"The word {word!a}")] = round(float(count))
    if not kept:
        raise VocabTransferError("The word counts to train the tokenizer on are empty: no word has a count above 0.")
    return dict(sorted(kept.items()))


def checked_lines(lines: Iterable[str], name: str = "the corpus") -> Iterator[str]:
    """Yield the lines that hold something, without their ends; what is no text is refused by its number."""
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str):
            raise UsageError(f"Line {number} of {name} is {type(line).__name__}, not text: decode it first.")
        line = line.rstrip("\r\n")
        if line and not line.isspace():
            yield _encodable(line, f"Line {number} of {name}")


def _encodable(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise VocabTransferError(
            f"{place} holds {text[error.start]!a}, half of a surrogate pair, which is not text: "
            "read the file as UTF-8 with errors='replace'."
        ) from None
    return text


def _pretokens_of_words(words: Mapping[str, int], tokenizer: Tokenizer, space: str) -> dict[str, int]:
    """Pre-tokenize each distinct word once and add its count to its pieces.

    In running text some words follow a bracket, a quotation mark or a line break instead of a space, and most
    punctuation follows a word: the form without the space is counted too, at an eighth of a word's count and at the
    full count for anything else. All counts are multiplied by eight to stay whole.
    """
    normalise = tokenizer.normalizer.normalize_str if tokenizer.normalizer is not None else str
    split = tokenizer.pre_tokenizer.pre_tokenize_str if tokenizer.pre_tokenizer is not None else None

    counts: Counter[str] = Counter()
    for word, count in words.items():
        text = normalise(space + word)
        pieces = [part for part, _ in split(text)] if split else [text]
        for piece in pieces:
            counts[piece] += count * WORDS_PER_ATTACHED_WORD
        bare = pieces[0].lstrip("Ġ▁") if pieces else ""
        if bare and bare != pieces[0]:
            counts[bare] += count if word[0].isalpha() else count * WORDS_PER_ATTACHED_WORD
    return dict(sorted(counts.items()))


def scaled_counts(counts: Mapping[str, int], characters: int = FED_CHARACTERS) -> tuple[dict[str, int], float]:
    """Return the counts and the factor they were scaled by: 1.0, or less if feeding them would take more characters.

    Order is kept up to ties; what rounds to nothing is left out.
    """
    total = sum((len(piece) + 1) * count for piece, count in counts.items())
    if total <= characters:
        return dict(counts), 1.0
    scale = characters / total
    return {piece: scaled for piece, count in counts.items() if (scaled := round(count * scale))}, scale


def repeated(counts: Mapping[str, int], batch_characters: int = 200_000) -> Iterator[list[str]]:
    """Yield batches of strings in which every pre-token stands as often as its count, split by `SEPARATOR`."""
    batch, size = [], 0
    for piece, count in counts.items():
        per_string = max(1, batch_characters // (len(piece) + 1))
        while count > 0:
            batch.append((piece + SEPARATOR) * min(count, per_string))
            count -= per_string
            size += len(batch[-1])
            if size >= batch_characters * 10:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def feeding_pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """Return the pre-tokenizer that undoes `repeated`."""
    return pre_tokenizers.CharDelimiterSplit(SEPARATOR)


def character_counts(pretokens: Mapping[str, int]) -> Counter[str]:
    """Count the characters of counted pre-tokens."""
    counts: Counter[str] = Counter()
    for piece, count in pretokens.items():
        for character in piece:
            counts[character] += count
    return counts


def alphabet(
    counts: Mapping[str, int], *, always: Iterable[str], coverage: float = 0.9995, limit: int | None = None
) -> list[str]:
    """Choose single characters for a vocabulary: ``always``, then the commonest until ``coverage`` of all occurrences.

    Control characters and unassigned code points are left to the bytes or the unknown token. Sorted by code point.
    """
    chosen = set(always)
    total = sum(counts.values())
    covered = sum(counts.get(character, 0) for character in chosen)
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= coverage * total or (limit is not None and len(chosen) >= limit):
            break
        if character in chosen or unicodedata.category(character) in ("Cc", "Cn", "Cs"):
            continue
        chosen.add(character)
        covered += count
    return sorted(chosen)


def within_alphabet(pretokens: Mapping[str, int], letters: Sequence[str]) -> dict[str, int]:
    """Cut pre-tokens at characters outside the alphabet, so that no pair is learnt across a gap."""
    inside = regex.compile("[" + "".join(regex.escape(letter) for letter in letters) + "]+")
    counts: Counter[str] = Counter()
    for piece, count in pretokens.items():
        for part in inside.findall(piece):
            counts[part] += count
    return dict(sorted(counts.items()))
