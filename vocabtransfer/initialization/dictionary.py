"""Dictionary transfer: tokens without evidence of their own get it from shorter pieces of the dictionary's words.

A token is aligned with what the words it is a piece of translate to. Tokens that no headword is spelled with stay
without a row in other methods; here the tokens that have one are taken out of the tokenizer, the headwords fall apart
into shorter pieces, those are aligned in turn, and so on until nothing new appears (Sakajo et al. 2025).
"""

import json

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from vocabtransfer.alignment.links import token_counts
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import equal_tokens
from vocabtransfer.initialization.inputs import Initialization, TransferInputs
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.initialization.trans_tokenization import ALIGNED, forced_copies
from vocabtransfer.progress import track
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder

#: The longest chain of removals that is followed; words of many letters need more than a few.
MOST_ROUNDS = 12
SHORTER = "aligned shorter pieces"


@method(
    "dictionary",
    "translations by their counts, the words cut ever shorter until every piece has had its turn",
    "arXiv 2506.01535",
    Need.ALIGNMENT,
)
def dictionary(inputs: TransferInputs) -> Initialization:
    """Average source tokens by the counts of a table, token by token from the longest pieces to the shortest.

    In each round the words of the table are encoded without the tokens that have a row; a token that appears for the
    first time gets ``row(t) = sum_s p(s|t) E[s]`` from the counts of that round. Special tokens and digits are copied;
    what no round reaches is copied from an equal token or takes its pieces. The table may come from sentences, from a
    dictionary or from both.
    """
    assert inputs.table is not None, "the registry checks that methods get the alignment they need"
    equal = equal_tokens(inputs)
    made = forced_copies(inputs, equal)
    found = TokenMap.empty(*inputs.shape)
    target = inputs.target
    removed = np.zeros(inputs.shape[0], dtype=np.bool_)
    for round_ in track(range(MOST_ROUNDS), "cutting words shorter"):
        counts = token_counts(inputs.table, inputs.source, target)
        counts.resize(inputs.shape)
        usable = sparse.csr_array(counts @ sparse.diags_array(inputs.trained.astype(np.float32)))
        evidence = np.asarray(usable.sum(axis=1)).ravel()
        fresh = (evidence > 0) & ~removed
        if not fresh.any():
            break
        inverse = np.divide(fresh, evidence, out=np.zeros_like(evidence), where=evidence > 0)
        weights = sparse.csr_array(sparse.diags_array(inverse) @ usable)
        weights.eliminate_zeros()
        found = found.or_else(TokenMap.from_weights(weights, SHORTER if round_ else ALIGNED, evidence * fresh))
        removed |= fresh
        target = _without(target, removed)
    return Initialization(made.or_else(found).or_else(equal).or_else(fallback(inputs)))


def _without(encoder: PieceEncoder, removed: NDArray[np.bool_]) -> PieceEncoder:
    """Return an encoder that never gives the removed tokens, all ids being what they were.

    Byte-pair encoding loses the merges that make them, Unigram their chance, WordPiece their names. Single characters
    and bytes stay: there is nothing shorter to fall back to.
    """
    vocabulary = encoder.vocabulary
    state = json.loads(encoder.model_json())
    model = state["model"]
    names = {
        vocabulary.strings[i]
        for i in np.flatnonzero(removed[: len(vocabulary)]).tolist()
        if len(vocabulary.token_bytes[i].decode("utf-8", "replace").strip()) > 1
    }
    if model["type"] == "BPE":
        merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
        model["merges"] = [merge for merge in merges if not {"".join(merge), *merge} & names]
        model["ignore_merges"] = False
    elif model["type"] == "Unigram":
        least = min(score for _, score in model["vocab"]) - 100
        model["vocab"] = [[piece, least if piece in names else score] for piece, score in model["vocab"]]
    elif model["type"] == "WordPiece":
        model["vocab"] = {f"\x00{i}" if piece in names else piece: i for piece, i in model["vocab"].items()}
    backend = Tokenizer.from_str(json.dumps(state))
    unknown = model.get("unk_token")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **({"unk_token": unknown} if unknown else {}))
    return PieceEncoder(tokenizer, vocabulary)
