"""New tokens from the model's inner lexicon alone; see `vocabtransfer.initialization.lexicon`."""

from dataclasses import replace

import numpy as np

from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.inputs import Initialization, TransferInputs
from vocabtransfer.initialization.lexicon import lexicon
from vocabtransfer.initialization.registry import Need, method

FUSED = "inner lexicon"


@method(
    "inner_lexicon",
    "copies, then one row for what the body makes of the pieces; the head's from the first piece",
    "arXiv 2410.05864, and ours for the head",
    Need.TABLES,
    Need.BODY,
    separate_output=True,
)
def inner_lexicon(inputs: TransferInputs) -> Initialization:
    """Give new tokens the row that a map, fitted on the source's own tokens, makes of their pieces.

    Special and equal tokens are copied; tokens without pieces get their script's mean. `UsageError` when the source
    tokenizer has no merges (BPE), or too few trained tokens to learn from.
    """
    token_map = identity(inputs).or_else(fallback(inputs))
    found = lexicon(inputs)
    if not len(found.tokens):
        return Initialization(token_map)
    dense = found.fused()
    evidence = np.where(dense.mask, np.float32(found.lessons), token_map.evidence).astype(np.float32)
    token_map = replace(token_map.relabelled(dense.mask, FUSED), evidence=evidence)
    return Initialization(token_map.with_metadata(lessons=found.lessons), dense=dense)
