"""A head of which some rows are trained: the log-sum of those that stay, and what the others cost beside it.

Logits of trained rows are made for some places at a time and their gradient is taken at once, in the same memory: kept
until a backward pass, they and what is computed of them would be most of an update.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocabtransfer.checkpoint import Checkpoint

# Their product is what is held at once: logits that stay in the cache of a core.
_ROWS_AT_A_TIME = 2048
_PLACES_AT_A_TIME = 1024
_LEARNT_AT_A_TIME = 512


class RowHead:
    """The head of a checkpoint, its table as it is stored, with the model's own bias, scale and soft cap of logits."""

    def __init__(
        self, checkpoint: Checkpoint, rows: NDArray[np.int64], dtype: torch.dtype, device: torch.device
    ) -> None:
        """Take a checkpoint and the numbers of the rows that are trained, ascending."""
        config: dict[str, Any] = checkpoint.config.get("text_config") or checkpoint.config
        self.dtype, self.device = dtype, device
        self._table = checkpoint.output_table()
        self._rows = torch.from_numpy(rows)
        bias = checkpoint.output_bias()
        self._bias = None if bias is None else bias.float()
        self._cap = config.get("final_logit_softcapping")
        self._scale = float(config.get("logit_scale") or 1 / float(config.get("logits_scaling") or 1))

    @property
    def width(self) -> int:
        """How many numbers a state has."""
        return int(self._table.shape[1])

    def start(self) -> Tensor:
        """Return the trained rows as they are stored, float32 (n, width)."""
        return self._table[self._rows].float()

    def nats(self, rows: Tensor, places: "HeadPlaces") -> Tensor:
        """Return the weighted mean nats of next tokens, a scalar whose gradient reaches ``rows`` float32 (n, width).

        ``rows`` are the trained rows' values. Only what trained rows have to do with it is counted: a place whose next
        token is not trained costs what they take from the rows that stay.
        """
        found: Tensor = _Nats.apply(rows, self, places)
        return found

    @torch.no_grad()
    def log_sum(self, states: Tensor) -> Tensor:
        """Return the log of the summed exponentials of all other rows' logits, float32 (places,)."""
        parts = states.to(self.dtype).split(_PLACES_AT_A_TIME)
        return torch.cat([self._log_sum(part) for part in parts]) if len(states) else torch.empty(0)

    def _log_sum(self, states: Tensor) -> Tensor:
        highest = torch.full((len(states),), -torch.inf, device=states.device)
        total = torch.zeros_like(highest)
        kept = torch.empty(len(states), _ROWS_AT_A_TIME, device=states.device)  # fresh memory costs more than the sums
        for start in range(0, len(self._table), _ROWS_AT_A_TIME):
            block = self._table[start : start + _ROWS_AT_A_TIME].to(self.device, self.dtype)
            stop = start + len(block)
            bias = None if self._bias is None else self._bias[start:stop].to(states.device)
            found = self._finished_(kept[:, : len(block)].copy_(states @ block.T), bias)
            own = self._rows[torch.searchsorted(self._rows, start) : torch.searchsorted(self._rows, stop)] - start
            found[:, own.to(found.device)] = -torch.inf
            now = torch.maximum(highest, found.amax(dim=1))
            # Where every row so far is trained, nothing is summed yet.
            shift = torch.where(now > -torch.inf, now, 0.0)
            total = total * torch.exp(highest - shift) + found.sub_(shift[:, None]).exp_().sum(dim=1)
            highest = now
        return highest + total.log()

    def learnt(self, rows: Tensor, places: "HeadPlaces") -> tuple[Tensor, Tensor]:
        """Return what `nats` does, and its gradient, float32 like ``rows``."""
        own = rows.to(self.dtype)
        bias = None if self._bias is None else self._bias[self._rows].to(rows.device)[:, None]
        gradient, total = torch.zeros_like(rows), 0.0
        kept = torch.empty(len(rows), min(len(places.states), _LEARNT_AT_A_TIME), device=rows.device)
        for part in places.split(_LEARNT_AT_A_TIME):
            states = part.states.to(self.dtype)
            logits = self._finished_(kept[:, : len(states)].copy_(own @ states.T), bias)
            slope = self._slope(logits)
            columns, following = torch.arange(len(states), device=rows.device), part.following.clamp(min=0)
            trained = part.following >= 0
            wanted = logits[following, columns]
            highest = torch.maximum(logits.amax(dim=0), part.log_sum)
            logits.sub_(highest).exp_()
            sums = logits.sum(dim=0) + (part.log_sum - highest).exp()
            nats = sums.log() + highest - torch.where(trained, wanted, part.log_sum)
            share = part.weight / len(places.states)
            total += float((share * nats).sum())
            logits.mul_(share / sums)
            logits[following, columns] -= torch.where(trained, share, 0.0)
            if slope is not None:
                logits.mul_(slope)
            gradient += logits.to(self.dtype) @ states
        return torch.tensor(total), gradient

    def _slope(self, logits: Tensor) -> Tensor | float | None:
        """Return the derivative of finished logits by what the product gave; None where it is one."""
        if self._cap:
            slope: Tensor = (1 - (logits / self._cap).square()) * self._scale
            return slope
        return self._scale if self._scale != 1 else None

    def _finished_(self, logits: Tensor, bias: Tensor | None) -> Tensor:
        """Finish logits in place."""
        if self._scale != 1:
            logits *= self._scale
        if bias is not None:
            logits += bias
        return logits if not self._cap else logits.div_(self._cap).tanh_().mul_(self._cap)


@dataclass(frozen=True, eq=False)
class HeadPlaces:
    """Places where a next token is asked for.

    ``states`` (places, width) are what the head reads, ``log_sum`` float32 the log-sum of the rows that stay, ``following``
    int64 the number of the next token among the trained rows (-1: it is none of them), ``weight`` float32 how much the
    place counts.
    """

    states: Tensor
    log_sum: Tensor
    following: Tensor
    weight: Tensor

    def split(self, count: int) -> Iterator["HeadPlaces"]:
        """Yield them ``count`` at a time."""
        fields = (self.states, self.log_sum, self.following, self.weight)
        for part in zip(*(field.split(count) for field in fields), strict=True):
            yield HeadPlaces(*part)


class _Nats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, head: RowHead, places: HeadPlaces) -> Tensor:
        loss, gradient = head.learnt(rows, places)
        ctx.save_for_backward(gradient)
        return loss.to(rows.device)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * above, None, None
