"""Trans-tokenization: a token's row is the average of the source tokens it was aligned with in translated text."""

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import equal_tokens, fixed_tokens
from vocabtransfer.initialization.inputs import Initialization, TransferInputs
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.progress import track
from vocabtransfer.token_map import TokenMap
from vocabtransfer.vocabulary import Kind, Vocabulary

ALIGNED, RELATED = "aligned", "related tokens"
#: Token pairs that were linked less often are noise more often than not.
FEWEST_LINKS = 10.0


@method(
    "trans_tokenization",
    "translations by their counts, equal tokens counted once more; then related tokens",
    "arXiv 2408.04303",
    Need.ALIGNMENT,
)
def trans_tokenization(inputs: TransferInputs, fewest_links: float = FEWEST_LINKS) -> Initialization:
    """Average the source tokens a target token was aligned with: ``row(t) = sum_s p(s|t) E[s]``.

    As published, token pairs linked less than 10 times are left out, an equal source token gets one count more, special
    tokens and digits are copied, and a token that was never aligned gets the mean of the rows of its relatives: the
    tokens that begin with it, and the longest ones within it (see `related_map`). What is left takes its pieces instead
    of the paper's unk row.
    """
    assert inputs.table is not None, "the registry checks that methods get the alignment they need"
    equal = equal_tokens(inputs)
    averages = aligned_map(inputs, equal, fewest_links)
    smoothed = related_map(inputs.target_vocabulary, averages)
    return Initialization(forced_copies(inputs, equal).or_else(averages).or_else(smoothed).or_else(fallback(inputs)))


def forced_copies(inputs: TransferInputs, equal: TokenMap) -> TokenMap:
    """Copy special tokens, byte tokens and digits, whatever they were aligned with."""
    digits = np.array([text.strip().isdigit() for text in inputs.target_vocabulary.token_bytes]) & equal.filled
    return fixed_tokens(inputs).or_else(TokenMap.empty(*inputs.shape).where(~digits, equal))


def aligned_map(
    inputs: TransferInputs, equal: TokenMap | None = None, fewest: float = 0.0, equal_links: float = 1.0
) -> TokenMap:
    """Return ``p(s|t)`` from the aligned counts of at least ``fewest``, with the counts as evidence.

    ``equal`` pairs count ``equal_links`` times more, however often they were aligned.
    """
    counts = inputs.counts
    assert counts is not None, "the registry checks that methods get the alignment they need"
    if fewest:
        counts = sparse.csr_array(counts.multiply(counts >= fewest))
        counts.eliminate_zeros()
    if equal is not None:
        counts = sparse.csr_array(counts + equal.weights[:, : inputs.shape[1]] * np.float32(equal_links))
    evidence = np.asarray(counts.sum(axis=1)).ravel()
    inverse = np.divide(1, evidence, out=np.zeros_like(evidence), where=evidence > 0)
    return TokenMap.from_weights(sparse.diags_array(inverse) @ counts, ALIGNED, evidence)


def related_map(vocabulary: Vocabulary, known: TokenMap) -> TokenMap:
    """Give each ordinary token without a row the mean of the rows of the tokens related to it.

    Related are the tokens with a row that begin with its text (as it stands in running text, so a token at the start of
    a word is related to no other), and the longest ones within its text, none of them inside another.
    """
    ordinary = vocabulary.kinds <= Kind.BYTE
    usable = np.flatnonzero(ordinary & known.filled & ~vocabulary.spelled_otherwise())
    index = {vocabulary.context_bytes(i): i for i in usable[::-1].tolist()}
    index.pop(b"", None)
    texts = sorted(index)
    longest = max(map(len, texts), default=0)
    owners, members = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
    for token in track(np.flatnonzero(ordinary & ~known.filled).tolist(), "finding related tokens"):
        text = vocabulary.context_bytes(token)
        first, after = bisect_left(texts, text), bisect_left(texts, text + b"\xff" * (longest + 1))
        related = [index[other] for other in (texts[first:after] if text else [])]
        related += [index[other] for other in _longest_within(text, index, longest)]
        owners.append(np.full(len(related), token))
        members.append(np.array(related, np.int64))
    if not owners:
        return TokenMap.empty(known.n_target, known.n_source)
    owner, member = np.concatenate(owners), np.concatenate(members)
    share = 1 / np.bincount(owner, minlength=known.n_target)[owner]
    chooser = sparse.csr_array((share.astype(np.float32), (owner, member)), shape=(known.n_target, known.n_target))
    return TokenMap.from_weights(chooser @ known.weights[:, : known.n_source], RELATED)


def _longest_within(text: bytes, index: dict[bytes, int], longest: int) -> list[bytes]:
    """Return the texts of ``index`` inside ``text`` that lie within no other one of them, from left to right."""
    found, reached = list[bytes](), 0
    for start in range(len(text)):
        for end in range(min(len(text), start + longest), max(reached, start), -1):
            if text[start:end] in index:
                found.append(text[start:end])
                reached = end
                break
    return list(dict.fromkeys(found))
