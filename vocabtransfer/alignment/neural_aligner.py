"""Links from a multilingual model: words whose contextual vectors are each other's nearest (SimAlign, arXiv 2004.08728).

Every sentence is read on its own, the vectors come from a layer two thirds of the way up, and a token links to the token
of the other sentence with the highest cosine. Words are linked where any of their tokens are. Nothing is learnt from the
corpus, so a handful of pairs is aligned as well as a million; how well depends on the model alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.registry import Sentences, Ways, aligner
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.progress import track

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_BATCH = 32
_DEPTH = 2 / 3
# Position tables count from a padding id in some models: a few places are not for text.
_RESERVED_PLACES = 4


@aligner("neural", needs_model=True, symmetrise="intersection")
def link_by_vectors(source: Sentences, target: Sentences, base: NDArray[np.int64], model: str | Path | None) -> Ways:
    """Return the links of both directions as numbers of cells: source words x target words, pair after pair.

    It runs on the CPU unless `running_with` says otherwise.
    ``model`` is a folder, alias or hub id of an encoder or a causal model in safetensors that knows both languages;
    ``base`` (pairs + 1) says where the cells of a pair start. Words past the model's longest input stay without links.
    Raises `VocabTransferError` for a model that cannot be opened or run.
    """
    assert model is not None, "checked with the options"
    vectors = _Vectors(model)
    ways: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    pairs = range(0, len(source), _BATCH)
    for start in track(pairs, "comparing words"):
        part = slice(start, start + _BATCH)
        for number, sides in enumerate(zip(vectors.of(source[part]), vectors.of(target[part]), strict=True), start):
            (rows, source_words), (columns, target_words) = sides
            if not len(rows) or not len(columns):
                continue
            alike = rows @ columns.T
            cells = base[number] + source_words[:, None] * len(target[number]) + target_words[None, :]
            ways[0].append(np.unique(cells[alike.argmax(axis=0), np.arange(len(columns))]))
            ways[1].append(np.unique(cells[np.arange(len(rows)), alike.argmax(axis=1)]))
    nothing = np.zeros(0, np.int64)
    return np.concatenate([nothing, *ways[0]]), np.concatenate([nothing, *ways[1]])


class _Vectors:
    """Reads sentences with a model; gives the tokens of each as unit vectors with the words they belong to."""

    def __init__(self, reference: str | Path) -> None:
        self._model, self._tokenizer = _open(reference)
        config = self._model.config.get_text_config()
        self._layer = max(1, round(_DEPTH * config.num_hidden_layers))
        self._longest = int(getattr(config, "max_position_embeddings", 512)) - _RESERVED_PLACES

    def of(self, sentences: Sentences) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Yield, for each sentence, (tokens, hidden size) and (tokens): its tokens in order, special ones left out."""
        import torch

        read = [self._tokens(words) for words in sentences]
        width = max(1, *(len(ids) for ids, _ in read)) if read else 1
        ids, mask = torch.zeros(len(read), width, dtype=torch.long), torch.zeros(len(read), width, dtype=torch.long)
        for row, (numbers, _) in enumerate(read):
            ids[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.long)
            mask[row, : len(numbers)] = 1
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        with torch.inference_mode():
            layers = self._model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        states = torch.nn.functional.normalize(layers[self._layer].float(), dim=-1).cpu().numpy()
        for row, (_, words) in enumerate(read):
            inside = np.flatnonzero(words >= 0)
            yield states[row, inside], words[inside]

    def _tokens(self, words: list[str]) -> tuple[list[int], NDArray[np.int64]]:
        """Return the ids of a sentence with its special tokens, and the word of each token, -1 for special ones."""
        encoded = self._tokenizer.backend_tokenizer.encode(" ".join(words))
        # A token belongs to the word that its last character lies in: byte-level tokens begin with the space.
        ends = np.cumsum([len(word) + 1 for word in words])
        owners = np.searchsorted(ends, [max(end - 1, 0) for _, end in encoded.offsets], side="right")
        empty = [
            start == end or special
            for (start, end), special in zip(encoded.offsets, encoded.special_tokens_mask, strict=True)
        ]
        owners = np.where(empty, -1, owners).astype(np.int64)
        return encoded.ids[: self._longest], owners[: self._longest]


def _open(reference: str | Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    import torch
    from transformers import AutoModel

    from vocabtransfer.checkpoint import open_checkpoint
    from vocabtransfer.running.plan import find_device, own_device

    device = find_device(own_device())
    source = open_checkpoint(str(reference))
    try:
        model = AutoModel.from_pretrained(source.path, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, KeyError) as problem:
        raise VocabTransferError(f"{reference} cannot be run as a model: {problem}.") from None
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    return model.to(device).eval(), source.tokenizer
