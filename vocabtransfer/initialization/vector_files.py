"""Word vectors in files: fastText's ``.bin``, read in place, and the text format ``.vec``, plain or compressed."""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.text_files import open_bytes
from vocabtransfer.initialization.vector_kernels import scan_words
from vocabtransfer.initialization.word_vectors import Ngrams, WordList, WordVectors
from vocabtransfer.progress import track

#: Words read of a text file, most frequent first, as those files are ordered.
MOST_WORDS = 200_000
WINDOW_BYTES = 1 << 26
#: Numbers in a vector; no such file has more than a few thousand, and 200,000 of these still fit into memory.
LONGEST_VECTOR = 1 << 14

_MAGIC = 793712314
_HEADER = struct.Struct("<2i12id")  # magic, version, twelve settings, sampling threshold
_DICTIONARY = struct.Struct("<3i2q")  # entries, words, labels, running words, pruned n-grams (-1: none)
_SUPERVISED = 3


def load_word_vectors(path: Path) -> WordVectors:
    """Open a file of word vectors: fastText's ``.bin`` (told by its content) or the text format ``.vec``.

    A ``.bin`` is mapped into memory, not loaded: only what is looked up is read. Of a text file the first `MOST_WORDS`
    words are read; it holds no counts, so they are taken to fall with the rank (Zipf's law).

    Raises:
        VocabTransferError: the file cannot be read, is quantised or pruned, or is of another kind.
    """
    with open_bytes(path) as stream:
        start = stream.read(4)
    if len(start) == 4 and struct.unpack("<i", start)[0] == _MAGIC:
        if _is_compressed(path):
            raise VocabTransferError(f"{path} is a compressed fastText model: unpack it first (gunzip {path.name}).")
        return _read_model(path)
    return _read_text(path)


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as raw:
        return raw.read(4) != struct.pack("<i", _MAGIC)


def _read_model(path: Path) -> WordVectors:
    data = np.memmap(path, np.uint8, "r")
    if len(data) < _HEADER.size + _DICTIONARY.size:
        raise _damaged(path)
    _, version, dim, *settings, _ = _HEADER.unpack(data[: _HEADER.size].tobytes())
    if not 11 <= version <= 12:
        raise VocabTransferError(f"{path} is of version {version} of fastText's format: only 11 and 12 are known.")
    model, buckets, shortest, longest = settings[6:10]
    if version == 11 and model == _SUPERVISED:
        longest = 0  # those models were trained without n-grams whatever the file says
    at = _HEADER.size
    entries, words, _, _, pruned = _DICTIONARY.unpack(data[at : at + _DICTIONARY.size].tobytes())
    at += _DICTIONARY.size
    if pruned != -1:
        raise VocabTransferError(f"{path} is a pruned fastText model: give the full .bin it was made from.")
    if not 0 <= words <= entries <= len(data) or dim <= 0:
        raise _damaged(path)
    starts, ends, counts = (np.empty(entries, np.int64) for _ in range(3))
    read = scan_words(data[at:], entries, starts, ends, counts, np.empty(entries, np.int8))
    if read < 0 or at + read + 17 > len(data):
        raise _damaged(path)
    listed = WordList(data[at : at + read], starts[:words], ends[:words])
    at += read
    if data[at]:
        raise VocabTransferError(f"{path} is a quantised fastText model: give the full .bin it was made from.")
    rows, columns = struct.unpack("<2q", data[at + 1 : at + 17].tobytes())
    at += 17
    ngrams = Ngrams(shortest, longest, buckets) if longest > 0 and rows > words else None
    if columns != dim or rows < words + (buckets if ngrams else 0) or len(data) < at + 4 * rows * columns:
        raise _damaged(path)
    return WordVectors(listed, counts[:words].astype(np.float64), RowsInFile(path, at, (rows, columns)), ngrams)


@dataclass(frozen=True)
class RowsInFile:
    """A float32 matrix that stays in its file: ``matrix[ids]`` reads some rows, with ``ids`` in rising order.

    The file is mapped a window at a time, so that what was read before does not stay in memory.
    """

    path: Path
    offset: int
    shape: tuple[int, int]

    def __getitem__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows ``ids``, float32 ``(len(ids), dim)``."""
        count, dim = self.shape
        result = np.empty((len(ids), dim), np.float32)
        height = max(1, WINDOW_BYTES // (4 * dim))
        for start in range(0, count, height):
            part = slice(*np.searchsorted(ids, [start, start + height]))
            if part.start < part.stop:
                shape = (min(height, count - start), dim)
                window = np.memmap(self.path, np.float32, "r", self.offset + 4 * dim * start, shape)
                result[part] = window[ids[part] - start]
        return result


def _read_text(path: Path) -> WordVectors:
    words: list[bytes] = []
    with open_bytes(path) as stream:
        sizes = stream.readline(256).split()
        if len(sizes) != 2 or not all(size.isdigit() for size in sizes) or int(sizes[1]) == 0:
            raise VocabTransferError(
                f"{path} is neither a fastText .bin nor word vectors as text, whose first line gives their number and "
                "length."
            )
        count, dim = min(int(sizes[0]), MOST_WORDS), int(sizes[1])
        if dim > LONGEST_VECTOR:
            raise _damaged(path)
        matrix = np.empty((count, dim), np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how numpy says that a field is no number
            for row, line in enumerate(track(islice(stream, count), "reading word vectors", count)):
                try:
                    word, matrix[row] = _parse(line, dim)
                except (ValueError, DeprecationWarning):
                    raise VocabTransferError(
                        f"{path}, line {row + 2} does not hold a word and {dim} numbers: get the file again."
                    ) from None
                words.append(word)
    if len(words) < count or not np.isfinite(matrix).all():
        raise _damaged(path)
    return WordVectors(WordList.of(words), 1 / np.arange(1.0, count + 1), matrix)


def _parse(line: bytes, dim: int) -> tuple[bytes, NDArray[np.float32]]:
    word, _, rest = line.rstrip().partition(b" ")
    numbers = np.fromstring(rest, np.float32, sep=" ") if rest.count(b" ") == dim - 1 else np.empty(0, np.float32)
    if len(numbers) != dim:  # a word with spaces in it, or fields that are not one space apart
        fields = line.split()
        word, numbers = b" ".join(fields[:-dim]), np.array(fields[-dim:], np.float32)
    if not word or len(numbers) != dim:
        raise ValueError
    return word, numbers


def _damaged(path: Path) -> VocabTransferError:
    return VocabTransferError(f"{path} is cut short or damaged: get it again.")
