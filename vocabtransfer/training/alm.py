"""Approximate likelihood matching (ALM, arXiv 2503.20083): learn how likely a teacher finds each chunk of a text.

Teacher and student cut a text into different tokens, so their distributions over the next token cannot be compared. The
probabilities of a chunk that both spell with tokens of their own can: chunks lie between byte offsets at which both
tokenisations have a border. A chunk either comes next or it does not, so the two models are compared by a divergence
between two coins, each probability raised to one over a temperature, which keeps those of long chunks away from 0.
"""

from typing import Literal

import torch
from torch import Tensor

from vocabtransfer.training.objectives import Batch, Surroundings, objective
from vocabtransfer.training.teacher import Teacher

Divergence = Literal["kl", "reverse_kl", "total_variation"]
TEMPERATURE = 100.0
# Probability 1 has no finite log odds; a millionth of a nat is as good.
_CERTAIN = 1e-6


def binarised_divergence(
    ours: Tensor, theirs: Tensor, *, temperature: float = TEMPERATURE, divergence: Divergence = "kl"
) -> Tensor:
    """Return the divergence between the teacher's and the student's coin for every chunk, times the temperature.

    With ``p = exp(theirs / temperature)`` and ``q = exp(ours / temperature)`` the divergence of ``(p, 1 - p)`` from
    ``(q, 1 - q)``. Times the temperature, so that it stays in nats a chunk: for high temperatures ``kl`` becomes
    ``a log(a / b) - a + b`` with ``a = -theirs`` and ``b = -ours``.

    Args:
        ours: log-likelihoods of the student (chunks,), nats, at most 0.
        theirs: log-likelihoods of the teacher (chunks,), nats, at most 0.
        temperature: above 0.
        divergence: ``kl`` (teacher from student), ``reverse_kl``, or ``total_variation``.

    >>> one = torch.tensor([-1.0], dtype=torch.float64)
    >>> binarised_divergence(one, one).item(), round(binarised_divergence(one * 2, one, temperature=1e6).item(), 4)
    (0.0, 0.3069)
    """
    p, q = ((side - _CERTAIN) / temperature for side in (theirs, ours))
    if divergence == "total_variation":
        return temperature * (p.exp() - q.exp()).abs()
    if divergence == "reverse_kl":
        p, q = q, p
    not_p, not_q = (torch.log(-torch.expm1(side)) for side in (p, q))
    return temperature * (p.exp() * (p - q) - torch.expm1(p) * (not_p - not_q))


class ChunkLikelihoods:
    """The student's likelihood of every chunk brought to the teacher's."""

    name = "alm"
    needs_text = True

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    def loss(self, model: torch.nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Return the summed divergence of all chunks, and their number."""
        logits = model(**batch.inputs(-1), use_cache=False).logits
        reading = self._teacher.read(batch)
        count = len(reading.chunks)
        if not count:
            return logits[:1, :1].sum() * 0.0, 0
        theirs = self._teacher.log_likelihoods(reading).to(logits.device)
        used = torch.from_numpy((reading.chunks.ours >= 0).nonzero()[0])
        rows, columns, chunks = (
            torch.from_numpy(values)[used].to(logits.device)
            for values in (reading.rows, reading.columns, reading.chunks.ours)
        )
        losses = torch.nn.functional.cross_entropy(
            logits[rows, columns - 1].float(), batch.input_ids[rows, columns], reduction="none"
        )
        ours = torch.zeros(count, dtype=torch.float64, device=logits.device).index_add(0, chunks, -losses.double())
        return binarised_divergence(ours, theirs).sum(), count


@objective("alm", teacher=True)
def make_objective(surroundings: Surroundings) -> ChunkLikelihoods:
    """Return ALM with the opened teacher."""
    return ChunkLikelihoods(Teacher.open(surroundings))
