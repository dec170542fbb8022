"""Word vectors with or without subword information, and training them with fastText.

Vectors of words that were never seen come from their n-grams, as in Bojanowski et al. (arXiv 1607.04606). The rows that
make up a word are found here in bulk, so a model of gigabytes can stay on disk and only the rows in use are read.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.initialization.vector_kernels import hash_words, subword_rows
from vocabtransfer.progress import step
from vocabtransfer.tokenization.ragged import row_pointers

#: Texts whose rows are gathered at once.
TEXTS_AT_ONCE = 8192
#: Trained vectors kept for the next method that asks for the same ones: those of two languages.
REMEMBERED = 2
MOST_BUCKETS = 2_000_000


@dataclass(frozen=True)
class Ngrams:
    """Subword information: n-grams of ``shortest`` to ``longest`` characters in ``buckets`` rows behind the words'."""

    shortest: int
    longest: int
    buckets: int


@dataclass(frozen=True, eq=False)
class WordList:
    """Words as UTF-8, back to back: word ``i`` is ``data[starts[i]:ends[i]]`` (uint8; int64 spans)."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, words: Sequence[str | bytes]) -> WordList:
        """Make a list out of strings."""
        encoded = [word.encode() if isinstance(word, str) else word for word in words]
        bounds = row_pointers(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), bounds[:-1], bounds[1:])

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self.starts)

    def texts(self, count: int) -> list[str]:
        """Return the first ``count`` words; what is not UTF-8 in them becomes a replacement character."""
        spans = zip(self.starts[:count].tolist(), self.ends[:count].tolist(), strict=True)
        return [bytes(self.data[start:end]).decode("utf-8", "replace") for start, end in spans]

    def hashes(self) -> NDArray[np.uint64]:
        """Return a 64-bit hash of every word."""
        found = np.empty(len(self), np.uint64)
        hash_words(self.data, self.starts, self.ends, found)
        return found

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        hashes = self.hashes()
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def find(self, words: WordList) -> NDArray[np.int64]:
        """Return the place of each of some words in this list, -1 for those that are not in it."""
        hashes, order = self._sorted
        if not len(order):
            return np.full(len(words), -1, np.int64)
        wanted = words.hashes()
        place = np.minimum(np.searchsorted(hashes, wanted), len(order) - 1)
        return np.where(hashes[place] == wanted, order[place], -1)


class Matrix(Protocol):
    """A float32 matrix in memory or in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        ...

    def __getitem__(self, ids: NDArray[np.int64], /) -> NDArray[np.float32]:
        """Return rows ``ids`` (in rising order), float32 ``(len(ids), columns)``."""
        ...


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Vectors of words, most frequent first.

    Attributes:
        words: the n words.
        counts: float64 ``(n,)``: how often each was seen; a guess from the rank where a file does not say.
        matrix: float32 ``(n + buckets, dim)``, or what reads rows of such a matrix.
        ngrams: None where there is no subword information (then the matrix has n rows).
    """

    words: WordList
    counts: NDArray[np.float64]
    matrix: Matrix
    ngrams: Ngrams | None = None

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.matrix.shape[1])

    def known(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Tell which texts are words of the list (n-grams aside); boolean ``(len(texts),)``."""
        found: NDArray[np.bool_] = self.words.find(WordList.of(texts)) >= 0
        return found

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vector of each text, float32 ``(len(texts), dim)``, zeros where nothing is known of it.

        As in fastText, a vector is the mean of the text's own row, if it is a word of the list, and its n-grams' rows.
        """
        result = np.zeros((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            pieces = self._pieces(texts[start : start + TEXTS_AT_ONCE])
            used, columns = np.unique(pieces.indices, return_inverse=True)
            if len(used):
                compact = sparse.csr_array((pieces.data, columns, pieces.indptr), shape=(pieces.shape[0], len(used)))
                result[start : start + TEXTS_AT_ONCE] = compact @ self.matrix[used]
        return result

    def _pieces(self, texts: Sequence[str]) -> sparse.csr_array:
        """Return the mean over the rows of the matrix that each text is made of, CSR float32."""
        own = self.words.find(WordList.of(texts))
        marked = WordList.of([f"<{text}>" for text in texts])
        bounds = np.append(marked.starts, len(marked.data))
        ngrams = self.ngrams or Ngrams(0, 0, 0)
        settings = (marked.data, bounds, own, ngrams.shortest, ngrams.longest, ngrams.buckets, len(self.words))
        indptr = np.zeros(len(texts) + 1, np.int64)
        subword_rows(*settings, indptr, np.empty(0, np.int64))
        indices = np.empty(indptr[-1], np.int64)
        subword_rows(*settings, indptr, indices)
        lengths = np.diff(indptr)
        share = np.repeat(np.divide(1, lengths, out=np.zeros(len(lengths)), where=lengths > 0), lengths)
        return sparse.csr_array((share.astype(np.float32), indices, indptr), shape=(len(texts), self.matrix.shape[0]))


@dataclass(frozen=True)
class Training:
    """How fastText's CBOW is trained.

    ``epochs`` is for a corpus of ``enough`` running words. Smaller ones are gone through more often, up to
    ``most_epochs`` times, and rarer words are kept: a word needs one occurrence for every ``words_a_count`` running
    words and one more, up to ``min_count``.
    """

    dim: int = 100
    epochs: int = 3
    enough: int = 2_000_000
    most_epochs: int = 30
    min_count: int = 10
    words_a_count: int = 20_000
    negatives: int = 10
    rate: float = 0.05
    shortest: int = 3
    longest: int = 6

    def epochs_for(self, running: int) -> int:
        """Return the number of passes over a corpus of so many running words."""
        return min(max(self.epochs, -(-self.epochs * self.enough // max(running, 1))), self.most_epochs)

    def min_count_for(self, running: int) -> int:
        """Return how often a word must occur in a corpus of so many running words to get a vector."""
        return min(self.min_count, 1 + running // self.words_a_count)


def train_word_vectors(
    lines: Iterable[str], training: Training, seed: int, description: str = "training word vectors"
) -> WordVectors | None:
    """Train fastText vectors on lines of words joined by spaces; None where no word occurs often enough.

    fastText's threads race for the same matrix, so one thread is used: the same lines and seed give the same vectors.
    The n-gram table has room for the words at hand rather than fastText's two million rows.
    """
    with step(description), tempfile.TemporaryDirectory(prefix="vocabtransfer-") as folder:
        path = Path(folder) / "words.txt"
        try:
            running, digest, counts = _write(lines, path)
        except OSError as problem:
            raise VocabTransferError(
                f"{path} cannot be written ({problem.strerror or problem}): make room there or set TMPDIR to a folder "
                "with more."
            ) from None
        least = training.min_count_for(running)
        usual = [word for word, count in counts.items() if count >= least]
        if not usual:
            return None
        key = (digest, training, seed)
        if key not in _remembered:
            _remembered[key] = _train(path, training, running, _buckets(usual, training), seed)
        _remembered.move_to_end(key)
        while len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
        return _remembered[key]


_remembered: OrderedDict[tuple[str, Training, int], WordVectors] = OrderedDict()


def _write(lines: Iterable[str], path: Path) -> tuple[int, str, Counter[str]]:
    """Write lines to a file; return the number of words, a digest of the file, and how often each word occurs."""
    digest = hashlib.sha256()
    counts: Counter[str] = Counter()
    running = 0
    with path.open("wb") as stream:
        for line in lines:
            words = line.split()
            counts.update(words)
            running += len(words)
            content = (" ".join(words) + "\n").encode("utf-8", "replace")
            digest.update(content)
            stream.write(content)
    return running, digest.hexdigest(), counts


def _train(path: Path, training: Training, running: int, buckets: int, seed: int) -> WordVectors:
    try:
        library, wrapper = import_module("fasttext_pybind"), import_module("fasttext.FastText")
    except ImportError:
        raise VocabTransferError(
            "Training word vectors needs fastText: pip install fasttext-community, or give files of word vectors."
        ) from None
    chosen = {
        "input": str(path),
        "model": "cbow",
        "dim": training.dim,
        "epoch": training.epochs_for(running),
        "minCount": training.min_count_for(running),
        "neg": training.negatives,
        "lr": training.rate,
        "minn": training.shortest,
        "maxn": training.longest,
        "bucket": buckets,
        "thread": 1,
        "verbose": 0,
        "seed": seed % (1 << 31),
    }
    # The package's train function does not pass a seed on, so the arguments are built as it does and given directly.
    arguments = wrapper._build_args({**wrapper.unsupervised_default, **chosen}, set())
    model = library.fasttext()
    library.train(model, arguments)
    words, counts = model.getVocab("replace")
    return WordVectors(
        words=WordList.of(words),
        counts=np.array(counts, np.float64),
        matrix=np.array(model.getInputMatrix(), np.float32),
        ngrams=Ngrams(training.shortest, training.longest, buckets),
    )


def _buckets(words: Iterable[str], training: Training) -> int:
    """Return rows enough for the n-grams of the words, twice their number, at most fastText's own two million."""
    if training.longest == 0:
        return 0
    marked = WordList.of([f"<{word}>" for word in words])
    bounds, own = np.append(marked.starts, len(marked.data)), np.full(len(marked), -1, np.int64)
    settings = (marked.data, bounds, own, training.shortest, training.longest, 1 << 31, 0)
    indptr = np.zeros(len(marked) + 1, np.int64)
    subword_rows(*settings, indptr, np.empty(0, np.int64))
    hashes = np.empty(indptr[-1], np.int64)
    subword_rows(*settings, indptr, hashes)
    return min(2 * len(np.unique(hashes)) + 1, MOST_BUCKETS)
