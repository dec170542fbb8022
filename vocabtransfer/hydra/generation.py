"""Generating with heads: one for everything, one to read and one to write, or another one for each row."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from vocabtransfer.errors import UsageError
from vocabtransfer.hydra.encoding import split_rows
from vocabtransfer.hydra.loaded import LoadedHead
from vocabtransfer.hydra.mixed import Joined, MixedEmbedding, joint_generation_config, pad_rows

#: Settings that hold ids, which mean nothing where rows have different vocabularies.
ID_ARGUMENTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids", "sequence_bias",
                "forced_bos_token_id", "forced_eos_token_id", "pad_token_id", "bos_token_id", "eos_token_id")  # fmt: skip


def generate_across(reader: Any, writer: Any, head: LoadedHead, input_ids: torch.Tensor, **settings: Any) -> Any:
    """Read a prompt with one head and write with another. ``reader`` and ``writer`` are views; ids are the reader's.

    Returns what the writer's ``generate`` returns for embeddings: new tokens only, in the writer's ids.
    """
    mask = settings.pop("attention_mask", None)
    if mask is None:
        mask = _mask(input_ids, head)
    with torch.no_grad():
        embeddings = reader.get_input_embeddings()(input_ids)
    return writer.generate(inputs_embeds=embeddings, attention_mask=mask, **settings)


def generate_joined(
    joined: Joined,
    outputs: Sequence[str],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    view_of: Callable[[str], Any],
    mixed_view_of: Callable[[str, torch.Tensor], Any],
    embedding: Any,
    **settings: Any,
) -> Any:
    """Generate from joined ids; row i of the result is in the ids of the head ``outputs[i]``, new tokens only.

    ``view_of(name)`` gives the view of a head, ``mixed_view_of(name, plan)`` a view over joined ids with the body that
    goes with the head, and ``embedding`` is the backbone's embedding module. Rows whose heads have bodies of their own
    (a LoRA) are generated apart from the others.
    """
    if len(outputs) != input_ids.shape[0]:
        raise UsageError(f"{input_ids.shape[0]} rows need as many output heads, not {len(outputs)}.")
    groups = body_groups(joined, outputs)
    if len(groups) > 1:
        if settings.get("return_dict_in_generate") or settings.get("streamer") is not None:
            raise UsageError("rows with different LoRAs can neither be streamed nor returned as one dictionary.")
        parts: list[Any] = []
        for rows in groups:
            part = generate_joined(
                joined,
                [outputs[row] for row in rows],
                input_ids[rows],
                attention_mask[rows],
                view_of=view_of,
                mixed_view_of=mixed_view_of,
                embedding=embedding,
                **settings,
            )
            parts.append(part)
        return _rejoin(parts, groups, [joined.heads[joined.index(name)].pad_id for name in outputs])
    if len(set(outputs)) == 1:
        table = MixedEmbedding(embedding, joined)
        with torch.no_grad():
            embeddings = table(input_ids)
        return view_of(outputs[0]).generate(inputs_embeds=embeddings, attention_mask=attention_mask, **settings)
    return _generate_by_row(joined, outputs, input_ids, attention_mask, mixed_view_of, settings)


def body_groups(joined: Joined, outputs: Sequence[str]) -> list[list[int]]:
    """Return row numbers grouped by the LoRA of their output head: rows of a group can go through one body."""
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(outputs):
        head = joined.heads[joined.index(name)]
        groups.setdefault(head.name if head.adapter is not None else "", []).append(row)
    return list(groups.values())


def _generate_by_row(
    joined: Joined,
    outputs: Sequence[str],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    mixed_view_of: Callable[[str, torch.Tensor], Any],
    settings: dict[str, Any],
) -> Any:
    for key in ID_ARGUMENTS:
        if settings.get(key) is not None:
            raise UsageError(f"{key} cannot be given where rows write with different heads: ids differ by row.")
    if settings.get("streamer") is not None:
        raise UsageError("rows that write with different heads cannot be streamed.")
    given = settings.pop("generation_config", None)
    if given is not None:
        base = joint_generation_config(joined)
        settings["generation_config"] = merged = type(base).from_dict(given.to_dict())
        for key in ID_ARGUMENTS:
            setattr(merged, key, getattr(base, key, None))
    plan = torch.tensor([joined.index(name) for name in outputs])
    view = mixed_view_of(outputs[0], plan)
    result = view.generate(input_ids=input_ids, attention_mask=attention_mask, **settings)
    length = input_ids.shape[1]
    if isinstance(result, torch.Tensor):
        return split_rows(result[:, length:], joined, outputs)
    result.sequences = split_rows(result.sequences[:, length:], joined, outputs)
    return result


def _rejoin(parts: list[torch.Tensor], groups: Sequence[Sequence[int]], pads: Sequence[int]) -> torch.Tensor:
    rows: dict[int, list[list[int]]] = {}
    for part, numbers in zip(parts, groups, strict=True):
        factor = part.shape[0] // len(numbers)
        for place, number in enumerate(numbers):
            rows[number] = part[place * factor : (place + 1) * factor].tolist()
    ordered = [row for number in sorted(rows) for row in rows[number]]
    factor = len(ordered) // len(pads)
    ids, _ = pad_rows(ordered, [pads[i // factor] for i in range(len(ordered))], left=False)
    return ids.to(parts[0].device)


def _mask(input_ids: torch.Tensor, head: LoadedHead) -> torch.Tensor:
    """Guess the attention mask as transformers does: the padding id is padding, unless it ends texts too."""
    pad = head.generation_config.pad_token_id
    if pad is None or pad in head.end_ids:
        return torch.ones_like(input_ids)
    return torch.ne(input_ids, pad).long()
