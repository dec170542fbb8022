"""FOCUS: rows as sparse combinations of the tokens that both vocabularies share."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.errors import UsageError
from vocabtransfer.files.text import Text
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.inputs import Initialization, TransferInputs
from vocabtransfer.initialization.neighbours import sparsemax_weights, spread, unit_rows
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.initialization.token_vectors import encoded_text, subword_vectors
from vocabtransfer.initialization.vector_files import load_word_vectors
from vocabtransfer.initialization.word_vectors import Training, train_word_vectors
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.vocabulary import Kind, Vocabulary

SIMILAR = "similar shared tokens"
#: The paper's settings (CBOW, 3 epochs, a token needs 10 occurrences), with more epochs on small corpora and twice
#: fastText's learning rate: bits per byte fell from 2.76 to 2.69 on Dutch and from 2.42 to 2.34 on Tatar.
TOKENS = Training(dim=100, epochs=3, min_count=10, negatives=10, rate=0.1)
# White space that separates words for fastText.
_SPACES = {ord(" "): "▁"} | {ord(character): repr(character)[1:-1] for character in "\n\r\t\v\f\0"}


@method("focus", "copies, then sparse combinations of copied tokens", "arXiv 2305.14481")
def focus(inputs: TransferInputs) -> Initialization:
    """Combine the copied tokens by the sparsemax of their cosines with a token in vectors of the target's tokens.

    The vectors are fastText's, trained on the target text written as tokens; tokens that are rarer than fastText's least
    count get their pieces rather than noise. With word vectors of the target language (``vectors.target``) tokens have
    WECHSEL's vectors in them and no training takes place. At most the 1,024 nearest tokens are combined. Without any
    copied token that has a vector, all other tokens get their pieces. Running text is needed: counts of words do not say
    which tokens stand beside which.

    Raises:
        UsageError: there is neither text nor a file of word vectors.
    """
    if inputs.vectors.target is not None:
        vectors = subword_vectors(inputs.target, load_word_vectors(inputs.vectors.target))
    else:
        if inputs.text is None:
            raise UsageError(f"The method focus needs {Need.TEXT.value}, or take `method='pieces'`.")
        vectors = trained_token_vectors(inputs.target, inputs.text, inputs.seed)
    copied = identity(inputs)
    return Initialization(copied.or_else(combined_map(inputs, vectors, copied)).or_else(fallback(inputs)))


def combined_map(inputs: TransferInputs, vectors: NDArray[np.float32], copied: TokenMap) -> TokenMap:
    """Give each token that is not copied the sparsemax-weighted combination of the ordinary tokens that are.

    Args:
        inputs: for the vocabularies.
        vectors: float32 ``(target vocabulary, dim)``; tokens with zeros take no part.
        copied: the map of the copied tokens, special ones included.
    """
    known = vectors.any(axis=1)
    shared = np.flatnonzero(copied.filled & known & (inputs.target_vocabulary.kinds <= Kind.BYTE))
    new = np.flatnonzero(~copied.filled & known)
    weights = sparsemax_weights(unit_rows(vectors[new]), unit_rows(vectors[shared]))
    sources = copied.weights[shared].indices.astype(np.int64)
    return TokenMap.from_weights(spread(weights, new, sources, inputs.shape), SIMILAR)


def trained_token_vectors(
    encoder: PieceEncoder, text: Text, seed: int, training: Training = TOKENS
) -> NDArray[np.float32]:
    """Train fastText on text written in a tokenizer's tokens; float32 ``(vocabulary, dim)``, zeros for rare tokens."""
    names = token_names(encoder.vocabulary)
    result = np.zeros((len(names), training.dim), np.float32)
    vectors = train_word_vectors(_as_names(encoder, text, names), training, seed, "training token vectors")
    if vectors is not None:
        usual = np.flatnonzero(vectors.known(names) & (encoder.vocabulary.kinds <= Kind.BYTE))
        result[usual] = vectors.vectors([names[i] for i in usual.tolist()])
    return result


def token_names(vocabulary: Vocabulary) -> list[str]:
    """Return each token as a word without white space: its text, marked with ``▁`` where a word begins.

    Bytes that are no characters by themselves are written as ``\\\\xNN``.
    """
    names = []
    for i in range(len(vocabulary)):
        if vocabulary.kinds[i] == Kind.BYTE:
            names.append(vocabulary.strings[i])  # <0x41> is not the letter
            continue
        content, initial = vocabulary.key(i)
        text = content.decode("utf-8", "backslashreplace").translate(_SPACES)
        # A blank among exotic ones would still separate words, or leave none.
        names.append("▁" * initial + "".join(f"\\u{ord(c):04x}" if c.isspace() else c for c in text))
    return names


def _as_names(encoder: PieceEncoder, text: Text, names: list[str]) -> Iterator[str]:
    """Yield the lines of a text written as names of tokens, joined by spaces."""
    table = np.array(names, object)
    for _, pieces in encoded_text(encoder, text()):
        written = table[pieces.ids].tolist()
        bounds = pieces.indptr.tolist()
        for start, stop in pairwise(bounds):
            yield " ".join(written[start:stop])
