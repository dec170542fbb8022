"""Rows of different heads that go through one body together, each with keys and values of its own in one cache.

The cache is aligned on the right: the newest token of every row is in its last column, and shorter rows have masked
columns on the left. So a row joins by padding on the left, leaves by being left out, and all rows take one step in one
pass of the body, whichever heads read or write them.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch.nn import functional
from transformers import DynamicCache

from vocabtransfer.hydra import HydraForCausalLM
from vocabtransfer.hydra.loaded import LoadedHead
from vocabtransfer.hydra.mixed import Joined, pad_rows
from vocabtransfer.serving.jobs import Finish, Job, Scored
from vocabtransfer.serving.sampling import Chooser, score
from vocabtransfer.serving.text import TextStream


class Row:
    """A job under way: its tokens so far, and what is needed to choose and show the next one."""

    def __init__(self, job: Job, device: torch.device) -> None:
        # Where one head reads and writes, its settings look at the prompt as well, as they do in ``generate``.
        self.context = list(job.prompt) if job.reader is job.writer else []
        self.job = job
        self.length = len(job.prompt)
        self.text = TextStream(job.writer, job.sampling.stop)
        self.chooser = Chooser(job.writer, job.sampling, len(self.context), device)
        self.ends = frozenset(job.writer.end_ids)
        self._scored: list[Scored] = []

    def take(self, logits: torch.Tensor) -> tuple[str, bool]:
        """Choose the next token from logits (rows of the writing head,); return the new text and whether it ends."""
        token = self.chooser.choose(logits, self.context)
        if self.job.sampling.logprobs is not None:
            known = self.job.writer.stored.config.vocabulary
            self._scored.append(score(logits[:known], token, self.job.sampling.logprobs, self.text.length))
        self.context.append(token)
        piece = self.text.add(token)
        return piece, token in self.ends or self.text.stopped

    def scored(self, finish: Finish | None) -> tuple[Scored, ...]:
        """Return the scored tokens whose text has been shown since the last call; at the end all that made the text."""
        told = self._scored
        if finish is None or self.text.stopped:
            told = [each for each in told if each.offset < self.text.shown]
        elif finish == "stop":
            told = told[:-1]  # the end token, which has no text
        self._scored = self._scored[len(told) :]
        return tuple(told)

    @property
    def full(self) -> bool:
        """Whether it has all the tokens that were asked for."""
        return len(self.text.tokens) >= self.job.sampling.max_tokens


class RowBatch:
    """The rows that share a body (all without a LoRA, or those of one head with one) and their cache."""

    def __init__(self, model: HydraForCausalLM) -> None:
        self.rows: list[Row] = []
        self._model = model
        self._cache: DynamicCache | None = None
        self._mask = torch.zeros((0, 0), dtype=torch.int64, device=model.device)
        self._view: tuple[Any, Joined, list[int]] | None = None

    def join(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Read the prompts of new rows in one pass and take them in; return each one's logits for its first token."""
        heads = _distinct([head for row in rows for head in (row.job.reader, row.job.writer)])
        joined, plan = Joined(heads), [heads.index(row.job.writer) for row in rows]
        offsets = [joined.offsets[heads.index(row.job.reader)] for row in rows]
        prompts = [[i + offset for i in row.job.prompt] for row, offset in zip(rows, offsets, strict=True)]
        ids, mask = pad_rows(prompts, offsets, left=True)
        device = self._mask.device
        mask = mask.to(device)
        cache = DynamicCache()
        view = self._model.mixed_view(joined, torch.tensor(plan))
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        logits = _run(view, ids.to(device), mask, positions, cache)
        self._cache, self._mask = (cache, mask) if self._cache is None else _merge(self._cache, self._mask, cache, mask)
        self.rows += rows
        self._view = None
        return _own(logits, joined, plan)

    def step(self) -> list[torch.Tensor]:
        """Run the newest token of every row through the body; return each row's logits for the next."""
        if self._view is None:
            heads = _distinct([row.job.writer for row in self.rows])
            plan = [heads.index(row.job.writer) for row in self.rows]
            joined = Joined(heads)
            self._view = (self._model.mixed_view(joined, torch.tensor(plan)), joined, plan)
        view, joined, plan = self._view
        device = self._mask.device
        newest = [row.text.tokens[-1] + joined.offsets[place] for row, place in zip(self.rows, plan, strict=True)]
        self._mask = functional.pad(self._mask, (0, 1), value=1)
        positions = torch.tensor([[row.length] for row in self.rows], device=device)
        logits = _run(view, torch.tensor(newest, device=device).unsqueeze(1), self._mask, positions, self._cache)
        for row in self.rows:
            row.length += 1
        return _own(logits, joined, plan)

    def keep(self, rows: Sequence[Row]) -> None:
        """Let all other rows go, and the columns that only they needed."""
        if len(rows) == len(self.rows):
            return
        places = torch.tensor([self.rows.index(row) for row in rows], dtype=torch.int64, device=self._mask.device)
        self.rows = list(rows)
        self._view = None
        if not rows:
            self._cache, self._mask = None, self._mask[:0, :0]
            return
        self._mask = self._mask[places]
        begin = int(self._mask.argmax(dim=1).min())
        self._mask = self._mask[:, begin:]
        for layer in _layers(self._cache):
            layer.keys = layer.keys[places, :, begin:]
            layer.values = layer.values[places, :, begin:]


