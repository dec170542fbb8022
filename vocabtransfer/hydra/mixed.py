"""Several vocabularies in one sequence or one batch.

Inside the model the vocabularies of the heads that take part are laid end to end: token t of a head has the id
``offset + t``. Rows are looked up in each head's own table, and each position's logits come from one head alone, so no
table is copied and nothing is computed for vocabularies that a position cannot use.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vocabtransfer.hydra.concatenate import offsets_of, shifted
from vocabtransfer.hydra.loaded import LoadedHead
from vocabtransfer.hydra.views import (
    Slots,
    embedding_module,
    output_module,
    path_modules,
    replace_module,
    share_capture,
    twin_paths,
)


@dataclass(frozen=True, eq=False)
class Joined:
    """The vocabularies of some heads laid end to end."""

    heads: tuple[LoadedHead, ...]

    @property
    def offsets(self) -> list[int]:
        """Where each vocabulary starts, and the total."""
        return offsets_of([head.rows for head in self.heads])

    @property
    def names(self) -> tuple[str, ...]:
        """The heads' names."""
        return tuple(head.name for head in self.heads)

    def index(self, name: str) -> int:
        """Return the place of a head."""
        return self.names.index(name)

    def head_of(self, ids: torch.Tensor) -> torch.Tensor:
        """Return for each joined id the index of its head, in the shape of ``ids``."""
        starts = torch.tensor(self.offsets[1:-1], device=ids.device, dtype=ids.dtype)
        return torch.bucketize(ids, starts, right=True)


