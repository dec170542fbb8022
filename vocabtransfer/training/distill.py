"""Token distillation (arXiv 2505.20133): a new token's row learns to do what the old tokens of its text did together.

The teacher reads a text as the old tokenizer cuts it, the student as the new one does. Wherever both have read the same
bytes, their last hidden states should be the same; the mean squared difference is what is minimised, over all places
from the first new token of a row on, because nothing differs before it.

Hidden states say nothing about a head of its own, so there next-token cross entropy is added, as large as the
distillation loss itself ("token distillation + alpha NTP" in the paper). A tied table gets none: with it, 20 updates of
SmolLM2's table took 0.06 bits per byte away instead of 0.08 (Dutch, mean of pieces).
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.training.objectives import IGNORED, Batch, Surroundings, objective
from vocabtransfer.training.snippets import SnippetChooser
from vocabtransfer.training.teacher import Teacher


def hidden_state_distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the mean squared difference of hidden states (n, hidden) by place, float32 (n,)."""
    return (ours.float() - theirs.float()).square().mean(dim=1)


class TokenDistillation:
    """The student's last hidden states brought to the teacher's wherever both have read the same bytes."""

    name = "distill"
    needs_text = True

    def __init__(
        self,
        teacher: Teacher,
        new_rows: NDArray[np.bool_] | None,
        next_token: float | None = None,
        chooser: SnippetChooser | None = None,
    ) -> None:
        """Take a teacher, the rows that a transfer made (None: all), and the weight of next-token cross entropy.

        Not given, the weight is 1 where the head is a table of its own, and 0 where it is tied to the input table. A
        ``chooser`` picks the snippets to train on; without one the text is taken as it is.
        """
        self._teacher = teacher
        self._chooser = chooser
        self._new_rows = None if new_rows is None else torch.from_numpy(new_rows)
        self._next_token = next_token

    def loss(self, model: torch.nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Return the summed distance of all places that count, with cross entropy in proportion, and their number."""
        output = model(**batch.inputs(), use_cache=False, output_hidden_states=True)
        states = output.hidden_states[-1]
        reading = self._teacher.read(batch)
        ours = torch.from_numpy(reading.chunks.pairs[:, 0])
        rows, columns = (torch.from_numpy(v)[ours].to(states.device) for v in (reading.rows, reading.columns))
        counted = self._changed(batch.input_ids)[rows, columns]
        count = int(counted.sum())
        if not count:
            return (states[:1, :1].sum() + output.logits[:1, :1].sum()) * 0.0, 0
        theirs = self._teacher.hidden_states(reading)
        if theirs.shape[1] != states.shape[-1]:
            raise VocabTransferError(
                f"the teacher's hidden states have {theirs.shape[1]} numbers and the model's {states.shape[-1]}: token "
                "distillation needs the model that the transfer started from as `teacher`; use `objective='alm'`."
            )
        distances = hidden_state_distance(states[rows, columns][counted], theirs[counted])
        summed = distances.sum()
        weight = self._next_token if self._next_token is not None else float(not _is_tied(model))
        if weight:
            labels = batch.labels[:, 1:]
            losses = torch.nn.functional.cross_entropy(
                output.logits[:, :-1].float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED
            )
            summed = summed + weight * losses * (summed.detach() / losses.detach())
        return summed, count

    def choose(self, documents: Iterable[str]) -> Iterator[str]:
        """Yield snippets with new tokens, rare ones as often as frequent ones where the text has enough."""
        yield from documents if self._chooser is None else self._chooser(documents)

    def _changed(self, ids: Tensor) -> Tensor:
        """Tell the places (rows, columns) at or behind the first new token of their row."""
        if self._new_rows is None:
            return torch.ones_like(ids, dtype=torch.bool)
        return self._new_rows.to(ids.device)[ids].cumsum(dim=1) > 0


def _is_tied(model: torch.nn.Module) -> bool:
    plain: Any = getattr(model, "module", model)  # DDP puts the model into another one
    return bool(plain.config.get_text_config(decoder=True).tie_word_embeddings)


@objective("distill", teacher=True)
def make_objective(surroundings: Surroundings) -> TokenDistillation:
    """Return token distillation with the opened teacher; on snippets where it is known which rows are new."""
    new_rows = surroundings.new_rows
    chooser = SnippetChooser(surroundings.tokenizer, new_rows) if new_rows is not None else None
    return TokenDistillation(Teacher.open(surroundings), new_rows, chooser=chooser)
