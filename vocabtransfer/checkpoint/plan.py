"""What writing a checkpoint would do to each file, and how many bytes that takes: known before anything is written."""

import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from vocabtransfer.checkpoint.checkpoint import Checkpoint
from vocabtransfer.checkpoint.layout import VocabTensor
from vocabtransfer.checkpoint.tensors import INDEX_NAME, SINGLE_NAME, Shard, TensorInfo, build_header
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.copying import Link as Link
from vocabtransfer.files.copying import can_link, check_link
from vocabtransfer.files.json_files import read_json
from vocabtransfer.files.manifest import MANIFEST_NAME
from vocabtransfer.files.staging import settled

Action = Literal["rewrite", "link", "copy"]

# Kept beside the weights: licences, and what processors and sentence-transformers read. All else of the folder speaks
# of the old vocabulary, is another format of the same weights, or is the old model's description.
KEPT_FILES = re.compile(
    r"(licen[cs]e|notice|copying|use_policy|legal)[^/]*"
    r"|(preprocessor|processor|image_processor|video_preprocessor|feature_extractor)_config\.json"
    r"|modules\.json|config_sentence_transformers\.json|sentence_[a-z]+_config\.json"
    r"|(quantize|quantization)_config\.json",
    re.IGNORECASE,
)
# Where the vocabulary stays, all files of the folder do, but for these: the same weights in another format would be
# those of the old model.
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ckpt")
# Room for tokenizer and settings, which are not made yet when the plan is: generous, and small beside the tables.
BYTES_PER_TOKEN = 256
SETTINGS_BYTES = 1 << 20


@dataclass(frozen=True)
class PlannedFile:
    """One file of the result: its name there, where it comes from, what happens to it, and its size in bytes."""

    name: str
    source: Path
    action: Action
    bytes: int


@dataclass(frozen=True)
class WritePlan:
    """Everything that `write_checkpoint` would do.

    ``rows`` includes ``padded_rows``. ``bytes_needed`` is what must be free on the target's disk: rewritten and copied
    files exactly, plus room for tokenizer, settings and extra files. ``left_out`` names files of the source that the
    result will not have. ``bytes_least`` is the size of the new tables alone: no way of writing could do with less.
    """

    target: Path
    rows: int
    padded_rows: int
    files: tuple[PlannedFile, ...]
    bytes_written: int
    bytes_linked: int
    bytes_least: int
    bytes_needed: int
    bytes_free: int
    left_out: tuple[str, ...]


