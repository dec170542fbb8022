"""Do these three models belong together? Every answer that is no names the first thing that differs."""

from collections.abc import Mapping
from itertools import zip_longest

import numpy as np
import torch

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.checkpoint.layout import FLOATS
from vocabtransfer.checkpoint.tensors import TensorInfo, load_rows, load_tensor
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.vocabulary import Kind, Vocabulary

COMPARED_ELEMENTS = 1 << 22
# Whole numbers that quantised weights are packed into.
PACKED = ("U8", "I8", "I32", "U32")


def check_family(base: Checkpoint, adapted: Checkpoint, instruct: Checkpoint) -> None:
    """Check that ``adapted`` and ``instruct`` are two descendants of ``base``.

    Raises:
        UsageError: two of the models look swapped, or base and adapted are the same model.
        VocabTransferError: the models have other bodies, tables, or (base and instruct) other vocabularies.
    """
    check_same_body(base, instruct, "base", "instruct")
    check_same_body(base, adapted, "base", "adapted")
    if _same_strings(base, adapted) and _same_tables(base, adapted):
        raise UsageError(
            f"the adapted model {adapted.name} has the tokens and tables of the base model {base.name}, so there is "
            "nothing to propagate: give the model that was trained on the target language."
        )
    difference = vocabulary_difference(base, instruct)
    if difference is not None:
        _refuse_swapped(base, adapted, instruct)
        raise VocabTransferError(
            f"the base model {base.name} and the instruct model {instruct.name} have different vocabularies: "
            f"{difference}; give the base model that the instruct model was made from."
        )
    if base.tokenizer.chat_template and not instruct.tokenizer.chat_template:
        raise UsageError(
            f"the base model {base.name} has a chat template and the instruct model {instruct.name} has none: the two "
            "look swapped."
        )


def check_same_body(first: Checkpoint, second: Checkpoint, first_role: str, second_role: str) -> None:
    """Raise `VocabTransferError` unless both models have the same tensors, apart from the number of table rows."""
    ours, theirs = f"the {first_role} model {first.name}", f"the {second_role} model {second.name}"
    if first.config.get("model_type") != second.config.get("model_type"):
        raise VocabTransferError(
            f"{ours} is of type {first.config.get('model_type')} and {theirs} of type "
            f"{second.config.get('model_type')}: both must be of one family."
        )
    if first.layout.hidden != second.layout.hidden:
        raise VocabTransferError(
            f"{ours} has rows of {first.layout.hidden} numbers and {theirs} of {second.layout.hidden}: both must be of "
            "one family and size."
        )
    for role, each in ((ours, first), (theirs, second)):
        odd = each.layout.odd_table
        if odd is not None:
            raise VocabTransferError(f"{role} has {odd!r} over the vocabulary, which is not propagated: not supported.")
    if first.layout.tied != second.layout.tied:
        tied, untied = (ours, theirs) if first.layout.tied else (theirs, ours)
        raise VocabTransferError(f"{tied} ties its head to the input table and {untied} does not: tie or untie both.")
    mine, other = body(first), body(second)
    for name in sorted(mine.keys() ^ other.keys()):
        holder, lacking = (ours, theirs) if name in mine else (theirs, ours)
        raise VocabTransferError(f"{holder} has a tensor {name!r} that {lacking} lacks: both must be of one family.")
    for name in sorted(mine):
        if mine[name].shape != other[name].shape:
            raise VocabTransferError(
                f"{name!r} has shape {list(mine[name].shape)} in {ours} and {list(other[name].shape)} in {theirs}: both "
                "must be of one family and size."
            )
    if (first.layout.bias_name is None) != (second.layout.bias_name is None):
        has, lacks = (ours, theirs) if first.layout.bias_name else (theirs, ours)
        raise VocabTransferError(f"{has} has a bias at its head and {lacks} has none: both must be of one family.")


def body(checkpoint: Checkpoint) -> Mapping[str, TensorInfo]:
    """Return all tensors that do not depend on the vocabulary."""
    tables = {tensor.name for tensor in checkpoint.layout.tensors}
    return {name: info for name, info in checkpoint.tensors.items() if name not in tables}


