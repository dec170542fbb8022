"""One side of a parallel corpus as numbers: distinct words, and the words of every sentence by their place among them."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.words import caseless, split_words
from vocabtransfer.errors import UsageError
from vocabtransfer.progress import track

Sentence = str | Sequence[str]


@dataclass(frozen=True, eq=False)
class NumberedText:
    """Sentences as word numbers: sentence ``k`` is ``ids[starts[k]:starts[k + 1]]`` (int32, int64), named by ``words``."""

    words: tuple[str, ...]
    starts: NDArray[np.int64]
    ids: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Words in each sentence."""
        return np.diff(self.starts)

    def sentence(self, number: int) -> list[str]:
        """Return the words of one sentence."""
        return [self.words[word] for word in self.ids[self.starts[number] : self.starts[number + 1]].tolist()]

    def take(self, sentences: NDArray[np.int64]) -> "NumberedText":
        """Return the given sentences, over the same words."""
        lengths = self.lengths[sentences]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(starts[-1]) + np.repeat(self.starts[sentences] - starts[:-1], lengths)
        return replace(self, starts=starts, ids=self.ids[places])

    def stemmed(self, length: int | None = None) -> "NumberedText":
        """Return the text with words that differ only in case, or past their first ``length`` characters, made one."""
        index: defaultdict[str, int] = defaultdict()
        index.default_factory = index.__len__
        new = np.array([index[caseless(word)[:length]] for word in self.words], dtype=np.int32)
        return replace(self, words=tuple(index), ids=new[self.ids])


def number_pairs(pairs: Iterable[tuple[Sentence, Sentence]]) -> tuple[NumberedText, NumberedText]:
    """Return both sides of sentence pairs as numbers, showing progress; see `number_sentences`."""
    return number_sentences(track(pairs, "reading sentence pairs"))


def number_sentences(pairs: Iterable[tuple[Sentence, Sentence]]) -> tuple[NumberedText, NumberedText]:
    """Return both sides of sentence pairs as numbers; a sentence is text, or a sequence of words split already."""
    sides = (_Numbering(), _Numbering())
    for pair in pairs:
        try:
            source, target = pair
        except (TypeError, ValueError):
            raise UsageError(f"a sentence pair is two texts, or two lists of words, not {pair!r:.60}.") from None
        sides[0].add(source)
        sides[1].add(target)
    return sides[0].text(), sides[1].text()


class _Numbering:
    def __init__(self) -> None:
        self.index: defaultdict[str, int] = defaultdict()
        self.index.default_factory = self.index.__len__
        self.ids = array("i")
        self.ends = array("q", [0])

    def add(self, sentence: Sentence) -> None:
        words = split_words(sentence) if isinstance(sentence, str) else sentence
        self.ids.extend(map(self.index.__getitem__, words))
        self.ends.append(len(self.ids))

    def text(self) -> NumberedText:
        return NumberedText(tuple(self.index), np.array(self.ends, dtype=np.int64), np.array(self.ids, dtype=np.int32))