def plan_checkpoint(
    source: Checkpoint,
    target: Path,
    *,
    vocabulary_size: int | None,
    changed: Collection[str] = (),
    link: Link = "hard",
    pad_to_multiple_of: int = 1,
    extra_bytes: int = 0,
) -> WritePlan:
    """Say what `write_checkpoint` would do for a vocabulary of this size, without writing anything.

    Without a size the vocabulary stays, and so does every file that speaks of it. ``changed`` names the tensors that get
    other values.

    Raises `UsageError` for another kind of link, a padding multiple below one or an empty vocabulary, and
    `VocabTransferError` for a target inside the source or around it.
    """
    check_link(link)
    if pad_to_multiple_of < 1:
        raise UsageError(f"the vocabulary cannot be padded to a multiple of {pad_to_multiple_of}: give 1 or more.")
    if vocabulary_size is not None and vocabulary_size < 1:
        raise UsageError("the new vocabulary is empty.")
    target = settled(target)
    _refuse_overlap(source.path, target)
    given = vocabulary_size or source.layout.rows
    rows = None if vocabulary_size is None else -(-given // pad_to_multiple_of) * pad_to_multiple_of
    disk = _existing_parent(target)
    files = [*_plan_shards(source, rows, changed, link, disk), *_plan_extras(source, rows is None, link, disk)]
    written = sum(file.bytes for file in files if file.action != "link")
    kept = {file.name for file in files} | {shard.file.name for shard in source.shards}
    return WritePlan(
        target=target,
        rows=rows or given,
        padded_rows=(rows or given) - given,
        files=tuple(files),
        bytes_written=written,
        bytes_linked=sum(file.bytes for file in files if file.action == "link"),
        bytes_least=sum(new_table_bytes(source, rows or given)),
        bytes_needed=written + given * BYTES_PER_TOKEN + SETTINGS_BYTES + extra_bytes,
        bytes_free=shutil.disk_usage(disk).free,
        left_out=tuple(sorted(_top_files(source.path) - kept - {"config.json", "generation_config.json", INDEX_NAME})),
    )


def check_space(plan: WritePlan) -> None:
    """Raise `VocabTransferError` with both figures when the target's disk has no room for the plan."""
    if plan.bytes_needed > plan.bytes_free:
        raise VocabTransferError(
            f"{plan.target} needs {plan.bytes_needed / 1e9:.2f} GB, but its disk has {plan.bytes_free / 1e9:.2f} GB "
            "free: make room, or choose another disk."
        )


def new_shape(info: TensorInfo, tensor: VocabTensor, rows: int) -> tuple[int, ...]:
    """Return the shape that a vocabulary-shaped tensor has with ``rows`` rows, and its spare ones."""
    return (*info.shape[: tensor.axis], rows + tensor.spare, *info.shape[tensor.axis + 1 :])


def new_table_bytes(source: Checkpoint, rows: int) -> Iterator[int]:
    """Yield the size of every vocabulary-shaped tensor with ``rows`` rows, and its spare ones."""
    for tensor in source.layout.tensors:
        info = source.tensors[tensor.name]
        yield info.nbytes // info.shape[tensor.axis] * (rows + tensor.spare)


def shard_entries(source: Checkpoint, shard: Shard, rows: int | None) -> list[tuple[str, str, tuple[int, ...]]]:
    """List name, dtype and new shape of the tensors that a rewritten shard holds, without stale duplicates."""
    vocabulary = {tensor.name: tensor for tensor in source.layout.tensors}
    entries = []
    for info in shard.tensors:
        if info.name in source.tensors and source.tensors[info.name].file != shard.file:
            continue
        shape = info.shape
        if rows is not None and info.name in vocabulary:
            shape = new_shape(info, vocabulary[info.name], rows)
        entries.append((info.name, info.dtype, shape))
    return entries


def shard_metadata(shard: Shard) -> Mapping[str, str]:
    """Return the strings for a rewritten shard's header: as they were, with the format that loaders insist on."""
    return {"format": "pt", **shard.metadata}


def _plan_shards(
    source: Checkpoint, rows: int | None, changed: Collection[str], link: Link, disk: Path
) -> Iterator[PlannedFile]:
    # A table that the index no longer points to is rewritten, too: nobody should find the old one.
    touched = {*changed} | {tensor.name for tensor in source.layout.tensors if rows is not None}
    for shard in source.shards:
        name = shard.file.name if source.sharded else SINGLE_NAME
        if any(info.name in touched for info in shard.tensors):
            head, lengths = build_header(shard_entries(source, shard, rows), shard_metadata(shard))
            yield PlannedFile(name, shard.file, "rewrite", len(head) + sum(length for _, length in lengths))
        else:
            yield _plan_kept(name, shard.file, link, disk)


def _plan_extras(source: Checkpoint, all_files: bool, link: Link, disk: Path) -> Iterator[PlannedFile]:
    names = {name for name in _top_files(source.path) if all_files or KEPT_FILES.fullmatch(name)}
    if all_files:
        shards = {shard.file.name for shard in source.shards}
        names -= {*shards, MANIFEST_NAME, *(name for name in names if _is_other_weights(name))}
    if "auto_map" in source.config:
        names |= {name for name in _top_files(source.path) if name.endswith(".py")}
    for folder in _module_folders(source.path):
        names |= {path.relative_to(source.path).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in sorted(names):
        yield _plan_kept(name, source.path / name, link, disk)


def _is_other_weights(name: str) -> bool:
    return name.startswith(".") or PurePosixPath(name).suffix in OTHER_WEIGHTS


def _plan_kept(name: str, file: Path, link: Link, disk: Path) -> PlannedFile:
    # Small files are copied: an editor that saves in place must not reach into the source.
    linked = link == "hard" and name.endswith(".safetensors") and can_link(file, disk)
    return PlannedFile(name, file, "link" if linked else "copy", file.stat().st_size)


def _module_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders of sentence-transformers modules (pooling, dense ...) that modules.json lists."""
    listing = folder / "modules.json"
    if not listing.is_file():
        return
    for path in _module_paths(listing):
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise VocabTransferError(f"{listing} points outside its folder: {path!r}.")
        if pure.parts and (folder / pure).is_dir():
            yield folder / pure


def _module_paths(listing: Path) -> list[str]:
    modules = read_json(listing, kind=list)
    return [module["path"] for module in modules if isinstance(module, dict) and isinstance(module.get("path"), str)]


def _top_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def _refuse_overlap(source: Path, target: Path) -> None:
    source, target = source.resolve(), target.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise VocabTransferError(f"{target} and the source {source} overlap: choose a place outside the source.")


def _existing_parent(target: Path) -> Path:
    parent = target.parent
    while not parent.exists():
        parent = parent.parent
    return parent
