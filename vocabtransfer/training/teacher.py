"""A model with the old tokenizer that reads the same text beside the model in training, and is never changed."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.evaluation.scoring import CausalScorer, text_config
from vocabtransfer.running.load import load_causal_model
from vocabtransfer.tokenization.ragged import IntArray, Pieces, row_pointers, runs
from vocabtransfer.training.chunks import Borders, Chunks, TokenBytes, common_chunks, to_pieces
from vocabtransfer.training.objectives import Batch, Surroundings
from vocabtransfer.vocabulary import Vocabulary

_NO_LIMIT = 1 << 62
# So many tokens without a common border are no accident.
_SURELY_SHARED = 32


@dataclass(frozen=True, eq=False)
class Reading:
    """One batch as two models read it.

    ``chunks`` are cut at the borders that both tokenisations share; its texts are the segments of the batch. ``rows``
    and ``columns`` int64 say where each token of the segments stands in ``Batch.input_ids``. The teacher reads one
    sequence for each row of the batch that has text: its separator, then the segments of the row with a separator
    between them; ``teacher_rows`` and ``teacher_columns`` int64 are the places of its tokens there.
    """

    chunks: Chunks
    rows: IntArray
    columns: IntArray
    sequences: list[NDArray[np.int64]]
    teacher_rows: IntArray
    teacher_columns: IntArray


class Teacher:
    """The old model and its tokenizer, beside the tokenizer of the model in training."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, ours: PreTrainedTokenizerFast
    ) -> None:
        """Wrap a loaded model; `VocabTransferError` when it is not causal or does not fit its tokenizer."""
        self._model = model.eval().requires_grad_(False)
        self._scorer = CausalScorer(model, tokenizer)
        self._tokenizer = tokenizer
        self._ours, self._theirs = (TokenBytes(Vocabulary.from_tokenizer(each)) for each in (ours, tokenizer))
        self._longest = int(getattr(text_config(model), "max_position_embeddings", None) or _NO_LIMIT)

    @classmethod
    def open(cls, surroundings: Surroundings) -> "Teacher":
        """Load the teacher's checkpoint, on the device and with the precision of the model in training."""
        assert surroundings.teacher is not None, "checked by find_objective"
        model: Any = load_causal_model(surroundings.teacher.path, str(surroundings.device))
        return cls(model.to(surroundings.dtype), surroundings.teacher.tokenizer, surroundings.tokenizer)

    def read(self, batch: Batch) -> Reading:
        """Tokenise the segments of a batch and find the chunks that both tokenisations share.

        Text that the teacher's positions do not reach belongs to no chunk. Raises `VocabTransferError` when a batch of
        some length has no chunk at all.
        """
        texts = [segment.text for segment in batch.segments]
        starts, stops, of_row = (
            np.array([getattr(segment, name) for segment in batch.segments], np.int64)
            for name in ("start", "stop", "row")
        )
        lengths = stops - starts
        rows, columns = np.repeat(of_row, lengths), runs(starts, lengths)
        ids = batch.input_ids.cpu().numpy()[rows, columns].astype(np.int32)
        offsets = np.concatenate([np.zeros((0, 2), np.int32), *(segment.offsets for segment in batch.segments)])
        ours = self._ours.borders(Pieces(row_pointers(lengths), ids), texts, offsets)
        pieces, theirs = self._encode(texts)
        # A separator stands before every segment; the first of each row begins a sequence.
        segment_starts = pieces.indptr[:-1] + np.arange(len(texts))
        begins = np.flatnonzero(np.append(True, of_row[1:] != of_row[:-1])[: len(texts)])
        places = theirs.before + 1
        stream = np.full(len(pieces.ids) + len(texts), self._scorer.separator, np.int64)
        stream[places] = pieces.ids
        teacher_rows = np.searchsorted(segment_starts[begins], places, side="right") - 1
        teacher_columns = places - segment_starts[begins][teacher_rows]
        theirs = replace(theirs, counted=theirs.counted & (teacher_columns < self._longest))
        chunks = common_chunks(ours, theirs)
        if not len(chunks) and len(ids) >= _SURELY_SHARED:
            raise VocabTransferError(
                "The teacher's tokenizer has no border in common with the model's in a whole batch, or knows none of its "
                "characters: give the model that the transfer started from as `teacher`."
            )
        return Reading(
            chunks=chunks,
            rows=rows,
            columns=columns,
            sequences=[part[: self._longest] for part in np.split(stream, segment_starts[begins])[1:]],
            teacher_rows=teacher_rows,
            teacher_columns=teacher_columns,
        )

    def _encode(self, texts: list[str]) -> tuple[Pieces, Borders]:
        encoding: Any = {"input_ids": [], "offset_mapping": []}
        if texts:  # of no texts, the library makes no empty lists
            encoding = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        pieces, offsets = to_pieces(encoding["input_ids"], encoding["offset_mapping"])
        return pieces, self._theirs.borders(pieces, texts, offsets)

    def log_likelihoods(self, reading: Reading) -> Tensor:
        """Return log p of every chunk given what stands before it, float64 (chunks,), in nats."""
        losses = self._scorer.nats(reading.sequences, [1] * len(reading.sequences))
        begins = row_pointers(np.array([len(row) for row in losses]))[:-1]
        used = np.flatnonzero(reading.chunks.theirs >= 0)
        taken = np.concatenate(losses)[begins[reading.teacher_rows[used]] + reading.teacher_columns[used] - 1]
        summed = np.bincount(reading.chunks.theirs[used], -taken, minlength=len(reading.chunks))
        return torch.from_numpy(summed)

    @torch.no_grad()
    def hidden_states(self, reading: Reading) -> Tensor:
        """Return the last hidden states (chunks, hidden) at the teacher's last token of every chunk."""
        width = max(map(len, reading.sequences))
        ids = np.full((len(reading.sequences), width), self._scorer.separator, np.int64)
        for row, sequence in zip(ids, reading.sequences, strict=True):
            row[: len(sequence)] = sequence
        everything = torch.from_numpy(ids).to(self._model.device)
        last = reading.chunks.pairs[:, 1]
        return self._states(everything)[reading.teacher_rows[last], reading.teacher_columns[last]]

    def _states(self, ids: Tensor) -> Tensor:
        """Return what a model calls the last of its hidden states (rows, columns, hidden)."""
        if self._ends_in_last_state:
            return cast(Tensor, self._model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
        output = self._model.base_model(input_ids=ids, use_cache=False, output_hidden_states=True)
        return cast(Tensor, output.hidden_states[-1])

    @cached_property
    @torch.no_grad()
    def _ends_in_last_state(self) -> bool:
        """Whether the body's result is that state, as with nearly all models: then no other has to be kept."""
        ids = torch.full((1, 1), self._scorer.separator, device=self._model.device)
        output = self._model.base_model(input_ids=ids, use_cache=False, output_hidden_states=True)
        return torch.equal(output.last_hidden_state, output.hidden_states[-1])
