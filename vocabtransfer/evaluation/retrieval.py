"""Sentence retrieval: how well an encoder finds a sentence's translation among others, before any training.

An encoder made for one language gets the vocabulary of another. If its new rows mean something, the mean of the last
hidden states of a target sentence lies nearest to that of its translation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.progress import track

_LONGEST = 128  # tokens of a sentence that count
_BATCH = 64


@dataclass(frozen=True)
class Retrieval:
    """Share of sentences whose nearest neighbour on the other side is their own translation, both ways."""

    to_source: float
    to_target: float
    sentences: int

    @property
    def accuracy(self) -> float:
        """Mean of both directions, between 0 and 1."""
        return (self.to_source + self.to_target) / 2


@torch.inference_mode()
def sentence_vectors(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, sentences: Sequence[str]
) -> NDArray[np.float32]:
    """Return the mean of the last hidden states of each sentence, at length 1; float32 ``(sentences, hidden)``.

    Raises `VocabTransferError` when the model has fewer rows than the tokenizer needs.
    """
    rows = len(cast(torch.Tensor, model.get_input_embeddings().weight))
    if len(tokenizer) > rows:
        raise VocabTransferError(f"The tokenizer has {len(tokenizer):,} tokens but the model's table {rows:,} rows.")
    ids = tokenizer(list(sentences), truncation=True, max_length=_LONGEST)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    vectors = np.zeros((len(ids), model.config.hidden_size), np.float32)
    for start in track(range(0, len(order), _BATCH), "embedding sentences"):
        batch = order[start : start + _BATCH]
        width = max(1, max(len(ids[i]) for i in batch))
        inputs = torch.full((len(batch), width), pad)
        mask = torch.zeros(len(batch), width, dtype=torch.long)
        for row, i in enumerate(batch):
            inputs[row, : len(ids[i])] = torch.tensor(ids[i], dtype=torch.long)
            mask[row, : len(ids[i])] = 1
        inputs, mask = inputs.to(model.device), mask.to(model.device)
        states = model(input_ids=inputs, attention_mask=mask).last_hidden_state.float() * mask[:, :, None]
        vectors[batch] = torch.nn.functional.normalize(states.sum(dim=1), dim=1).cpu().numpy()
    return vectors


def retrieval(source: NDArray[np.float32], target: NDArray[np.float32]) -> Retrieval:
    """Score sentence vectors of length 1, float32 ``(sentences, hidden)``, row ``i`` of both being a pair.

    >>> retrieval(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)).accuracy
    1.0
    """
    similar = target @ source.T
    own = np.arange(len(similar))
    return Retrieval(
        to_source=float((similar.argmax(axis=1) == own).mean()),
        to_target=float((similar.argmax(axis=0) == own).mean()),
        sentences=len(own),
    )
