"""A head of which some rows are trained: the log-sum of those that stay, and the logits of those that do not."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocabtransfer.checkpoint import Checkpoint

# Their product is what is held at once: logits that stay in the cache of a core.
_ROWS_AT_A_TIME = 2048
_PLACES_AT_A_TIME = 1024


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

    def logits(self, states: Tensor, rows: Tensor) -> Tensor:
        """Return the logits of trained rows with the values ``rows`` (n, width), float32 (places, n)."""
        found = (states.to(self.dtype) @ rows.to(self.dtype).T).float()
        bias = None if self._bias is None else self._bias[self._rows].to(found.device)
        return self._finished(found, bias)

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
            found = self._finished(kept[:, : len(block)].copy_(states @ block.T), bias)
            own = self._rows[torch.searchsorted(self._rows, start) : torch.searchsorted(self._rows, stop)] - start
            found[:, own.to(found.device)] = -torch.inf
            now = torch.maximum(highest, found.amax(dim=1))
            # Where every row so far is trained, nothing is summed yet.
            shift = torch.where(now > -torch.inf, now, 0.0)
            total = total * torch.exp(highest - shift) + found.sub_(shift[:, None]).exp_().sum(dim=1)
            highest = now
        return highest + total.log()

    def _finished(self, logits: Tensor, bias: Tensor | None) -> Tensor:
        if self._scale != 1:
            logits = logits * self._scale
        if bias is not None:
            logits = logits + bias
        return logits if not self._cap else torch.tanh(logits / self._cap) * self._cap
