"""OFA: similarity in one multilingual word space, and a source table reduced to its main directions."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.errors import UsageError
from vocabtransfer.initialization.bilingual_vectors import BilingualVectors, bilingual_vectors
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.inputs import Initialization, Part, Tables, TransferInputs
from vocabtransfer.initialization.neighbours import unit_rows
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.initialization.token_vectors import over_words
from vocabtransfer.initialization.vector_files import MOST_WORDS
from vocabtransfer.initialization.wechsel import nearest_map
from vocabtransfer.token_map import RowReader, TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder

ROWS_AT_ONCE = 8192


@method(
    "ofa",
    "copies, then the nearest source tokens by the words of both languages that hold them",
    "arXiv 2311.08849",
    Need.ALIGNMENT,
)
def ofa(inputs: TransferInputs, rank: int | None = None) -> Initialization:
    """Average the 10 source tokens nearest in word vectors of both languages, in a table of reduced rank if asked for.

    The words of both languages lie in one space (rotated as in `wechsel`), and a token of either vocabulary has the mean
    of the vectors of all words that hold it, whatever their language; the weights are softmax(cosine / 0.1). Equal and
    special tokens are copied.

    With ``rank`` k the averaged rows are projected on the k main directions of the source table, which is what the
    paper's factorised table ``F P`` (coordinates k wide, primitives k x hidden) makes of them: an average of coordinates
    times P is the average of rows times ``V_k V_k^T``. What is left out is keeping the factors apart to save parameters,
    and truncating the copied rows. Tokens without a vector get their pieces rather than noise.

    Raises:
        UsageError: ``rank`` is not between 1 and the hidden size, or is given without the source's tables.
    """
    space = bilingual_vectors(inputs, "ofa")
    copied = identity(inputs)
    source, target = (shared_word_vectors(encoder, space) for encoder in (inputs.source, inputs.target))
    similar = nearest_map(inputs, source, target, ~copied.filled)
    token_map = copied.or_else(similar).or_else(fallback(inputs))
    if rank is None:
        return Initialization(token_map)
    if inputs.tables is None or not 1 <= rank <= inputs.tables.hidden:
        raise UsageError(
            f"The rank {rank} of ofa must be between 1 and the hidden size of a source opened as a checkpoint."
        )
    dense = ReducedRows(token_map, inputs.tables, similar.filled & ~copied.filled, np.flatnonzero(inputs.trained), rank)
    return Initialization(token_map, dense=dense)


def shared_word_vectors(encoder: PieceEncoder, space: BilingualVectors) -> NDArray[np.float32]:
    """Return for each token the mean vector of the words of both languages that hold it; float32 ``(V, dim)``."""
    source_words, target_words = space.source.words.texts(MOST_WORDS), space.target.words.texts(MOST_WORDS)
    vectors = np.concatenate(
        [unit_rows(space.source.vectors(source_words) @ space.rotation), unit_rows(space.target.vectors(target_words))]
    )
    return over_words(encoder, source_words + target_words, vectors, np.ones(len(vectors)))


@dataclass(frozen=True, eq=False)
class ReducedRows:
    """Rows of a token map projected on the main directions of the source table (`DenseRows`)."""

    token_map: TokenMap
    tables: Tables
    mask: NDArray[np.bool_]
    trained: NDArray[np.int64]
    rank: int

    @cached_property
    def _bases(self) -> dict[int, NDArray[np.float32]]:
        return {}

    def rows(self, part: Part, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the projected rows of tokens ``ids``, float32 ``(len(ids), hidden)``."""
        table = self.tables.part(part)
        if id(table) not in self._bases:
            self._bases[id(table)] = main_directions(table, self.trained, self.rank)
        basis = self._bases[id(table)]
        weights = self.token_map.weights[ids]
        columns, places = np.unique(weights.indices, return_inverse=True)
        compact = sparse.csr_array((weights.data, places, weights.indptr), shape=(len(ids), len(columns)))
        coordinates = compact @ (table[columns.astype(np.int64)] @ basis)
        return np.asarray(coordinates @ basis.T, np.float32)


def main_directions(table: RowReader, rows: NDArray[np.int64], rank: int) -> NDArray[np.float32]:
    """Return the ``rank`` leading right singular vectors of a table's rows, float32 ``(hidden, rank)``.

    They are the eigenvectors of the Gram matrix, summed in float64 over blocks of rows.
    """
    gram: NDArray[np.float64] | None = None
    for start in range(0, len(rows), ROWS_AT_ONCE):
        block = table[rows[start : start + ROWS_AT_ONCE]].astype(np.float64)
        gram = block.T @ block + (0 if gram is None else gram)
    assert gram is not None, "a source without trained rows is refused before any method runs"
    _, directions = np.linalg.eigh(gram)
    leading: NDArray[np.float32] = directions[:, ::-1][:, :rank].astype(np.float32)
    return leading
