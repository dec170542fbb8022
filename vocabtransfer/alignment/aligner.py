"""`align`: which words of a sentence pair translate each other, for a whole parallel corpus.

>>> pairs = [("a house", "uy"), ("a book", "kitap"), ("the house", "uy"), ("house", "uy")] * 5
>>> align(pairs).links(0)
[(1, 0)]
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vocabtransfer import __version__
from vocabtransfer.alignment.aligner_text import NumberedText, Sentence, number_pairs
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.alignment.text_files import read_lines, write_compressed
from vocabtransfer.errors import UsageError, VocabTransferError

# What words with the same first letters have in common is learnt once: most of it is one word with other endings.
STEM_LENGTH = 4
# The probability of a link is the product of what both directions say.
THRESHOLD = 0.2
# Longer sentences are mostly not sentences; the time of one grows with the cube of its length.
MAX_WORDS = 256


@dataclass(frozen=True, eq=False)
class WordAlignment:
    """The links of a parallel corpus.

    Sentence pair ``k`` has the links ``starts[k]:starts[k + 1]`` (int64): ``source_positions`` and ``target_positions``
    (int32, counted from 0 inside the sentence) and ``probabilities`` (float32). ``source`` and ``target`` hold the words,
    ``aligner`` says who made the links.
    """

    source: NumberedText
    target: NumberedText
    starts: NDArray[np.int64]
    source_positions: NDArray[np.int32]
    target_positions: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    aligner: str

    def __len__(self) -> int:
        return len(self.starts) - 1

    def links(self, pair: int) -> list[tuple[int, int]]:
        """Return the links of one sentence pair as (source position, target position), sorted."""
        span = slice(self.starts[pair], self.starts[pair + 1])
        return list(zip(self.source_positions[span].tolist(), self.target_positions[span].tolist(), strict=True))

    def table(self, metadata: Mapping[str, Any] | None = None) -> WordTable:
        """Count the linked words as they are written, each link by its probability.

        The table's metadata are the number of pairs, the aligner and whatever is given here.
        """
        pair = np.repeat(np.arange(len(self)), np.diff(self.starts))
        links = (
            self.source.ids[self.source.starts[pair] + self.source_positions],
            self.target.ids[self.target.starts[pair] + self.target_positions],
            self.probabilities,
        )
        source_totals = np.bincount(self.source.ids, minlength=len(self.source.words)).astype(np.float32)
        target_totals = np.bincount(self.target.ids, minlength=len(self.target.words)).astype(np.float32)
        facts = {"pairs": len(self), "aligner": self.aligner, **(metadata or {})}
        return WordTable.from_pairs(self.source.words, self.target.words, links, source_totals, target_totals, facts)

    def save_pharaoh(self, path: str | Path) -> None:
        """Write the links as ``i-j`` pairs, one sentence pair a line; compressed as the suffix tells."""
        lines = (" ".join(f"{i}-{j}" for i, j in self.links(pair)) + "\n" for pair in range(len(self)))
        write_compressed(Path(path), "".join(lines).encode())

    @classmethod
    def from_pharaoh(cls, pairs: Iterable[tuple[Sentence, Sentence]], path: str | Path) -> Self:
        """Read links that some aligner made for the given pairs, whose words are split in the same way.

        Text is split at spaces, as aligners do. Raises `VocabTransferError` naming file and line for anything else than
        ``i-j`` pairs within the sentences, and for unequal numbers of lines and pairs.
        """
        path = Path(path)
        source, target = number_pairs((_at_spaces(source), _at_spaces(target)) for source, target in pairs)
        rows = [_parse_links(path, number, line) for number, line in read_lines(path)]
        if len(rows) != len(source):
            raise VocabTransferError(
                f"{path} has {len(rows)} lines for {len(source)} sentence pairs: "
                "leave out the lines of pairs that are skipped, such as those with an empty side."
            )
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        links = np.array([link for row in rows for link in row], dtype=np.int64).reshape(-1, 2)
        pair = np.repeat(np.arange(len(rows)), np.diff(starts))
        outside = (links[:, 0] >= source.lengths[pair]) | (links[:, 1] >= target.lengths[pair])
        if outside.any():
            line = int(pair[outside][0]) + 1
            raise VocabTransferError(f"{path}, line {line} links a word past the end of its sentence.")
        positions = links.astype(np.int32)
        return cls(
            source,
            target,
            starts,
            positions[:, 0],
            positions[:, 1],
            np.ones(len(links), np.float32),
            "links read from a file",
        )


def align(
    pairs: Iterable[tuple[Sentence, Sentence]],
    *,
    symmetrise: str = "posterior",
    threshold: float = THRESHOLD,
    stem_length: int = STEM_LENGTH,
) -> WordAlignment:
    """Align the words of sentence pairs; the same pairs give the same links on any number of threads.

    A sentence is text, split by `split_words`, or a sequence of words. ``symmetrise`` is ``"posterior"``,
    ``"intersection"``, ``"union"`` or ``"grow-diag-final-and"``; ``threshold`` is the least product of both directions'
    probabilities under ``"posterior"``. Rare words lean on the statistics of all words with the same first
    ``stem_length`` characters. Pairs with an empty side, or more than 256 words on one, stay without links.

    Raises `UsageError` for options out of range and `VocabTransferError` when no pair can be aligned.
    """
    # numba takes half a second to import, and only aligning needs it.
    from vocabtransfer.alignment.aligner_model import LevelledText, infer_links
    from vocabtransfer.alignment.symmetrise import METHODS, symmetrise_block

    if symmetrise not in METHODS:
        raise UsageError(f"there is no symmetrisation {symmetrise!r}: choose {', '.join(METHODS)}.")
    if not 0 < threshold < 1 or stem_length < 1:
        raise UsageError("the threshold must lie between 0 and 1, and the stem length must be at least 1.")
    source, target = number_pairs(pairs)
    shortest, longest = np.minimum(source.lengths, target.lengths), np.maximum(source.lengths, target.lengths)
    usable = np.flatnonzero((shortest > 0) & (longest <= MAX_WORDS))
    if not len(usable):
        raise VocabTransferError(f"none of {len(source)} sentence pairs has words on both sides, up to {MAX_WORDS}.")
    levels = [LevelledText(text.stemmed(), text.stemmed(stem_length)) for text in (source, target)]
    blocks = infer_links(levels[0], levels[1], usable)
    parts = [symmetrise_block(block, symmetrise, threshold) for block in blocks]
    pair, i, j, probability = (np.concatenate(column) for column in zip(*parts, strict=True))
    # The part that gave the statistics comes first; links inside a pair are in order already.
    order = np.argsort(pair, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(pair, minlength=len(source)))])
    made_by = f"vocabtransfer {__version__}, {symmetrise}"
    return WordAlignment(source, target, starts, i[order], j[order], probability[order], made_by)


def count_words(
    pairs: Iterable[tuple[Sentence, Sentence]], *, metadata: Mapping[str, Any] | None = None, **options: Any
) -> WordTable:
    """Align sentence pairs and count the linked words; ``options`` are those of `align`.

    ``metadata`` (language codes, provenance, licence) is kept in the table, as `WordAlignment.table` says.
    """
    return align(pairs, **options).table(metadata)


def _at_spaces(sentence: Sentence) -> Sequence[str]:
    return sentence.split() if isinstance(sentence, str) else sentence


def _parse_links(path: Path, number: int, line: str) -> list[tuple[int, int]]:
    links = []
    for item in line.split():
        source, _, target = item.partition("-")
        if not (source.isascii() and source.isdigit() and target.isascii() and target.isdigit()):
            raise VocabTransferError(f"{path}, line {number}: {item!r} is not a link such as 3-4.")
        links.append((int(source), int(target)))
    return sorted(set(links))