class MixedEmbedding(nn.Module):
    """Looks each joined id up in its head's table: (batch, length) to (batch, length, hidden)."""

    def __init__(self, module: nn.Module, joined: Joined) -> None:
        super().__init__()
        self.tables = nn.ModuleList(embedding_module(module, head) for head in joined.heads)
        self.offsets = joined.offsets

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Look up joined ids."""
        # One lookup a head with other ids clamped: no branch depends on the ids, so no device has to wait for them.
        result: torch.Tensor | None = None
        for table, begin, end in zip(self.tables, self.offsets, self.offsets[1:], strict=False):
            rows = table((ids - begin).clamp(0, end - begin - 1))
            mine = ((ids >= begin) & (ids < end)).unsqueeze(-1)
            result = rows if result is None else torch.where(mine, rows, result)
        assert result is not None
        return result


class MixedOutput(nn.Module):
    """Gives each position the logits of its head: (batch, length, hidden) to (batch, length, all rows).

    ``plan`` holds head indices: (batch,) where every position of a row has one head, else (batch, length). A batch may
    come expanded by a factor (beams, several sequences a prompt): row r of it belongs to row r // factor of the plan.
    """

    def __init__(self, module: nn.Module, joined: Joined, plan: torch.Tensor) -> None:
        super().__init__()
        self.tables = nn.ModuleList(output_module(module, head) for head in joined.heads)
        self.offsets = joined.offsets
        self.plan = plan.cpu()
        self._places: dict[int, list[tuple[torch.Tensor, ...]]] = {}
        self._others: dict[int, torch.Tensor] = {}

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Compute logits; those of vocabularies that a position does not have are zero until `hide_others`."""
        logits: torch.Tensor | None = None
        places = self._places_for(states.shape[0], states.device)
        for table, where, begin, end in zip(self.tables, places, self.offsets, self.offsets[1:], strict=False):
            if len(where[0]):
                scores = table(states[where])
                if logits is None:  # under autocast, tables give another dtype than that of the states
                    logits = scores.new_zeros((*states.shape[:-1], self.offsets[-1]))
                logits[..., begin:end].index_put_(where, scores)
        assert logits is not None
        return logits

    def hide_others(self, logits: torch.Tensor) -> torch.Tensor:
        """Set the logits of all other vocabularies to minus infinity, whatever the model did to them since."""
        rows = logits.shape[0]
        if rows not in self._others:
            plan = self._plan_for(rows).unsqueeze(-1)
            offsets = torch.tensor(self.offsets)
            ids = torch.arange(self.offsets[-1])
            other = (ids < offsets[plan]) | (ids >= offsets[plan + 1])
            other = other if other.dim() == logits.dim() else other.unsqueeze(1)
            self._others[rows] = other.to(logits.device)
        other = self._others[rows]
        return logits.masked_fill(other, -torch.inf) if logits.requires_grad else logits.masked_fill_(other, -torch.inf)

    def _plan_for(self, rows: int) -> torch.Tensor:
        return self.plan.repeat_interleave(rows // self.plan.shape[0], dim=0)

    def _places_for(self, rows: int, device: torch.device) -> list[tuple[torch.Tensor, ...]]:
        if rows not in self._places:
            plan = self._plan_for(rows)
            places = [(plan == index).nonzero(as_tuple=True) for index in range(len(self.tables))]
            self._places[rows] = [tuple(part.to(device) for part in where) for where in places]
        return self._places[rows]


def make_mixed_view(backbone: Any, slots: Slots, joined: Joined, plan: torch.Tensor) -> Any:
    """Return the backbone as a model over joined vocabularies, for one call with one plan.

    ``backbone`` may be a view of it (with a LoRA of its own). See `MixedOutput` for ``plan``.
    """
    twin = twin_paths(backbone, slots)
    embedding, output = backbone.get_submodule(slots.input), backbone.get_submodule(slots.output)
    mixed = MixedOutput(output, joined, plan)
    replace_module(twin, slots.input, MixedEmbedding(embedding, joined))
    replace_module(twin, slots.output, mixed)
    config = copy.deepcopy(twin.config)
    config.get_text_config().vocab_size = joined.offsets[-1]
    for name in (slots.input, slots.output):
        for module in path_modules(twin, name):
            if module.__dict__.get("config") is backbone.config:
                module.config = config
    twin.generation_config = joint_generation_config(joined)
    share_capture(twin, backbone, slots)

    def hide(_module: nn.Module, _inputs: Any, outputs: Any) -> Any:
        outputs.logits = mixed.hide_others(outputs.logits)
        return outputs

    twin.register_forward_hook(hide)
    return twin


def joint_generation_config(joined: Joined) -> Any:
    """Return the first head's generation settings in joined ids, ending at the end of any head."""
    generation = copy.deepcopy(joined.heads[0].generation_config)
    ends: list[int] = []
    suppressed: list[int] = []
    starts: list[int] = []
    for head, offset in zip(joined.heads, joined.offsets, strict=False):
        moved = shifted(head.generation_config.to_dict(), offset)
        ends += [i + offset for i in head.end_ids]
        suppressed += moved.get("suppress_tokens") or []
        starts += moved.get("begin_suppress_tokens") or []
    generation.eos_token_id = ends or None
    generation.pad_token_id = joined.heads[0].pad_id
    generation.bos_token_id = None
    generation.suppress_tokens = suppressed or None
    generation.begin_suppress_tokens = starts or None
    for key in ("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "sequence_bias"):
        setattr(generation, key, None)
    return generation


def pad_rows(rows: Sequence[Sequence[int]], pads: Sequence[int], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and attention mask, both int64 (rows, longest), each row padded with its own id."""
    longest = max((len(row) for row in rows), default=0)
    ids = torch.empty((len(rows), longest), dtype=torch.int64)
    mask = torch.zeros((len(rows), longest), dtype=torch.int64)
    for place, (row, pad) in enumerate(zip(rows, pads, strict=True)):
        fill = [pad] * (longest - len(row))
        ids[place] = torch.tensor([*fill, *row] if left else [*row, *fill], dtype=torch.int64)
        mask[place, len(fill) :] = 1
        if not left:
            mask[place] = mask[place].flip(0)
    return ids, mask
