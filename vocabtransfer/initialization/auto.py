"""The default: every kind of evidence there is, each weighted by how far it can be trusted.

What was seen on held-out text (benchmarks/leaderboard) made four corrections to plain averages of aligned rows. A word's
counts are spread thin over everything that stood near its translation, so they are sharpened, the more the fewer there
are. Rows that point in different directions average to a row that means nothing, so an average counts by how far its
parts agree, the less it was seen. Rows on few observations are confidently wrong, so they lean on the token's pieces.
And a token that the source has too is most often the same word, a name or a mark, but Dutch "of" is no English "of":
being equal is evidence like any other, and worth a number of observations. Unless the new vocabulary is to spell the
source's language as well: then the row must go on meaning what it meant.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.errors import UsageError
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import equal_tokens, fixed_tokens
from vocabtransfer.initialization.inner_lexicon import FUSED
from vocabtransfer.initialization.inputs import Initialization, Part, TransferInputs
from vocabtransfer.initialization.lexicon import Lexicon, lexicon
from vocabtransfer.initialization.presets import by_characters, covering_pieces
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.initialization.trans_tokenization import ALIGNED, aligned_map, forced_copies
from vocabtransfer.token_map import RowReader, TokenMap
from vocabtransfer.vocabulary import Kind

ALIGNED_AND_PIECES, ALIGNED_AND_FUSED = "aligned and pieces", "aligned and inner lexicon"
#: Observations that an equal source token is worth. From 16 to 256 scores hardly differ, 1 is too few, and copying
#: whatever was observed is worst where the two languages share letters.
EQUAL_LINKS = 64.0
#: Share of the average that one translation must have to take an equal token's place. A blend of a copy and of two
#: translations is worse than any of them: Swahili "ya" as a third each of "the", "of" and "ya" costs 4 % of all bits.
SURE = 0.9
#: A vocabulary still spells the source's language when it has this share of what its words were linked by (0.85 to 0.96
#: for Dutch and English together, 0.4 to 0.7 for Dutch alone), or when this share of it is the source's own.
COVERED, OWN = 0.8, 0.9
#: ... or of its text tokens, those with an untrained row aside.
TRIMMED = 0.99
#: Observations at which aligned evidence and the pieces weigh the same, and where the source reads the language. Seen in
#: Dutch and Tatar: SmolLM2 is best at 2 to 10, Gemma 3 at 200 and far more.
HALF_EVIDENCE, HALF_EVIDENCE_READ = 2.0, 400.0
#: A smaller share of translations than this is not worth a word.
LITTLE = 0.05
#: Power that counts are raised to, with hardly any observations and with many: of a few, the likeliest translation takes
#: nearly all of the weight; many also tell a second meaning from noise.
SHARPEST, BLUNTEST = 8.0, 2.0
#: Observations at which the power is half-way.
MANY = 30.0
#: Power of the agreement of an average's parts in its weight, and the observations at which it is half of that: synonyms
#: seen a thousand times may point apart ("to" and "for"), and the average is still better than any pieces.
AGREEMENT, PROVEN = 6.0, 100.0
_BLOCK = 8192


@method(
    "auto",
    "copies, then translations as far as they can be trusted, then pieces; or what scores better on the text",
    "ours",
    calibrated=True,
    rivals=("lexicon_and_translations+calibrate", "inner_lexicon+calibrate", "pieces_characters+calibrate"),
)
def auto(inputs: TransferInputs) -> Initialization:
    """Blend the source tokens a target token was aligned with and its pieces, by evidence and agreement.

    ``row(t) = w sum_s q(s|t) E[s] + (1 - w) pieces(t)`` with ``q(s|t)`` proportional to ``c(s,t)^p``,
    ``p = 2 + 6 h/(n+h)`` and ``w = n/(n+k) a^(6 m/(n+m))``: ``n`` is the aligned count of ``t``, ``a`` the agreement of
    the rows that are averaged (see `agreement`). An equal source token counts as 64 observations more, and is copied whole
    unless that leaves one translation nine tenths of the average; special tokens, byte tokens and digits are copied in
    any case, and all equal tokens where the vocabulary still spells the source's language (see `spells_source`). Pieces
    are what the model's inner lexicon makes of them where the source can be run (see
    `vocabtransfer.initialization.lexicon`), else their mean, weighted by their characters. Without an alignment, copies
    and pieces are all there is. A head of its own is blended by the agreement of its own rows. Encoders only read, and an
    unsure average costs them nothing, so they get plain averages over all that was ever aligned, an equal token counted
    once more.

    Where pieces are read by a source that knows the language, all equal tokens are copied and ``k`` is 400 instead of 2:
    what it reads says more than a few translations. The mean of pieces does not.

    This is the first of several ways: where there is running text and the source can be run, rows that lean more on the
    pieces are scored beside it, and the best is taken (`vocabtransfer.surgery.choice`).
    """
    if inputs.counts is not None and not inputs.predicts:
        equal = equal_tokens(inputs)
        kept = fixed_tokens(inputs).or_else(equal) if spells_source(inputs, equal) else forced_copies(inputs, equal)
        return Initialization(kept.or_else(aligned_map(inputs, equal)).or_else(fallback(inputs)))
    read = _lexicon_if_any(inputs)
    if inputs.known and read is not None and len(read.tokens):
        return _translated(inputs, HALF_EVIDENCE_READ, read, copies_equal=True)
    return _translated(inputs, HALF_EVIDENCE, read)


@method(
    "lexicon_and_translations",
    "copies of all equal tokens, then the inner lexicon, leaning to translations seen hundreds of times",
    "ours",
    Need.TABLES,
    Need.BODY,
    calibrated=True,
)
def lexicon_and_translations(inputs: TransferInputs) -> Initialization:
    """Do as `auto`, for a source that reads the language: pieces say more than translations seen a few times.

    All equal tokens are copied, and aligned evidence weighs as much as the pieces at 400 observations instead of 2.
    """
    return _translated(inputs, HALF_EVIDENCE_READ, lexicon(inputs), copies_equal=True)


def _lexicon_if_any(inputs: TransferInputs) -> Lexicon | None:
    if inputs.body is None or inputs.tables is None or not inputs.predicts:
        return None
    try:
        return lexicon(inputs)
    except UsageError:  # this source or vocabulary is of a kind that teaches nothing
        return None


def _translated(
    inputs: TransferInputs, half: float, read: Lexicon | None, copies_equal: bool = False
) -> Initialization:
    """Blend translations with pieces, or with what the body reads in them; both weigh the same at ``half`` links."""
    equal = equal_tokens(inputs)
    kept = fixed_tokens(inputs).or_else(equal)
    aligned = TokenMap.empty(*inputs.shape)
    if inputs.counts is not None:
        aligned = sharpened(aligned_map(inputs, equal, equal_links=EQUAL_LINKS))
        if not copies_equal and not spells_source(inputs, equal):
            kept = forced_copies(inputs, equal).or_else(uncontested(equal, aligned))
    pieces = covering_pieces(inputs, by_characters)

    def share(part: Part) -> NDArray[np.float32]:
        found = aligned.evidence / (aligned.evidence + half)
        if inputs.tables is not None and aligned.filled.any():
            power = AGREEMENT * PROVEN / (aligned.evidence + PROVEN)
            found = found * agreement(aligned, inputs.tables.part(part), inputs.trained) ** power
        return np.where(aligned.filled, found, 0).astype(np.float32)

    def blended(part: Part) -> TokenMap:
        mixed = aligned.blend(pieces, shares[part])
        leaning = (shares[part] < 0.5) & aligned.filled
        mixed = mixed.relabelled(leaning & ~read_here, ALIGNED_AND_PIECES)
        mixed = mixed.relabelled(leaning & read_here, ALIGNED_AND_FUSED)
        return kept.or_else(mixed.relabelled(read_here & (shares[part] < LITTLE), FUSED))

    parts = inputs.tables.parts if inputs.tables is not None else ("input",)
    shares = {part: share(part) for part in parts}
    dense, read_here = None, np.zeros(inputs.shape[0], np.bool_)
    if read is not None and len(read.tokens):
        assert inputs.tables is not None, "a lexicon is read from tables"
        rows = {part: (shares[part], _rows_of(aligned, read.tokens, inputs.tables.part(part))) for part in parts}
        dense = read.fused({"output": rows["input"], **rows})
        read_here = dense.mask
    output_map = blended("output") if "output" in parts else None
    return Initialization(blended("input"), output_map=output_map, dense=dense)


def _rows_of(token_map: TokenMap, tokens: NDArray[np.int64], table: RowReader) -> NDArray[np.float32]:
    """Return the rows that a map makes of some tokens (int64, ascending), float32 ``(tokens, hidden)``."""
    found = []
    for start, rows in token_map.blocks(table):
        here = tokens[slice(*np.searchsorted(tokens, [start, start + len(rows)]))]
        found.append(rows[here - start])
    return np.concatenate(found)


def sharpened(token_map: TokenMap) -> TokenMap:
    """Return a map of averages with the weights of a row raised to a power, the larger the less evidence it has."""
    weights = token_map.weights.copy()
    power = BLUNTEST + (SHARPEST - BLUNTEST) * MANY / (token_map.evidence + MANY)
    # Divided by the row's largest first, so that no power of a small weight vanishes.
    largest = weights.max(axis=1).toarray().ravel()
    entries = np.diff(weights.indptr)
    weights.data = (weights.data / np.repeat(largest, entries)) ** np.repeat(power, entries)
    totals = np.asarray(weights.sum(axis=1)).ravel()
    inverse = np.divide(1, totals, out=np.zeros_like(totals), where=totals > 0)
    return TokenMap.from_weights(sparse.diags_array(inverse) @ weights, ALIGNED, token_map.evidence)


def spells_source(inputs: TransferInputs, equal: TokenMap) -> bool:
    """Tell whether a vocabulary still spells the source's language, as extended, trimmed and bilingual ones do."""
    assert inputs.counts is not None, "who asks has an alignment"
    links = np.asarray(inputs.counts.sum(axis=0)).ravel()
    covered = links[np.unique(equal.weights.indices)].sum()
    # Half of a trimmed vocabulary may be special tokens that were kept: then its text tokens alone tell.
    text = inputs.target_vocabulary.kinds == Kind.TEXT
    trimmed = text.any() and equal.filled[text].mean() >= TRIMMED
    return bool(covered >= COVERED * links.sum() or equal.filled.mean() >= OWN or trimmed)