def is_arithmetic(name: str, info: TensorInfo) -> bool:
    """Tell whether a tensor can be added and interpolated; False for counters, masks and other whole numbers.

    Raises `VocabTransferError` for quantised weights, whose numbers mean nothing without their scales.
    """
    if info.dtype in FLOATS:
        return True
    if info.dtype.startswith("F") or info.dtype in PACKED:
        raise VocabTransferError(
            f"{name!r} is quantised ({info.dtype}), so layers cannot be changed: use an unquantised checkpoint, or keep "
            "the layers as they are."
        )
    return False


def vocabulary_difference(base: Checkpoint, other: Checkpoint) -> str | None:
    """Say where the ordinary tokens of ``other`` are not those of ``base``, or None when they are.

    Control tokens may differ in name and number, and ``other`` may have further added tokens.
    """
    ours, theirs = base.vocabulary, other.vocabulary
    added = {token.content for token in other.tokenizer.added_tokens_decoder.values()}
    pairs = enumerate(zip_longest(ours.strings, theirs.strings))
    for i in [i for i, (mine, its) in pairs if mine != its]:
        mine, its = _string(ours, i), _string(theirs, i)
        ordinary = i < len(ours) and ours.kinds[i] <= Kind.BYTE
        foreign = i < len(theirs) and theirs.kinds[i] <= Kind.BYTE and its not in added
        if ordinary or foreign:
            return f"id {i} is {_shown(mine)} in {base.name} and {_shown(its)} in {other.name}"
    return None


def same_bytes(first: TensorInfo, second: TensorInfo) -> bool:
    """Tell whether two tensors have the same dtype, shape and bytes; stops reading at the first difference."""
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    if first.file == second.file and first.begin == second.begin:
        return True
    if not first.shape:
        return _equal(first, second, None)
    width = max(1, int(np.prod(first.shape[1:], dtype=np.int64)))
    size = max(1, COMPARED_ELEMENTS // width)
    bounds = [(start, min(start + size, first.shape[0])) for start in range(0, first.shape[0], size)]
    return all(_equal(first, second, bound) for bound in bounds)


def _equal(first: TensorInfo, second: TensorInfo, bound: tuple[int, int] | None) -> bool:
    ours, theirs = (load_tensor(info) if bound is None else load_rows(info, *bound) for info in (first, second))
    return torch.equal(ours.reshape(-1).view(torch.uint8), theirs.reshape(-1).view(torch.uint8))


def _refuse_swapped(base: Checkpoint, adapted: Checkpoint, instruct: Checkpoint) -> None:
    """Raise `UsageError` where the vocabularies would fit if two of the models changed places."""
    if vocabulary_difference(adapted, instruct) is None:
        names = f"the base model {base.name} and the adapted model {adapted.name}"
        reason = f"{instruct.name} has the vocabulary of {adapted.name} and not of {base.name}"
    elif vocabulary_difference(base, adapted) is None:
        names = f"the adapted model {adapted.name} and the instruct model {instruct.name}"
        reason = f"{adapted.name} has the vocabulary of {base.name} and {instruct.name} has not"
    else:
        return
    raise UsageError(f"{names} look swapped: {reason}.")


def _same_strings(first: Checkpoint, second: Checkpoint) -> bool:
    return first.vocabulary.strings == second.vocabulary.strings


def _same_tables(first: Checkpoint, second: Checkpoint) -> bool:
    names = [(tensor.name, tensor.part) for tensor in first.layout.tensors]
    others = {tensor.part: tensor.name for tensor in reversed(second.layout.tensors)}
    return all(same_bytes(first.tensors[name], second.tensors[others[part]]) for name, part in names)


def _string(vocabulary: Vocabulary, i: int) -> str | None:
    return vocabulary.strings[i] if i < len(vocabulary) and vocabulary.kinds[i] != Kind.HOLE else None


def _shown(string: str | None) -> str:
    return "nothing" if string is None else repr(string)
