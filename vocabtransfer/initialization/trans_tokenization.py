"""Trans-tokenization: a token's row is the average of the source tokens it was aligned with in translated text."""

import numpy as np
from scipy import sparse

from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import equal_tokens, special_tokens
from vocabtransfer.initialization.inputs import Initialization, TransferInputs
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.token_map import TokenMap

ALIGNED = "aligned"


@method(
    "trans_tokenization",
    "translations by their counts, equal tokens counted once more; then pieces",
    "arXiv 2408.04303",
    Need.ALIGNMENT,
)
def trans_tokenization(inputs: TransferInputs) -> Initialization:
    """Average the source tokens a target token was aligned with, whatever the evidence: ``sum_s p(s|t) E[s]``.

    As published, an equal source token gets one count more, special tokens and digits are copied, and tokens that were
    never aligned take another rule: their pieces (the paper smooths from related tokens).
    """
    equal = equal_tokens(inputs)
    target = inputs.target_vocabulary
    digits = np.array([text.strip().isdigit() for text in target.token_bytes]) & equal.filled
    averages = aligned_map(inputs, equal)
    copied = special_tokens(inputs).or_else(TokenMap.empty(*inputs.shape).where(~digits, equal))
    return Initialization(copied.or_else(averages).or_else(fallback(inputs)))


def aligned_map(inputs: TransferInputs, equal: TokenMap | None = None) -> TokenMap:
    """Return ``p(s|t)`` from the aligned counts, with the counts as evidence; ``equal`` pairs count once more."""
    counts = inputs.counts
    assert counts is not None, "the registry checks that methods get the alignment they need"
    if equal is not None:
        counts = sparse.csr_array(counts + equal.weights[:, : inputs.shape[1]])
    evidence = np.asarray(counts.sum(axis=1)).ravel()
    inverse = np.divide(1, evidence, out=np.zeros_like(evidence), where=evidence > 0)
    return TokenMap.from_weights(sparse.diags_array(inverse) @ counts, ALIGNED, evidence)
