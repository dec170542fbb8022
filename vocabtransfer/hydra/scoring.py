"""Logits and loss over sequences in several vocabularies: each position predicts in the vocabulary of what follows."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers.modeling_outputs import CausalLMOutputWithPast

from vocabtransfer.errors import UsageError
from vocabtransfer.hydra.encoding import IGNORED
from vocabtransfer.hydra.generation import body_groups
from vocabtransfer.hydra.mixed import Joined


def forward_joined(
    joined: Joined,
    outputs: Sequence[str],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    labels: torch.Tensor | None,
    *,
    mixed_view_of: Callable[[str, torch.Tensor], Any],
    **settings: Any,
) -> CausalLMOutputWithPast:
    """Return logits (batch, length, all rows; minus infinity outside a position's vocabulary) and the loss.

    ``labels`` are joined ids as `encode` gives them, -100 where nothing is to be learnt; the loss is their mean
    cross-entropy, each within its own head's vocabulary, or their sum over ``num_items_in_batch`` where that is given.
    """
    if settings.pop("logits_to_keep", 0):
        raise UsageError("logits_to_keep cannot be used with several vocabularies.")
    if len(outputs) != input_ids.shape[0]:
        raise UsageError(f"{input_ids.shape[0]} rows need as many output heads, not {len(outputs)}.")
    items = settings.pop("num_items_in_batch", None)
    last = torch.tensor([joined.index(name) for name in outputs], device=input_ids.device)
    plan = torch.cat([joined.head_of(input_ids)[:, 1:], last.unsqueeze(1)], dim=1)
    groups = body_groups(joined, outputs)
    results = []
    for rows in groups:
        view = mixed_view_of(outputs[rows[0]], plan[rows])
        mask = attention_mask[rows] if attention_mask is not None else None
        extra = {**settings, **_positions(view, mask)}
        results.append(view(input_ids=input_ids[rows], attention_mask=mask, **extra))
    result = results[0]
    if len(groups) > 1:
        order = torch.tensor([row for rows in groups for row in rows]).argsort()
        result = CausalLMOutputWithPast(logits=torch.cat([part.logits for part in results])[order])
    if labels is not None:
        result.loss = _loss(result.logits, labels, items)
    return result  # type: ignore[no-any-return]


def _loss(logits: torch.Tensor, labels: torch.Tensor, items: Any) -> torch.Tensor:
    wanted = labels[:, 1:].to(logits.device)
    learnt = wanted != IGNORED
    if not learnt.any():
        raise UsageError("no label is to be learnt: name the heads to train on when encoding.")
    scores, targets = logits[:, :-1][learnt].float(), wanted[learnt]
    if items is None:
        return functional.cross_entropy(scores, targets)
    total: torch.Tensor = functional.cross_entropy(scores, targets, reduction="sum") / items
    return total


def _positions(view: Any, mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Count positions from the first token of each row where rows are padded on the left, as generating does."""
    if mask is None or bool(mask[:, 0].all()) or "position_ids" not in inspect.signature(view.forward).parameters:
        return {}
    return {"position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}
