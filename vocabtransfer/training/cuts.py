"""Text cut in several ways: some tokens taken apart into the two that merged into them (BPE dropout, arXiv 1910.13267).

Rows of rare tokens learn from few places. Where their pieces stand in for them now and then, the pieces learn, and the
body reads words that are spelled in other ways. `tokenizers` has a dropout of its own, whose chance cannot be given a seed;
here what is dropped is the last merge of a token, and then the last of its parts, so that a run gives the same bytes.
"""

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError
from vocabtransfer.tokenization.merges import MergeModel


@dataclass(frozen=True, eq=False)
class Cuts:
    """How tokens come apart: the two that merged into each, int64 (rows,), -1 for others, and how often they do."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    chance: float

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, chance: float) -> "Cuts":
        """Return the cuts of a tokenizer; `UsageError` where it has no merges."""
        model = merge_model(tokenizer)
        if model is None:
            raise UsageError("`bpe_dropout` needs a tokenizer with merges: leave it out for this model.")
        made = model.derivations()
        return cls(made.left, made.right, chance)

    def __call__(self, ids: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        """Return ids of the same text, int64: each token apart with the chance, and each of its parts again."""
        fresh = np.ones(len(ids), np.bool_)  # tokens for which the die was not yet cast
        while fresh.any():
            known = ids < len(self.left)  # added tokens may stand behind the merges
            apart = fresh & known
            apart[apart] = self.left[ids[apart]] >= 0
            apart[apart] = generator.random(int(apart.sum())) < self.chance
            widths = 1 + apart.astype(np.int64)
            firsts = np.cumsum(widths) - widths
            longer = np.empty(int(widths.sum()), np.int64)
            longer[firsts] = np.where(apart, self.left[np.where(apart, ids, 0)], ids)
            longer[firsts[apart] + 1] = self.right[ids[apart]]
            ids, fresh = longer, np.repeat(apart, widths)
        return ids


def merge_model(tokenizer: PreTrainedTokenizerFast) -> MergeModel | None:
    """Return the merges of a tokenizer; None where it has none, or marks inside words that merges do not know."""
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    model = document["model"]
    if model["type"] != "BPE" or not model["merges"]:
        return None
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return None
    return MergeModel.from_document(document)