def uncontested(equal: TokenMap, averages: TokenMap) -> TokenMap:
    """Return the rows of ``equal`` but those where another token has a share of at least `SURE` in ``averages``."""
    weights = averages.weights[:, : averages.n_source]
    others = sparse.csr_array(weights - weights.multiply(equal.weights[:, : equal.n_source] > 0))
    sure = others.max(axis=1).toarray().ravel() >= SURE
    return TokenMap.empty(equal.n_target, equal.n_source).where(sure, equal)


def agreement(token_map: TokenMap, table: RowReader, trained: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return how far the rows of each average point the same way, float32 ``(n_target,)`` between 0 and 1.

    It is the length of the average over the average of the lengths, both measured from the table's mean: 1 for a copy
    and for rows that point one way, near 0 where they cancel out.
    """
    ids = np.flatnonzero(trained)
    centre = np.zeros(0)
    lengths = np.zeros(token_map.n_source, np.float32)
    for start in range(0, len(ids), _BLOCK):
        total = table[ids[start : start + _BLOCK]].sum(axis=0, dtype=np.float64)
        centre = total if start == 0 else centre + total
    centre = (centre / len(ids)).astype(np.float32)
    for start in range(0, len(ids), _BLOCK):
        block = ids[start : start + _BLOCK]
        lengths[block] = np.linalg.norm(table[block] - centre, axis=1)
    expected = token_map.weights[:, : token_map.n_source] @ lengths
    found = np.zeros(token_map.n_target, np.float32)
    for start, rows in token_map.blocks(table):
        found[start : start + len(rows)] = np.linalg.norm(rows - centre, axis=1)
    result = np.divide(found, expected, out=np.zeros_like(found), where=(expected > 0) & token_map.filled)
    return np.asarray(np.minimum(result, 1), np.float32)
