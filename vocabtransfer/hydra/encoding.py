"""Text in several vocabularies made into the input of a Hydra: segments, rows, masks and labels."""

from collections.abc import Callable, Collection, Sequence
from operator import index
from typing import Any

import torch
from transformers import BatchEncoding

from vocabtransfer.errors import UsageError
from vocabtransfer.hydra.loaded import LoadedHead
from vocabtransfer.hydra.mixed import Joined, pad_rows

#: A head's name, and a text to encode with its tokenizer (or the ids of its tokens).
Segment = tuple[str, str | Sequence[int]]
IGNORED = -100


def encode_rows(
    rows: Sequence[Sequence[Segment]],
    outputs: Sequence[str],
    get: Callable[[str], LoadedHead],
    *,
    train: Collection[str] = (),
    end: bool = False,
    left: bool = True,
) -> BatchEncoding:
    """Encode rows of segments into joined ids; see `HydraForCausalLM.encode`."""
    names = sorted({name for row in rows for name, _ in row} | set(outputs))
    unknown = sorted(set(train) - set(names))
    if unknown:
        raise UsageError(f"no segment is in {unknown[0]!r}, so it cannot be trained on.")
    joined = Joined(tuple(get(name) for name in names))
    pieces = _encode_segments(rows, joined)
    ids: list[list[int]] = []
    labels: list[list[int]] = []
    for row, encoded in zip(rows, pieces, strict=True):
        row_ids: list[int] = []
        row_labels: list[int] = []
        for (name, _), local in zip(row, encoded, strict=True):
            offset = joined.offsets[joined.index(name)]
            moved = [i + offset for i in local]
            row_ids += moved
            row_labels += moved if name in train else [IGNORED] * len(moved)
        if end and row:
            last = row[-1][0]
            closing = _closing(joined, last)
            row_ids += closing
            row_labels += closing if last in train else [IGNORED] * len(closing)
        if not row_ids:
            raise UsageError("a row has no tokens: give it some text.")
        row_labels[0] = IGNORED  # nothing comes before it that could predict it
        ids.append(row_ids)
        labels.append(row_labels)
    pads = [joined.heads[joined.index(name)].pad_id + joined.offsets[joined.index(name)] for name in outputs]
    input_ids, mask = pad_rows(ids, pads, left=left)
    data: dict[str, Any] = {"input_ids": input_ids, "attention_mask": mask}
    if train:
        data["labels"], _ = pad_rows(labels, [IGNORED] * len(rows), left=left)
    data["heads"] = joined.names
    data["output_heads"] = tuple(outputs)
    return BatchEncoding(data)


def as_rows(segments: Sequence[Any]) -> list[list[Segment]]:
    """Return a batch of rows from what users give: one row of segments, or several; `UsageError` for anything else."""
    items = list(segments)
    if items and all(_is_segment(item) for item in items):
        items = [items]
    if not items:
        raise UsageError("there are no rows: give at least one segment.")
    for row in items:
        if not isinstance(row, list | tuple) or not row or not all(_is_segment(item) for item in row):
            raise UsageError('segments are pairs such as ("english", "Hello"), in a list, or a list of such lists.')
    return [list(row) for row in items]


def _is_segment(item: Any) -> bool:
    if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[0], str):
        return False
    return isinstance(item[1], str) or (isinstance(item[1], list | tuple) and all(type(i) is int for i in item[1]))


def _encode_segments(rows: Sequence[Sequence[Segment]], joined: Joined) -> list[list[list[int]]]:
    """Encode all texts, each head's in one go: only a row's first segment gets what its tokenizer puts in front."""
    result: list[list[list[int]]] = [[[] for _ in row] for row in rows]
    for head in joined.heads:
        for first in (True, False):
            places = [
                (r, s)
                for r, row in enumerate(rows)
                for s, (name, content) in enumerate(row)
                if name == head.name and (s == 0) == first and isinstance(content, str)
            ]
            texts = [str(rows[r][s][1]) for r, s in places]
            encoded = head.encode(texts, special=first) if texts else []
            for (r, s), ids in zip(places, encoded, strict=True):
                result[r][s] = _open_ended(ids, head) if first else ids
    for r, row in enumerate(rows):
        for s, (name, content) in enumerate(row):
            if not isinstance(content, str):
                result[r][s] = _checked(content, joined.heads[joined.index(name)])
    return result


def _open_ended(ids: list[int], head: LoadedHead) -> list[int]:
    """Take off the end that some tokenizers add: the row goes on."""
    ends = set(head.end_ids)
    while len(ids) > 1 and ids[-1] in ends:
        ids = ids[:-1]
    return ids


def _checked(ids: Sequence[Any], head: LoadedHead) -> list[int]:
    values = [int(i) for i in ids]
    wrong = next((i for i in values if not 0 <= i < head.rows), None)
    if wrong is not None:
        raise UsageError(f"the head {head.name!r} has no id {wrong}: its ids are 0 to {head.rows - 1}.")
    return values


def _closing(joined: Joined, name: str) -> list[int]:
    index = joined.index(name)
    ends = joined.heads[index].end_ids
    if not ends:
        raise UsageError(f"the head {name!r} has no end token, so a text cannot be closed with it.")
    return [ends[0] + joined.offsets[index]]


def split_rows(ids: torch.Tensor, joined: Joined, outputs: Sequence[str]) -> torch.Tensor:
    """Turn generated joined ids into each row's own ids; what belongs to no row's head becomes its padding id.

    ``ids`` is int64 (rows, length), with a whole number of rows for each output head, in their order.
    """
    factor = ids.shape[0] // len(outputs)
    result = ids.clone()
    for row in range(ids.shape[0]):
        index = joined.index(outputs[row // factor])
        begin, end = joined.offsets[index], joined.offsets[index + 1]
        inside = (ids[row] >= begin) & (ids[row] < end)
        result[row] = torch.where(inside, ids[row] - begin, joined.heads[index].pad_id)
    return result


def id_rows(ids: Any) -> list[Any]:
    """Return ids, one sequence or several, as lists of whole numbers; `UsageError` for anything else."""

    def numbers(row: Any) -> list[int]:
        return [index(i) for i in row]

    try:
        rows = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        several = bool(rows) and not hasattr(rows[0], "__index__")
        return [numbers(row) for row in rows] if several else numbers(rows)
    except TypeError:
        raise UsageError(f"ids are whole numbers, one sequence or several, not {ids!r:.60}.") from None


def decode_rows(rows: list[Any], names: Sequence[str], head: Callable[[str], LoadedHead]) -> Any:
    """Return the text of one sequence of ids, or the texts of several; ``names`` are their heads, one for each or group."""
    if names and (not rows or not isinstance(rows[0], list)):
        return head(names[0]).decode(rows)
    if not names or len(rows) % len(names):
        raise UsageError(f"{len(rows)} sequences cannot be divided among {len(names)} heads.")
    factor = len(rows) // len(names)
    return [head(names[i // factor]).decode(row) for i, row in enumerate(rows)]


def one_a_row(given: str | Sequence[str] | None, default: list[str]) -> list[str]:
    """Return an output head for each row: the one given, those given, or the default ones."""
    outputs = default if given is None else [given] * len(default) if isinstance(given, str) else list(given)
    if len(outputs) != len(default):
        raise UsageError(f"{len(default)} rows need one output head, or as many, not {len(outputs)}.")
    return outputs