def _run(view: Any, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
    """Return the logits of the last column, (rows, joined vocabulary); keys and values are added to ``cache``."""
    names = _accepted(type(view).forward)
    settings: dict[str, Any] = {"cache" if "cache" in names else "past_key_values": cache, "use_cache": True}
    if "position_ids" in names:
        settings["position_ids"] = positions
    if "logits_to_keep" in names:
        settings["logits_to_keep"] = 1
    logits: torch.Tensor = view(input_ids=ids, attention_mask=mask, **settings).logits
    return logits[:, -1]


@cache
def _accepted(forward: Callable[..., Any]) -> frozenset[str]:
    """Return what a kind of model takes: positions and the last column alone are not for all."""
    return frozenset(inspect.signature(forward).parameters)


def _own(logits: torch.Tensor, joined: Joined, plan: Sequence[int]) -> list[torch.Tensor]:
    """Cut each row's logits down to those of the head that writes it."""
    begins, ends = joined.offsets, joined.offsets[1:]
    return [logits[row, begins[place] : ends[place]] for row, place in enumerate(plan)]


def _merge(
    cache: DynamicCache, mask: torch.Tensor, other: DynamicCache, other_mask: torch.Tensor
) -> tuple[DynamicCache, torch.Tensor]:
    width = max(mask.shape[1], other_mask.shape[1])

    def both(left: torch.Tensor, right: torch.Tensor, dimension: int) -> torch.Tensor:
        # Padding counts dimensions from the last one: keys and values are (rows, heads, columns, width of a head).
        before = (0, 0) * (left.dim() - 1 - dimension)
        parts = [functional.pad(part, (*before, width - part.shape[dimension], 0)) for part in (left, right)]
        return torch.cat(parts)

    for layer, new in zip(_layers(cache), _layers(other), strict=True):
        layer.keys, layer.values = both(layer.keys, new.keys, 2), both(layer.values, new.values, 2)
    return cache, both(mask, other_mask, 1)


def _layers(cache: DynamicCache | None) -> list[Any]:
    """Return the layers with keys and values of their own; some models let several layers share them."""
    return [layer for layer in cache.layers if getattr(layer, "keys", None) is not None] if cache is not None else []


def _distinct(heads: Sequence[LoadedHead]) -> tuple[LoadedHead, ...]:
    # By identity: a head that was given up and loaded again may be in use twice for a moment.
    return tuple(dict.fromkeys(heads))
