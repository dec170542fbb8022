"""The default: every kind of evidence there is, each weighted by how much of it there is."""


from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.inputs import Initialization, TransferInputs
from vocabtransfer.initialization.registry import method
from vocabtransfer.initialization.trans_tokenization import aligned_map

ALIGNED_AND_PIECES = "aligned and pieces"
#: Observations at which aligned evidence and the fallback weigh the same. Rows averaged on thin evidence are
#: confidently wrong; 20 held on Dutch and Russian (100k pairs) and on Tatar (4k pairs) alike.
HALF_EVIDENCE = 20.0


@method(
    "auto", "copies, then translations as far as there is evidence, then pieces; calibrated", "ours", calibrated=True
)
def auto(inputs: TransferInputs) -> Initialization:
    """Average the source tokens a target token was aligned with, shrunk towards its pieces by the evidence.

    ``row(t) = n/(n+k) * sum_s p(s|t) E[s] + k/(n+k) * fallback(t)`` with ``p(s|t) = c(s,t)/n`` and ``n`` the aligned
    count of ``t``. Special and equal tokens are copied first. Without an alignment the pieces are all there is.
    """
    pieces = fallback(inputs)
    if inputs.counts is None:
        return Initialization(identity(inputs).or_else(pieces))
    aligned = aligned_map(inputs)
    share = aligned.evidence / (aligned.evidence + HALF_EVIDENCE)
    blended = aligned.blend(pieces, share)
    mostly_pieces = (share < 0.5) & (aligned.evidence >= 1)
    return Initialization(identity(inputs).or_else(blended.relabelled(mostly_pieces, ALIGNED_AND_PIECES)))
