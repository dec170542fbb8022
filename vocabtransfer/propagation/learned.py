"""Learned Embedding Propagation (arXiv 2412.21140): from an adapted base model to an instruct model of its family.

The base model's tables were adapted to another vocabulary by training. Fine-tuning to instructions moved the same base
tables elsewhere; a linear map ``D`` describes that move, and ``adapted @ D`` are tables for the instruct model's body:

- ``swap``: ``D`` is the identity;
- ``overlap``: ``D = argmin ||base[C] D - instruct[C]||``, ``C`` the base tokens that are also target tokens;
- ``conversion``: ``D = argmin ||(T base) D - T instruct||``, row ``t`` of ``T`` the uniform mean over the base
  tokenizer's pieces of target token ``t``.

One ``D`` a table, without a constant term; tied models have one table. A head's bias, which the paper does not speak of,
is moved by what the instruct model did to the biases of the token's pieces.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint, VocabTensor, WriteReport
from vocabtransfer.checkpoint.plan import Link
from vocabtransfer.checkpoint.shards import Change
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.progress import step
from vocabtransfer.propagation.adapters import LoraDonor
from vocabtransfer.propagation.body import Destination, task_arithmetic, write_result
from vocabtransfer.propagation.checks import check_family
from vocabtransfer.propagation.facts import group_rows, table_facts
from vocabtransfer.propagation.rows import NewTable, RowPlan, base_pieces, changed_specials, mean_weights
from vocabtransfer.propagation.solver import LinearMap, fit
from vocabtransfer.propagation.tables import TableRows
from vocabtransfer.propagation.tokens import Joined, join_tokenizers, taught_rows
from vocabtransfer.public import public
from vocabtransfer.reprs import brief
from vocabtransfer.token_map import TokenMap

Method = Literal["conversion", "overlap", "swap"]
METHODS: tuple[Method, ...] = get_args(Method)
FACTS_FILE = "propagation.json"


@dataclass(frozen=True, eq=False)
class PropagationResult:
    """New tables for the instruct model, not yet written.

    Attributes:
        plan: the three models, where each row comes from, and the fitted maps.
        joined: the tokenizer of the result, and what was appended to it.
        method: conversion, overlap or swap.
        changes: the tensors of the body that change, by name.
        facts: JSON values: see `propagate`.
        notes: sentences a person should read.
    """

    plan: RowPlan
    joined: Joined
    method: Method
    changes: Mapping[str, Change]
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return brief(self, method=self.method, tokens=len(self.tokenizer), changed=len(self.changes))

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the result."""
        return self.joined.tokenizer

    @property
    def maps(self) -> Mapping[str, LinearMap]:
        """The fitted map of each table by part: "input" and "output", or "shared"; empty for swap."""
        return self.plan.maps

    @cached_property
    def _open(self) -> dict[str, NewTable]:
        return {}

    def rows(self, tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start..stop`` of a new tensor: ``(stop - start, hidden)``, or ``(stop - start,)`` for a bias.

        In float32 where all tables are stored in 16 bits, else in float64.
        """
        if tensor.name not in self._open:
            self._open.clear()  # tables are written one after the other, and each holds a map of its own
            self._open[tensor.name] = self.plan.new_table(tensor)
        return self._open[tensor.name].rows(start, stop)

    @public
    def save(
        self, target: str | Path, *, link: Link = "hard", overwrite: bool = False, pad_to_multiple_of: int = 1
    ) -> WriteReport:
        """Write the instruct model with its new tables; see `vocabtransfer.checkpoint.write_checkpoint`.

        ``propagation.json`` beside it holds the facts. Raises `VocabTransferError` also when the target overlaps one of
        the three models.
        """
        facts = json.dumps(self.facts, ensure_ascii=False, indent=2) + "\n"
        return write_result(
            self.plan.instruct,
            Destination(Path(target), link, overwrite, pad_to_multiple_of),
            self.changes,
            tokenizer=self.tokenizer,
            rows=self.rows,
            extra_files={FACTS_FILE: facts.encode()},
            inputs=(self.plan.base, self.plan.adapted, self.plan.instruct),
        )


@public
def propagate(
    base: Checkpoint,
    adapted: Checkpoint | LoraDonor,
    instruct: Checkpoint,
    *,
    method: Method = "conversion",
    body_lambda: float | None = None,
    ridge: float = 0.0,
    append_missing: bool = True,
) -> PropagationResult:
    """Carry an adapted vocabulary to an instruct model.

    The result has the adapted model's tokens, the instruct model's body, chat template, roles and settings, and rows
    ``adapted @ D``; control tokens that the instruct model learnt keep its rows. The facts have, for each table, rows
    fitted, rank, condition, the relative residuals ``||X D - Y|| / ||Y||`` before (``D = I``) and after, and for each
    group of rows the same residuals, median norms of the adapted and of the new rows, and their mean cosine.

    Args:
        base: the base model.
        adapted: the base model after adaptation to the target language, or a LoRA adapter (`open_adapted`).
        instruct: the instruct model made from the same base model.
        method: conversion, overlap or swap.
        body_lambda: the body becomes ``instruct + lambda * (adapted - base)`` (task arithmetic); 0 keeps it. Not given,
            it is 0, but 1 for a LoRA donor, whose layer part belongs to its embedding part.
        ridge: pulls ``D`` towards the identity, as a share of the mean variance a direction has; 0 is least squares.
        append_missing: append tokens that only the instruct model has (chat markers) with their rows.

    Raises:
        UsageError: unknown method, negative ridge, models that look swapped, or nothing adapted.
        VocabTransferError: the models are not of one family, or there is nothing to fit.
    """
    _check_options(method, ridge, body_lambda)
    donor = adapted if isinstance(adapted, LoraDonor) else None
    tables = adapted.checkpoint if isinstance(adapted, LoraDonor) else adapted
    weight = body_lambda if body_lambda is not None else float(donor is not None)
    with step("comparing the three models"):
        check_family(base, tables, instruct)
    with step("reading the vocabularies"):
        joined = join_tokenizers(
            tables.tokenizer, instruct.tokenizer, known=base.vocabulary, append_missing=append_missing
        )
        token_map, copies = base_pieces(base, tables, instruct)
        changed = changed_specials(base, instruct)
        taken = taught_rows(joined.vocabulary, token_map.n_target, instruct.vocabulary, changed)
    plan = RowPlan(base, tables, instruct, token_map, copies.filled, taken, {})
    plan = replace(plan, maps=_fit(plan, method, copies, ridge))
    with step("comparing the layers"):
        if donor is not None:
            changes = donor.changes(base, instruct, weight)
        else:
            changes = task_arithmetic(base, tables, instruct, weight)
    notes = _notes(plan, joined, weight, changes, donor)
    facts = _facts(plan, joined, method, ridge, weight, changes, donor)
    return PropagationResult(plan, joined, method, changes, {**facts, "notes": list(notes)}, notes)


def _check_options(method: str, ridge: float, body_lambda: float | None) -> None:
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}: choose {', '.join(METHODS)}.")
    if not np.isfinite(ridge) or ridge < 0:
        raise UsageError(f"the ridge is a number from 0 up, not {ridge}.")
    if body_lambda is not None and not np.isfinite(body_lambda):
        raise UsageError(f"the weight of the body's change is a finite number, not {body_lambda}.")


def _fit(plan: RowPlan, method: Method, copies: TokenMap, ridge: float) -> dict[str, LinearMap]:
    if method == "swap":
        return {}
    weights = rows_to_fit(method, plan.token_map, copies)
    if weights.shape[0] == 0:
        lacking = "token in common with" if method == "overlap" else "token that is spelled with trained tokens of"
        raise VocabTransferError(
            f"{plan.adapted.name} has no {lacking} {plan.base.name}, so there is nothing to fit: take the method swap."
        )
    maps: dict[str, LinearMap] = {}
    for tensor in plan.tables:
        base = TableRows(plan.info(plan.base, tensor.part))
        maps[tensor.part] = fit(weights, base, TableRows(plan.info(plan.instruct, tensor.part)), ridge)
    return maps


def rows_to_fit(method: Method, token_map: TokenMap, copies: TokenMap) -> sparse.csr_array:
    """Return the rows of ``X`` and ``Y`` as weights over table rows, CSR float64, every row summing to 1."""
    if method == "conversion":
        return mean_weights(token_map)[np.flatnonzero(token_map.filled)]
    columns: NDArray[np.int32] = np.unique(copies.weights.indices)
    parts = (np.ones(len(columns)), (np.arange(len(columns)), columns))
    return sparse.csr_array(parts, shape=(len(columns), copies.n_source))


def _facts(
    plan: RowPlan,
    joined: Joined,
    method: Method,
    ridge: float,
    weight: float,
    changes: Mapping[str, Change],
    donor: LoraDonor | None,
) -> dict[str, Any]:
    groups = group_rows(plan)
    with step("measuring the new rows"):
        tables = {tensor.part: table_facts(plan, tensor, groups) for tensor in plan.tables}
    body: dict[str, Any] = {"lambda": weight, "tensors_changed": len(changes)}
    if donor is not None:
        body |= {"lora_updates": len(donor.updates), "lora_replaced": len(donor.replaced)}
    return {
        "method": method,
        "reference": "arXiv 2412.21140",
        "base": plan.base.name,
        "adapted": plan.adapted.name,
        "instruct": plan.instruct.name,
        "ridge": ridge,
        "vocabulary": len(joined.vocabulary),
        "rows_by_group": {name: len(ids) for name, ids in groups.items()},
        "appended": list(joined.appended),
        "tables": tables,
        "body": body,
    }


def _notes(
    plan: RowPlan, joined: Joined, weight: float, changes: Mapping[str, Change], donor: LoraDonor | None
) -> tuple[str, ...]:
    notes = []
    for part, found in plan.maps.items():
        hidden = plan.instruct.layout.hidden
        if found.rank < hidden:
            notes.append(
                f"The {found.rows:,} rows fitted determine {found.rank:,} of {hidden:,} directions of the {part} table; "
                "in the others the adapted rows stay as they are."
            )
    if joined.missing:
        names = ", ".join(joined.missing[:5])
        notes.append(f"The result lacks {len(joined.missing)} tokens that the instruct model has: {names}.")
    if weight and not changes:
        part = "adapter has no layer part" if donor is not None else "adapted model's body is the base model's"
        notes.append(f"The {part}, so the body stays the instruct model's whatever its weight.")
    return tuple(notes)
