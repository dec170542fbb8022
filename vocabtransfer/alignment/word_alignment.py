"""Links between the words of sentence pairs: kept as arrays, counted into tables, written and read as Pharaoh files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.aligner_text import NumberedText, Sentence, number_pairs
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.text_files import read_lines, write_lines

_PAST_ANY = 2**31 - 1


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
        write_lines(Path(path), self.pharaoh_lines())

    def pharaoh_lines(self) -> Iterator[str]:
        """Yield the lines of `save_pharaoh`."""
        links = [
            f"{i}-{j}" for i, j in zip(self.source_positions.tolist(), self.target_positions.tolist(), strict=True)
        ]
        bounds = self.starts.tolist()
        return (" ".join(links[first:last]) + "\n" for first, last in pairwise(bounds))

    def word_lines(self) -> Iterator[str]:
        """Yield the sentence pairs as the links count their words: split at spaces, source and target parted by a tab."""
        for pair in range(len(self)):
            yield f"{' '.join(self.source.sentence(pair))}\t{' '.join(self.target.sentence(pair))}\n"

    @classmethod
    def from_pharaoh(cls, pairs: Iterable[tuple[Sentence, Sentence]], path: str | Path) -> Self:
        """Read links that some aligner made for the given pairs, whose words are split in the same way.

        Text is split at spaces, as aligners do. Raises `VocabTransferError` naming file and line for anything else than
        ``i-j`` pairs within the sentences, and for unequal numbers of lines and pairs.
        """
        path = Path(path)
        source, target = number_pairs((_at_spaces(source), _at_spaces(target)) for source, target in pairs)
        rows = [parse_links(path, number, line) for number, line in read_lines(path)]
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


def _at_spaces(sentence: Sentence) -> Sequence[str]:
    return sentence.split() if isinstance(sentence, str) else sentence


def parse_links(path: Path, number: int, line: str) -> list[tuple[int, int]]:
    """Return the links of one line of a Pharaoh file, sorted; `VocabTransferError` for anything else."""
    links = []
    for item in line.split():
        source, _, target = item.partition("-")
        if not (source.isascii() and source.isdigit() and target.isascii() and target.isdigit()):
            raise VocabTransferError(f"{path}, line {number}: {item!r} is not a link such as 3-4.")
        links.append((_position(source), _position(target)))
    return sorted(set(links))


def _position(digits: str) -> int:
    # No sentence is so long: the caller refuses the line.
    return int(digits) if len(digits) < 10 else _PAST_ANY
