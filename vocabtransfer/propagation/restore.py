"""Give an adapted chat model back what the original chat model knew: ElChat (arXiv 2412.11704).

Adapting a chat model directly on unlabelled text of the target language wears its chat abilities down, most in the
outer layers, which such training changes. Those layers are brought back part of the way by spherical interpolation
(SLERP) towards the original chat model, tensor by tensor, and the rows of control tokens, chat markers above all, are
taken from it as they were. No base model is needed.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vocabtransfer.checkpoint import Checkpoint, TensorInfo, VocabTensor, WriteReport
from vocabtransfer.checkpoint.plan import Link
from vocabtransfer.checkpoint.shards import Change, row_blocks
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.progress import track
from vocabtransfer.propagation.body import Destination, rows_of, write_result
from vocabtransfer.propagation.checks import body, check_same_body, is_arithmetic, same_bytes
from vocabtransfer.propagation.facts import rounded
from vocabtransfer.propagation.tables import TableRows
from vocabtransfer.propagation.tokens import Joined, join_tokenizers, taught_rows
from vocabtransfer.public import public
from vocabtransfer.reprs import brief

FACTS_FILE = "restore.json"
# A tensor of a numbered layer: what stands before the number tells stacks apart (encoder and decoder).
LAYER = re.compile(r"(?P<stack>(.+?\.)?(layers|layer|h|blocks?))\.(?P<number>\d+)\.")
# Nearly parallel tensors are interpolated on the straight line: the formula would divide zero by zero.
PARALLEL = 0.9995


@dataclass(frozen=True)
class Slerp:
    """Spherical interpolation between two tensors seen as one long vector: ``first * a + second * b``."""

    start: TensorInfo
    end: TensorInfo
    first: float
    second: float
    cosine: float

    def __call__(self, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start..stop`` of the interpolated tensor, float64."""
        return self.first * rows_of(self.start, start, stop) + self.second * rows_of(self.end, start, stop)


