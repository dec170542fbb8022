"""One checkpoint with the vocabularies of several heads, one after the other: what engines without heads can serve.

Token t of a head has the id ``offset + t``. A request brings the ids of its prompt, and is kept to its head's ids by
whatever the engine calls allowed tokens; ``hydra_vocabulary.json`` says which those are, and ``heads/NAME`` holds each
head's tokenizer and a generation_config.json in the new ids, with all other ids suppressed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from vocabtransfer.checkpoint import VocabTensor, WriteReport, plan_checkpoint
from vocabtransfer.checkpoint.plan import Link
from vocabtransfer.checkpoint.rewrite import NewTables, write_planned
from vocabtransfer.checkpoint.settings import ID_LISTS, ID_SUFFIXES, SEQUENCE_LISTS
from vocabtransfer.checkpoint.tying import with_tying
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.hydra.export import head_rows
from vocabtransfer.hydra.folder import HEADS_NAME, HydraFolder, open_hydra
from vocabtransfer.hydra.settings import resized
from vocabtransfer.hydra.stored import GENERATION_NAME, StoredHead
from vocabtransfer.public import public
from vocabtransfer.tokenization.save import save_tokenizer

VOCABULARY_NAME = "hydra_vocabulary.json"


@public
def export_concatenated(
    hydra: str | Path | HydraFolder,
    target: str | Path,
    *,
    heads: Sequence[str] | None = None,
    link: Link = "hard",
    overwrite: bool = False,
) -> WriteReport:
    """Write one checkpoint with the stacked tables of several heads (default: all), the first at offset 0.

    The folder's own tokenizer is the first head's. Its logits over a head's ids are that head's, up to the rounding of
    a larger matrix product. LoRAs bound to heads cannot go along: such heads are refused. Raises `UsageError` for a
    head given twice or none, `VocabTransferError` as `export_head` does.
    """
    folder = hydra if isinstance(hydra, HydraFolder) else open_hydra(hydra)
    chosen = [folder.head(name) for name in (heads if heads is not None else folder.names())]
    names = [head.name for head in chosen]
    if not names or len(set(names)) < len(names):
        raise UsageError("give each head to concatenate once, and at least one.")
    for head in chosen:
        folder.check_fits(head.config, head.name)
        if head.adapter is not None:
            raise VocabTransferError(f"the head {head.name!r} has a LoRA of its own, which the others must not see.")
    offsets = offsets_of([head.config.rows for head in chosen])
    total = offsets[-1]
    source = with_tying(folder.checkpoint, all(head.config.tied for head in chosen))

    def rows(tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
        parts = []
        for head, begin, end in zip(chosen, offsets, offsets[1:], strict=False):
            low, high = max(start, begin), min(stop, end)
            if low < high:
                parts.append(head_rows(head, tensor, low - begin, high - begin))
        return torch.cat(parts)

    generation = {
        head.name: shifted(generation_of(head), offset) for head, offset in zip(chosen, offsets, strict=False)
    }
    extras = _head_files(chosen, offsets, generation)
    plan = plan_checkpoint(
        source,
        Path(target).expanduser(),
        vocabulary_size=total,
        link=link,
        extra_bytes=sum(map(len, extras.values())),
    )
    tables = NewTables(
        chosen[0].tokenizer,
        rows,
        {**resized(source.config, source.layout.rows, total), "tie_word_embeddings": source.layout.tied},
        chosen[0].generation_config,
        final_generation_config=_joint(generation),
    )
    facts = {"source": source.name}
    return write_planned(source, plan, tables=tables, extra_files=extras, facts=facts, overwrite=overwrite)


def offsets_of(sizes: Sequence[int]) -> list[int]:
    """Return where each vocabulary starts when they are laid end to end, and the total.

    >>> offsets_of([5, 3])
    [0, 5, 8]
    """
    offsets = [0]
    for size in sizes:
        offsets.append(offsets[-1] + size)
    return offsets


def shifted(settings: Mapping[str, Any], offset: int) -> dict[str, Any]:
    """Return generation settings with every id in them moved by ``offset``.

    >>> shifted({"eos_token_id": [1, 2], "top_k": 5}, 10)
    {'eos_token_id': [11, 12], 'top_k': 5}
    """

    def move(value: Any) -> Any:
        if isinstance(value, list):
            return [move(item) for item in value]
        return value + offset if type(value) is int and value >= 0 else value

    keys = (*ID_LISTS, *SEQUENCE_LISTS)
    return {key: move(v) if key.endswith(ID_SUFFIXES) or key in keys else v for key, v in settings.items()}


def generation_of(head: StoredHead) -> dict[str, Any]:
    """Return a head's generation settings; where it has none, the ids that its part of config.json names."""
    if head.generation_config is not None:
        return dict(head.generation_config)
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {key: head.config.values[key] for key in keys if head.config.values.get(key) is not None}


def _joint(generation: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the first head's settings, ending at the end of any head."""
    joint = dict(next(iter(generation.values())))
    ends = [i for settings in generation.values() for i in _as_list(settings.get("eos_token_id"))]
    suppressed = [i for settings in generation.values() for i in _as_list(settings.get("suppress_tokens"))]
    if ends:
        joint["eos_token_id"] = ends
    if suppressed:
        joint["suppress_tokens"] = suppressed
    return joint


def _head_files(
    heads: Sequence[StoredHead], offsets: Sequence[int], generation: Mapping[str, Mapping[str, Any]]
) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    table: dict[str, Any] = {}
    with TemporaryDirectory() as scratch:
        for head, offset in zip(heads, offsets, strict=False):
            settings = generation[head.name]
            end = offset + head.config.vocabulary
            table[head.name] = {
                "offset": offset,
                "allowed": [offset, end],
                "eos": _as_list(settings.get("eos_token_id")),
                "language": head.config.language,
                "folder": f"{HEADS_NAME}/{head.name}",
            }
            others = [i for i in range(offsets[-1]) if not offset <= i < end]
            own = sorted({*others, *_as_list(settings.get("suppress_tokens"))})
            place = f"{HEADS_NAME}/{head.name}"
            files[f"{place}/{GENERATION_NAME}"] = json.dumps(
                {**settings, "suppress_tokens": own}, sort_keys=True
            ).encode()
            for name in save_tokenizer(head.tokenizer, Path(scratch) / head.name):
                files[f"{place}/{name}"] = (Path(scratch) / head.name / name).read_bytes()
    listing = {
        "comment": "Token t of a head has the id offset + t; allowed is [first, one past the last] of its ids.",
        "rows": offsets[-1],
        "heads": table,
    }
    files[VOCABULARY_NAME] = (json.dumps(listing, ensure_ascii=False, indent=2) + "\n").encode()
    return files


def _as_list(value: Any) -> list[int]:
    return list(value) if isinstance(value, list) else [value] if type(value) is int else []
