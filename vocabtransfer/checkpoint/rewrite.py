"""Write a checkpoint anew: with another vocabulary, with other values of some tensors, or both.

Everything else of the source stays byte for byte. All ways of writing end in `write_planned`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint.auto_tokenizer import PLAIN_MODULE, keep_ids
from vocabtransfer.checkpoint.checkpoint import Checkpoint
from vocabtransfer.checkpoint.plan import Link, WritePlan, check_space, plan_checkpoint
from vocabtransfer.checkpoint.settings import renumber_settings
from vocabtransfer.checkpoint.shards import Change, Rows, write_index, write_json, write_shards
from vocabtransfer.checkpoint.tensors import INDEX_NAME
from vocabtransfer.checkpoint.verify import verify_checkpoint
from vocabtransfer.errors import UsageError
from vocabtransfer.files.copying import place_file
from vocabtransfer.files.manifest import MANIFEST_NAME, write_manifest
from vocabtransfer.files.staging import check_target, staged_folder
from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.save import save_tokenizer

Check = Callable[[Path], object]

GIGABYTE = 1e9


@dataclass(frozen=True)
class WriteReport:
    """What was written. ``notes`` has a sentence for everything a person should know (dropped ids, shared storage)."""

    path: Path
    bytes_written: int
    bytes_linked: int
    tensors_rewritten: tuple[str, ...]
    padded_rows: int
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NewTables:
    """Another vocabulary for a checkpoint: its tokenizer, the rows of its tables, and settings that speak of its ids.

    ``rows`` is asked for ascending blocks, once per block and tensor. ``final_generation_config`` replaces the generation
    settings after verification: it may name ids that the tokenizer lacks.
    """

    tokenizer: PreTrainedTokenizerFast
    rows: Rows
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any] | None
    final_generation_config: Mapping[str, Any] | None = None


@public
def write_checkpoint(
    source: Checkpoint,
    target: Path,
    *,
    tokenizer: PreTrainedTokenizerFast,
    rows: Rows,
    changes: Mapping[str, Change] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    link: Link = "hard",
    overwrite: bool = False,
    pad_to_multiple_of: int = 1,
    check: Check | None = None,
) -> WriteReport:
    """Write ``source`` with the vocabulary of ``tokenizer`` into the folder ``target``.

    ``rows(tensor, start, stop)`` gives rows ``start`` to ``stop`` of the new table: (stop - start, width) for tables,
    (stop - start,) for biases, in any float dtype (integers for a lookup); stop is at most the size of the new
    vocabulary. It is called in ascending blocks, once per block and tensor. Values are rounded to the storage dtype of
    the source's tensor. ``changes`` has other values for tensors of the body: ``changes[name](start, stop)`` gives rows
    ``start`` to ``stop`` of its first axis, (stop - start, ...).

    Shards in which nothing changes are hard-linked (``link="hard"``; to whatever the source is made of, the hub's cache
    too) or copied. Padding rows, up to a multiple of ``pad_to_multiple_of``, are the mean of all other rows, whose logit
    is never the highest, with a bias that rules them out where the head has one, and are suppressed in
    generation_config.json. ``extra_files`` (name -> content) come on top.

    The folder is filled beside ``target``, verified, given to ``check`` (which raises what is wrong with it), flushed,
    and renamed: whatever happens, ``target`` is the old state or the new one. Raises `VocabTransferError` when the
    target exists (unless ``overwrite``, for folders that this function wrote), is being written by another process,
    overlaps the source, has too little room, when a value is not finite, and when verification fails.
    """
    extras = dict(extra_files or {})
    changes = changes or {}
    count = max(tokenizer.get_vocab().values(), default=-1) + 1
    plan = plan_checkpoint(
        source,
        target,
        vocabulary_size=count,
        changed=changes.keys(),
        link=link,
        pad_to_multiple_of=pad_to_multiple_of,
        extra_bytes=sum(map(len, extras.values())),
    )
    check_target(plan.target, overwrite)
    settings = renumber_settings(
        source.config,
        source.generation_config,
        source.vocabulary,
        tokenizer,
        source_name=source.name,
        old_rows=source.layout.vocabulary_rows,
        rows=plan.rows,
    )
    return write_planned(
        source,
        plan,
        tables=NewTables(tokenizer, rows, settings.config, settings.generation_config),
        changes=changes,
        extra_files=extras,
        facts={"vocabtransfer": settings.config["vocabtransfer"]["version"], "source": source.name},
        overwrite=overwrite,
        check=check,
        notes=settings.notes,
    )


def update_checkpoint(
    source: Checkpoint,
    target: Path,
    values: Mapping[str, torch.Tensor],
    *,
    extra_files: Mapping[str, bytes],
    facts: Mapping[str, str],
    link: Link = "hard",
    overwrite: bool = False,
) -> WriteReport:
    """Write ``source`` into the folder ``target`` with some tensors' values replaced: what training changes.

    ``values`` (by name in the file, shape of the tensor there, any float dtype) are rounded to the storage dtype. All
    other files of the source keep their bytes, tokenizer and settings too; ``extra_files`` (name -> content) replace
    those of the same name; ``facts`` go into the manifest. Written and refused as by `write_checkpoint`.
    """
    plan = plan_checkpoint(
        source,
        target,
        vocabulary_size=None,
        changed=values.keys(),
        link=link,
        extra_bytes=sum(map(len, extra_files.values())),
    )
    plan = replace(plan, files=tuple(file for file in plan.files if file.name not in extra_files))
    changes = {name: _given(source, name, value) for name, value in values.items()}
    return write_planned(source, plan, changes=changes, extra_files=extra_files, facts=facts, overwrite=overwrite)


def write_planned(
    source: Checkpoint,
    plan: WritePlan,
    *,
    tables: NewTables | None = None,
    changes: Mapping[str, Change] | None = None,
    extra_files: Mapping[str, bytes],
    facts: Mapping[str, str],
    overwrite: bool,
    check: Check | None = None,
    notes: tuple[str, ...] = (),
) -> WriteReport:
    """Carry out a plan: new tables where there are ``tables``, ``changes`` of other tensors, all else as it was.

    ``facts`` go into the manifest, ``notes`` into the report. See `write_checkpoint` for what is raised.
    """
    started = time.perf_counter()
    changes = changes or {}
    check_target(plan.target, overwrite)
    _check_extra_names(extra_files, plan, tables)
    check_space(plan)
    with staged_folder(plan.target, overwrite) as staging:
        sums = write_shards(source, staging, plan, tables.rows if tables is not None else None, changes)
        linked = place_kept(staging, plan)
        if tables is not None:
            _write_settings(source, staging, plan, tables)
        for name, content in extra_files.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(content)
        with step("verifying the checkpoint"):
            verify_checkpoint(staging, source, tables.tokenizer if tables else load_tokenizer(source.path), sums)
        if check is not None:
            check(staging)
        if tables is not None and tables.final_generation_config is not None:
            write_json(staging / "generation_config.json", tables.final_generation_config)
        write_manifest(staging, dict(facts))
        written = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file()) - linked
    if linked:
        notes += (
            f"{linked / GIGABYTE:.2f} GB are hard links to files of {source.path}: programs that change weights in "
            "place would change both; `link='copy'` makes the folder independent.",
        )
    names = tuple(tensor.name for tensor in source.layout.tensors) if tables is not None else ()
    names += tuple(sorted(changes))
    return WriteReport(plan.target, written, linked, names, plan.padded_rows, time.perf_counter() - started, notes)


def place_kept(staging: Path, plan: WritePlan) -> int:
    """Link or copy the files that stay as they are; returns the bytes that are links."""
    linked = 0
    for file in plan.files:
        if file.action == "rewrite":
            continue
        (staging / file.name).parent.mkdir(parents=True, exist_ok=True)
        with step(f"placing {file.name}"):
            if place_file(file.source, staging / file.name, "hard" if file.action == "link" else "copy"):
                linked += file.bytes
    return linked


def _write_settings(source: Checkpoint, staging: Path, plan: WritePlan, tables: NewTables) -> None:
    if source.sharded:
        write_index(source, staging, plan.rows)
    write_json(staging / "config.json", tables.config)
    save_tokenizer(tables.tokenizer, staging)
    keep_ids(staging, tables.tokenizer)
    if tables.generation_config is not None:
        write_json(staging / "generation_config.json", tables.generation_config)


def _given(source: Checkpoint, name: str, value: torch.Tensor) -> Change:
    info = source.tensors[name]
    if tuple(value.shape) != info.shape:
        raise ValueError(f"{name!r} came with shape {tuple(value.shape)} for {info.shape}")
    values = value if info.shape else value.reshape(1)
    return lambda start, stop: values[start:stop]


def _check_extra_names(extras: Mapping[str, bytes], plan: WritePlan, tables: NewTables | None) -> None:
    taken = {file.name for file in plan.files} | {MANIFEST_NAME, INDEX_NAME, "config.json", "generation_config.json"}
    if tables is not None:
        taken |= {
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "chat_template.jinja",
            f"{PLAIN_MODULE}.py",
        }
    for name in extras:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts or name in taken:
            raise UsageError(f"an extra file cannot be called {name!r}: the name is taken, or no name.")