@dataclass(frozen=True, eq=False)
class RestoreResult:
    """An adapted chat model with outer layers and control tokens restored, not yet written.

    Attributes:
        adapted: the adapted chat model, which is written.
        original: the chat model it was made from.
        joined: the tokenizer of the result.
        taken: int64, one a token of the result: the original model's row that is taken, or -1.
        changes: the interpolated tensors by name.
        facts: JSON values: layers, rows restored, and the cosine of each tensor pair.
    """

    adapted: Checkpoint
    original: Checkpoint
    joined: Joined
    taken: NDArray[np.int64]
    changes: Mapping[str, Slerp]
    facts: Mapping[str, Any]

    def __repr__(self) -> str:
        return brief(self, adapted=self.adapted.name, original=self.original.name, changed=len(self.changes))

    def rows(self, tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start..stop`` of a new table, float64 ``(stop - start, hidden)``; ``(stop - start,)`` for a bias."""
        mine = TableRows(self.adapted.tensors[tensor.name])
        part = next(own.name for own in self.original.layout.tensors if own.part == tensor.part)
        theirs = TableRows(self.original.tensors[part])
        taken = self.taken[start:stop]
        out = np.empty((stop - start, mine.hidden))
        kept = np.flatnonzero(taken < 0)
        out[kept] = mine.take(np.minimum(kept + start, mine.rows - 1))
        out[taken >= 0] = theirs.take(taken[taken >= 0])
        return torch.from_numpy(out[:, 0] if tensor.part == "output_bias" else out)

    @public
    def save(
        self, target: str | Path, *, link: Link = "hard", overwrite: bool = False, pad_to_multiple_of: int = 1
    ) -> WriteReport:
        """Write the model; see `vocabtransfer.checkpoint.write_checkpoint`. ``restore.json`` beside it has the facts."""
        facts = json.dumps(self.facts, ensure_ascii=False, indent=2) + "\n"
        changes: Mapping[str, Change] = self.changes
        return write_result(
            self.adapted,
            Destination(Path(target), link, overwrite, pad_to_multiple_of),
            changes,
            tokenizer=self.joined.tokenizer,
            rows=self.rows,
            extra_files={FACTS_FILE: facts.encode()},
            inputs=(self.adapted, self.original),
        )


@public
def restore_layers(
    adapted: Checkpoint, original: Checkpoint, *, layers: int = 2, weight: float = 0.5, template_rows: bool = True
) -> RestoreResult:
    """Interpolate the first and last ``layers`` layers of an adapted chat model back towards the original chat model.

    Args:
        adapted: the chat model after training on the target language.
        original: the chat model before.
        layers: how many layers at each end of each stack; 0 restores none.
        weight: share of the original model: 0 keeps the adapted layers, 1 takes the original's.
        template_rows: take the rows of control tokens from the original model, and append those that are missing.

    Raises:
        UsageError: more layers than there are, a weight outside 0..1, or the same model twice.
        VocabTransferError: the models have other bodies.
    """
    if not 0 <= weight <= 1:
        raise UsageError(f"the share of the original model is a number from 0 to 1, not {weight}.")
    check_same_body(original, adapted, "original", "adapted")
    names = outer_layers(adapted, layers)
    joined = join_tokenizers(adapted.tokenizer, original.tokenizer, append_missing=template_rows)
    theirs = original.vocabulary
    taken = taught_rows(joined.vocabulary, _size(adapted), theirs, np.full(len(theirs), template_rows))
    changes = {}
    for name in track(names, "comparing the outer layers"):
        mine, other = adapted.tensors[name], original.tensors[name]
        if weight and not same_bytes(mine, other) and is_arithmetic(name, mine) and is_arithmetic(name, other):
            changes[name] = slerp(mine, other, weight)
    if not changes and not _restores_rows(adapted, original, taken):
        raise UsageError(
            f"the outer layers and control tokens of {adapted.name} are those of {original.name} already, so there is "
            "nothing to restore: give the adapted model and the chat model it was made from."
        )
    facts = {
        "reference": "arXiv 2412.11704",
        "adapted": adapted.name,
        "original": original.name,
        "layers": layers,
        "weight": weight,
        "rows_restored": int((taken >= 0).sum()),
        "appended": list(joined.appended),
        "cosines": {name: rounded(change.cosine) for name, change in changes.items()},
    }
    return RestoreResult(adapted, original, joined, taken, changes, facts)


def outer_layers(checkpoint: Checkpoint, count: int) -> list[str]:
    """Return the names of all tensors in the first and last ``count`` layers of each stack.

    Raises `UsageError` when a stack has fewer layers or the count is negative.
    """
    if count < 0:
        raise UsageError(f"the number of layers to restore is 0 or more, not {count}.")
    found = {name: match for name in body(checkpoint) if (match := LAYER.match(name))}
    last: dict[str, int] = {}
    for match in found.values():
        last[match["stack"]] = max(last.get(match["stack"], 0), int(match["number"]))
    if count and not last:
        raise VocabTransferError(f"{checkpoint.name} has no numbered layers, so none can be restored.")
    for stack, number in last.items():
        if count > number + 1:
            raise UsageError(f"{checkpoint.name} has {number + 1} layers in {stack!r}, so {count} cannot be restored.")
    return sorted(
        name
        for name, match in found.items()
        if int(match["number"]) < count or int(match["number"]) > last[match["stack"]] - count
    )


def slerp(start: TensorInfo, end: TensorInfo, weight: float) -> Slerp:
    """Return the tensor a share of ``weight`` on the way from ``start`` to ``end``, along the arc between their directions.

    Sums run over the whole tensor in float64, in blocks. Tensors that are nearly parallel or zero take the straight line.
    """
    dot = ours = theirs = 0.0
    for begin, stop in row_blocks(start.shape):
        first, second = rows_of(start, begin, stop).reshape(-1), rows_of(end, begin, stop).reshape(-1)
        dot += float(first @ second)
        ours += float(first @ first)
        theirs += float(second @ second)
    cosine = dot / math.sqrt(ours * theirs) if ours and theirs else 1.0
    if abs(cosine) > PARALLEL:
        return Slerp(start, end, 1 - weight, weight, cosine)
    angle = math.acos(cosine)
    sine = math.sin(angle)
    return Slerp(start, end, math.sin((1 - weight) * angle) / sine, math.sin(weight * angle) / sine, cosine)


def _size(checkpoint: Checkpoint) -> int:
    return max(checkpoint.tokenizer.get_vocab().values(), default=-1) + 1


def _restores_rows(adapted: Checkpoint, original: Checkpoint, taken: NDArray[np.int64]) -> bool:
    """Tell whether any row that is taken from the original model differs from the adapted model's."""
    rows = np.flatnonzero(taken >= 0)
    if len(rows) and rows[-1] >= adapted.layout.rows:
        return True
    pairs = {part.part: part.name for part in reversed(original.layout.tensors)}
    return any(
        not np.array_equal(
            TableRows(adapted.tensors[tensor.name]).take(rows),
            TableRows(original.tensors[pairs[tensor.part]]).take(taken[rows]),
        )
        for tensor in adapted.layout.tensors
    )
