"""New rows fitted to what the untouched model said: nothing but these rows is a parameter.

As input, a row has to bring the first layers to the state that the untouched model had there after reading the same bytes
in its own tokens (token distillation, arXiv 2505.20133, at an early layer). As output, its logit has to stand up against
the rows that stay, whose log-sum is known: cross entropy of the next token, of which only the new rows' part is
computed. A tied table is one row for both, so both losses are minimised together; fitting either alone spoils the other.

Rows are their start plus a difference, and the difference decays on the way: most rows are met once or twice, and what
one place says of a row hardly carries over to the next. Rows that no snippet asks for take no part as outputs: cross
entropy would only ever push them down.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.tokenization.ragged import IntArray, runs
from vocabtransfer.training.early_layers import EarlyLayers
from vocabtransfer.training.row_head import HeadPlaces, RowHead
from vocabtransfer.training.row_lessons import Lessons, Snippets, padded

# A map of changes is believed when it explains this share of the change of rows that it was not fitted on.
LEAST_EXPLAINED = 0.05
BETAS = (0.9, 0.95)
# Places of the output side an update, for each token of the input side: they are cheap.
_PLACES_A_TOKEN = 4
_LOGITS_AT_A_TIME = 1 << 24
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class RowWeights:
    """How much the two sides count in the loss: ``state`` for the squared difference of states, ``word`` for nats.

    At equal weights the difference of states hardly shrinks (Gemma 3 270M: from 0.230 to 0.222 while nats fell by one).
    """

    state: float = 10.0
    word: float = 1.0


class RowFit:
    """New rows on their way. ``input`` and ``output`` are one parameter where the model's tables are tied."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        rows: NDArray[np.int64],
        layers: EarlyLayers,
        head: RowHead,
        snippets: Snippets,
        lessons: Lessons,
        separator: int,
        seed: int,
        weights: RowWeights | None = None,
        leading: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take a checkpoint, the numbers of the rows to train (ascending), and what the untouched model said.

        ``leading`` bool (rows,) marks those of old tokens: where the tables are separate, they train as outputs only.
        """
        self._layers, self._head, self._snippets, self._lessons = layers, head, snippets, lessons
        self._separator, self._seed, self._weights = separator, seed, weights or RowWeights()
        self._table = checkpoint.input_table()
        self._number = np.full(len(self._table), -1, np.int64)
        self._number[rows] = np.arange(len(rows))
        self._asked = np.flatnonzero(snippets.following >= 0)
        self._begins = np.searchsorted(snippets.text, np.arange(len(snippets) + 1))
        self._early_at = np.cumsum(snippets.matched) - 1
        device = head.device
        tied = checkpoint.layout.output_name is None
        self._start = {"input": self._table[torch.from_numpy(rows)].float().to(device)}
        if not tied:
            self._start["output"] = head.start().to(device)
        self.changes = {side: torch.zeros_like(start, requires_grad=True) for side, start in self._start.items()}
        self._entering = torch.ones(len(rows), 1, dtype=torch.bool, device=device)
        if not tied and leading is not None:
            self._entering &= torch.from_numpy(~leading)[:, None].to(device)
        self.counts = self._counted(len(rows))
        # Rows that are never asked for would only ever be pushed down as outputs.
        self._said = torch.from_numpy(np.isin(rows, snippets.following[self._asked]))[:, None].to(device)
        self.optimizer = torch.optim.Adam(list(self.changes.values()), lr=0.0, betas=BETAS)
        self._scale = _state_scale(lessons.early).to(device)

    def _counted(self, rows: int) -> dict[str, IntArray]:
        """Return how often each row is met on a side, read or asked for; a row of tied tables on either."""
        read = self._number[self._snippets.new.ids]
        said = self._number[self._snippets.following[self._asked]]
        reading = np.bincount(read[read >= 0], minlength=rows)
        saying = np.bincount(said[said >= 0], minlength=rows)
        if "output" in self._start:
            return {"input": reading * self._entering[:, 0].cpu().numpy(), "output": saying}
        return {"input": np.maximum(reading, saying)}

    def plan(self, tokens: int, updates: int) -> list[IntArray]:
        """Return the snippets of every update, about ``tokens`` tokens each; the same seed gives the same plan."""
        sizes = self._snippets.sizes() + 1
        found: list[IntArray] = []
        epoch = 0
        while len(found) < updates:
            order = np.random.default_rng([self._seed, 17, epoch]).permutation(len(sizes))
            ends = np.cumsum(sizes[order])
            found += [
                part
                for part in np.split(order, np.searchsorted(ends, np.arange(tokens, ends[-1], tokens)))
                if len(part)
            ]
            epoch += 1
        return found[:updates]

    def tokens(self, texts: IntArray) -> int:
        """Return how many tokens some snippets have, separators among them."""
        return int(self._snippets.sizes()[texts].sum()) + len(texts)

    def update(self, number: int, texts: IntArray, rate: float, pull: float = 0.0) -> float:
        """Make update ``number`` on some snippets with a learning rate; return the loss before it.

        What rows have changed by shrinks by e to the minus ``pull`` times the rate.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for loss in (self._state_loss(texts), self._word_loss(number, int(self._snippets.sizes()[texts].sum()))):
            if loss.requires_grad:
                loss.backward()
            total += float(loss.detach())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            for change in self.changes.values():
                change.mul_(math.exp(-pull * rate))
        self.optimizer.step()
        return total

    def rows(self, side: str) -> Tensor:
        """Return the rows of a side ("input" or "output") as they are now, float32."""
        side = side if side in self.changes else "input"
        return self._start[side] + self.changes[side]

    def _state_loss(self, texts: IntArray) -> Tensor:
        """Return the mean squared difference of states behind the early layer, in units of their own spread."""
        snippets = self._snippets
        lengths = self._begins[texts + 1] - self._begins[texts]
        places = runs(self._begins[texts], lengths)
        line = np.repeat(np.arange(len(texts)), lengths)[snippets.matched[places]]
        places = places[snippets.matched[places]]
        if not len(places) or not self._weights.state:
            return torch.zeros(())
        used, ids = np.unique(padded(snippets.new, texts, self._separator), return_inverse=True)
        device = self._head.device
        own = np.flatnonzero(self._number[used] >= 0)
        frozen = self._table[torch.from_numpy(used)].to(device).float()
        numbers = torch.from_numpy(self._number[used[own]]).to(device)
        rows = self.rows("input")[numbers]
        rows = torch.where(self._entering[numbers], rows, rows.detach())
        entered = frozen.index_put((torch.from_numpy(own).to(device),), rows)
        shape = (len(texts), -1)
        states = self._layers.states(torch.from_numpy(ids.reshape(shape)).to(device), entered.to(self._head.dtype))
        ours = states[torch.from_numpy(line), torch.from_numpy(snippets.column[places])].float()
        theirs = self._lessons.early[torch.from_numpy(self._early_at[places])].to(device).float()
        return self._weights.state * ((ours - theirs).square() * self._scale).mean()

    def _word_loss(self, number: int, tokens: int) -> Tensor:
        """Return the mean nats of next tokens at some places, less what the untouched rows cost among themselves."""
        if not len(self._asked) or not self._weights.word:
            return torch.zeros(())
        rows = self.rows("output")
        rows = torch.where(self._said, rows, rows.detach())
        count = min(max(_LOGITS_AT_A_TIME // len(rows), 256), _PLACES_A_TOKEN * tokens)
        chance = np.random.default_rng([self._seed, 18, number])
        chosen = chance.integers(len(self._asked), size=count)
        device = self._head.device
        states, log_sum = (
            each[torch.from_numpy(chosen)].to(device) for each in (self._lessons.last, self._lessons.log_sum)
        )
        following = torch.from_numpy(self._number[self._snippets.following[self._asked[chosen]]]).to(device)
        weight = torch.from_numpy(self._snippets.weight[self._asked[chosen]]).to(device)
        return self._weights.word * self._head.nats(rows, HeadPlaces(states, log_sum, following, weight))

    # What a checkpoint of the fit holds.

    def moments(self) -> dict[str, Tensor]:
        """Return the optimizer's state by name."""
        return {
            f"{name}:{side}": self.optimizer.state[change][name].clone()
            for side, change in self.changes.items()
            if change in self.optimizer.state
            for name in MOMENTS
        }

    def restore(self, changes: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        """Go on from what `changes` and `moments` were."""
        for side, change in self.changes.items():
            with torch.no_grad():
                change.copy_(changes[side])
            state: dict[str, Any] = {
                name: moments[f"{name}:{side}"].to(change.device) if name != "step" else moments[f"{name}:{side}"]
                for name in MOMENTS
                if f"{name}:{side}" in moments
            }
            if state:
                self.optimizer.state[change] = state


def _state_scale(states: Tensor) -> Tensor:
    """Return what squared differences of states are multiplied by, float32 (hidden,).

    The inverse of each number's variance, with the median variance added: a few numbers are a thousand times larger
    than the others in most models, and would be all that counts.
    """
    if len(states) < 2:
        return torch.ones(states.shape[1])
    variance = states[:: max(len(states) // 4096, 1)].float().var(dim=0)
    return 1 / (variance + variance.median()).clamp(min=1e-12)


def foretold(start: Tensor, change: Tensor, counts: IntArray, *, least: int = 64) -> tuple[Tensor, float]:
    """Say by what a row that no text holds would have changed: a linear map of starts, fitted on the rows that were met.

    The map is chosen among several strengths of ridge by rows that it was not fitted on. Returns the change of the rows
    that were never met, float32 (unmet, hidden), zero where the map explains nothing, and the share of the squared
    change of unfitted rows that it explains.

    A map that explains little still moves every row that was never met, and rows that are met seldom change by what they
    happened to be met with; so it has to explain ``LEAST_EXPLAINED``.
    """
    met, unmet = torch.from_numpy(np.flatnonzero(counts > 0)), torch.from_numpy(np.flatnonzero(counts == 0))
    nothing = torch.zeros(len(unmet), start.shape[1])
    if len(met) < least or not len(unmet):
        return nothing, 0.0
    centre = start[met].mean(dim=0)
    known, wanted = start[met] - centre, change[met]
    size = float(known.square().sum()) / len(known) / start.shape[1]
    known = torch.cat([known, torch.full((len(met), 1), float(known.square().mean().sqrt()) * 10)], dim=1)
    fitted, tested = slice(0, None, 2), slice(1, None, 2)
    explained, chosen = 0.0, 0.0
    for strength in (0.1, 1.0, 10.0, 100.0):
        found = _ridge(known[fitted], wanted[fitted], strength * size * len(met) / start.shape[1])
        left = (wanted[tested] - known[tested] @ found).square().sum() / wanted[tested].square().sum().clamp(min=1e-12)
        if 1 - float(left) > explained:
            explained, chosen = 1 - float(left), strength
    if explained < LEAST_EXPLAINED:
        return nothing, explained
    found = _ridge(known, wanted, chosen * size * len(met) / start.shape[1])
    asked = torch.cat([start[unmet] - centre, known[:1, -1:].expand(len(unmet), 1)], dim=1)
    return asked @ found, explained


def _ridge(known: Tensor, wanted: Tensor, strength: float) -> Tensor:
    square = known.T @ known
    square.diagonal().add_(strength)
    solved: Tensor = torch.linalg.solve(square, known.T @ wanted)
    return solved
