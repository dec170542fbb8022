"""Add a head to a Hydra: written by itself, beside the others; nothing else of the folder is touched."""

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint, TensorInfo, VocabTensor
from vocabtransfer.checkpoint.auto_tokenizer import find_difference
from vocabtransfer.checkpoint.layout import Part
from vocabtransfer.checkpoint.plan import BYTES_PER_TOKEN, SETTINGS_BYTES
from vocabtransfer.checkpoint.settings import renumber_settings
from vocabtransfer.checkpoint.shards import write_table
from vocabtransfer.checkpoint.tensors import build_header, load_rows, nbytes, read_shard
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.copying import place_file, write_all
from vocabtransfer.files.json_files import read_json
from vocabtransfer.files.staging import staged_folder
from vocabtransfer.hydra.fingerprint import backbone_fingerprint
from vocabtransfer.hydra.folder import HydraFolder, open_hydra
from vocabtransfer.hydra.head_config import CONFIG_NAME, HeadConfig
from vocabtransfer.hydra.names import check_free
from vocabtransfer.hydra.settings import vocabulary_values
from vocabtransfer.hydra.stored import (
    ADAPTER_NAME,
    GENERATION_NAME,
    WEIGHTS_NAME,
    StoredHead,
    Table,
    head_of_checkpoint,
    read_stored_head,
)
from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.surgery.explanation import SOURCE_STRINGS
from vocabtransfer.surgery.transfer import SHIFT_FILE, TransferResult
from vocabtransfer.token_map import MAP_FILE, OUTPUT_MAP_FILE
from vocabtransfer.tokenization.save import save_tokenizer

Give = Callable[[VocabTensor, int, int], torch.Tensor]

# What a built checkpoint has beside its weights to explain its rows; it goes with the head.
PROVENANCE_FILES = (MAP_FILE, OUTPUT_MAP_FILE, SHIFT_FILE, SOURCE_STRINGS, "report.json", "report.html")
CHUNK = 1 << 22
_PARTS: Mapping[Table, Part] = {"input": "input", "output": "output", "output_bias": "output_bias"}
_TABLES: Mapping[Part, Table] = {"input": "input", "output": "output", "output_bias": "output_bias"}


@dataclass(frozen=True, eq=False)
class NewHead:
    """A head that is about to be written.

    ``tables`` holds, for each table, where its dtype and row shape are taken from and the tensor that ``give`` is
    asked for; ``give(tensor, start, stop)`` returns rows up to ``count``, and the rest of ``config.rows`` is padding.
    """

    config: HeadConfig
    tokenizer: PreTrainedTokenizerFast
    generation_config: Mapping[str, Any] | None
    tables: Mapping[Table, tuple[TensorInfo, VocabTensor]]
    give: Give
    count: int
    files: Mapping[str, bytes]


@public
def add_head(
    hydra: str | Path | HydraFolder,
    name: str,
    result: TransferResult,
    *,
    language: str | None = None,
    pad_to_multiple_of: int = 1,
    extra_files: Mapping[str, bytes] | None = None,
    force: bool = False,
) -> StoredHead:
    """Write the new vocabulary of a transfer as a head of a Hydra whose backbone is the transfer's source.

    ``language`` is a BCP 47 tag to remember; ``extra_files`` (name -> content) come to lie beside the head. The rows
    are those that ``result.save`` would write, bit for bit. Raises `UsageError` for a name that is taken or no name,
    `VocabTransferError` when the backbone is another one (unless ``force``) or the disk has no room.
    """
    folder = hydra if isinstance(hydra, HydraFolder) else open_hydra(hydra)
    name = check_free(name, folder.names(), folder.path)
    if pad_to_multiple_of < 1:
        raise UsageError(f"the vocabulary cannot be padded to a multiple of {pad_to_multiple_of}: give 1 or more.")
    source = result.source
    like = head_of_checkpoint(source, name, backbone_fingerprint(source))
    count = max(result.tokenizer.get_vocab().values(), default=-1) + 1
    rows = -(-count // pad_to_multiple_of) * pad_to_multiple_of
    settings = renumber_settings(
        source.config,
        source.generation_config,
        source.vocabulary,
        result.tokenizer,
        source_name=source.name,
        old_rows=source.layout.rows,
        rows=rows,
    )
    config = replace(
        like.config,
        rows=rows,
        vocabulary=count,
        values={**vocabulary_values(settings.config), "tie_word_embeddings": source.layout.tied},
        language=language,
        method={"name": result.method.name, "calibrated": result.initialization.shift is not None},
        evidence={"rows_by_rule": result.token_map.counts_by_rule()},
    )
    new = NewHead(
        config=config,
        tokenizer=result.tokenizer,
        generation_config=settings.generation_config,
        tables=_tables(source, like),
        give=result.rows,
        count=count,
        files={**result.files(), **(extra_files or {})},
    )
    return write_head(folder, name, new, force=force)


@public
def add_head_from_checkpoint(
    hydra: str | Path | HydraFolder,
    name: str,
    checkpoint: Checkpoint,
    *,
    language: str | None = None,
    force: bool = False,
) -> StoredHead:
    """Take the vocabulary of a finished checkpoint as a head: its tables byte for byte, its tokenizer and settings.

    The body must be the Hydra's backbone, and is not read otherwise. Errors as for `add_head`.
    """
    folder = hydra if isinstance(hydra, HydraFolder) else open_hydra(hydra)
    name = check_free(name, folder.names(), folder.path)
    stored = head_of_checkpoint(checkpoint, name, backbone_fingerprint(checkpoint))
    files = {
        file: (checkpoint.path / file).read_bytes() for file in PROVENANCE_FILES if (checkpoint.path / file).is_file()
    }
    method, evidence, found = _provenance(files)
    tables = _tables(checkpoint, stored)

    def give(tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
        info = checkpoint.tensors[tensor.name]
        if tensor.part == "output_bias":
            return load_rows(info, start, stop).reshape(-1)
        return load_rows(info, start, stop)

    new = NewHead(
        config=replace(stored.config, language=language or found, method=method, evidence=evidence),
        tokenizer=stored.tokenizer,
        generation_config=stored.generation_config,
        tables=tables,
        give=give,
        count=stored.config.rows,
        files=files,
    )
    return write_head(folder, name, new, force=force)


def add_loaded_head(
    hydra: str | Path | HydraFolder, name: str, head: StoredHead, tables: Mapping[Table, torch.Tensor]
) -> StoredHead:
    """Write tables in memory (trained ones, say) as a new head with everything else from the head they came from.

    ``tables`` are rounded to the dtype in which the head's own tables are stored. Errors as for `add_head`.
    """
    folder = hydra if isinstance(hydra, HydraFolder) else open_hydra(hydra)
    name = check_free(name, folder.names(), folder.path)
    files = {file: (head.folder / file).read_bytes() for file in PROVENANCE_FILES if (head.folder / file).is_file()}
    places = {table: (info, VocabTensor(table, _PARTS[table], 0)) for table, info in head.tables.items()}

    def give(tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
        return tables[_TABLES[tensor.part]][start:stop]

    new = NewHead(
        config=replace(head.config, forced=False),
        tokenizer=head.tokenizer,
        generation_config=head.generation_config,
        tables=places,
        give=give,
        count=head.config.rows,
        files=files,
    )
    written = write_head(folder, name, new, force=head.config.forced)
    return attach_adapter(folder, name, head.adapter) if head.adapter is not None else written


def attach_adapter(hydra: str | Path | HydraFolder, name: str, adapter: str | Path) -> StoredHead:
    """Bind a LoRA for the backbone (a PEFT folder with safetensors) to a head: it is active whenever the head writes.

    Raises `VocabTransferError` when the head has one already, is the backbone's own, or the folder is no adapter.
    """
    folder = hydra if isinstance(hydra, HydraFolder) else open_hydra(hydra)
    head = folder.head(name)
    source = Path(adapter)
    wanted = [source / "adapter_config.json", source / "adapter_model.safetensors"]
    for file in wanted:
        if not file.is_file():
            raise VocabTransferError(f"{source} is not a LoRA adapter with safetensors: it has no {file.name}.")
    if head.own:
        raise VocabTransferError(f"{name!r} is the backbone's own head: merge the adapter into the backbone instead.")
    if head.adapter is not None:
        raise VocabTransferError(f"the head {name!r} has an adapter already: remove {head.adapter} first.")
    read_json(wanted[0])
    read_shard(wanted[1])
    with staged_folder(head.folder / ADAPTER_NAME) as staging:
        for file in wanted:
            place_file(file, staging / file.name, "copy")
    return folder.head(name)


def write_head(folder: HydraFolder, name: str, new: NewHead, *, force: bool = False) -> StoredHead:
    """Write a head beside the others, verify it, and make it appear in one step. Errors as for `add_head`."""
    folder.check_fits(new.config, name, force=force)
    own = folder.checkpoint.layout
    if ("output_bias" in new.tables) != (own.bias_name is not None):
        raise VocabTransferError(
            f"the head {name!r} and the backbone of {folder.path} differ in having an output bias."
        )
    _check_room(folder, name, new)
    with step(f"writing the head {name}"), staged_folder(folder.heads_path / name, any_case=True) as staging:
        check_free(name, folder.names(), folder.path)  # from here on nobody else can take the name
        sums = _write_tables(staging / WEIGHTS_NAME, new)
        save_tokenizer(new.tokenizer, staging)
        if new.generation_config is not None:
            (staging / GENERATION_NAME).write_bytes(_json(new.generation_config))
        for file, content in new.files.items():
            _check_extra(staging, file)
            (staging / file).parent.mkdir(parents=True, exist_ok=True)
            (staging / file).write_bytes(content)
        forced = new.config.backbone != folder.fingerprint
        config = replace(new.config, forced=forced, files=dict(_hashes(staging)))
        (staging / CONFIG_NAME).write_bytes(config.to_json())
        _verify(staging, name, new, sums)
    return folder.head(name)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _tables(checkpoint: Checkpoint, head: StoredHead) -> dict[Table, tuple[TensorInfo, VocabTensor]]:
    by_name = {tensor.name: tensor for tensor in checkpoint.layout.tensors}
    return {table: (info, by_name[info.name]) for table, info in head.tables.items()}


def _write_tables(path: Path, new: NewHead) -> dict[Table, int]:
    """Stream the tables into a safetensors file; returns the CRC-32 of each."""
    rows = new.config.rows
    entries = [(table, info.dtype, (rows, *info.shape[1:])) for table, (info, _) in new.tables.items()]
    head, order = build_header(entries, {"format": "pt"})
    sums: dict[Table, int] = {}
    with path.open("xb", buffering=0) as stream:
        write_all(stream, memoryview(head))
        by_name: dict[str, Table] = {table: table for table in new.tables}
        for name, _ in order:
            info, tensor = new.tables[by_name[name]]
            sums[by_name[name]] = write_table(stream, info, tensor, rows, new.count, new.give)
    return sums


def _verify(staging: Path, name: str, new: NewHead, sums: Mapping[Table, int]) -> None:
    written = read_stored_head(staging, name)
    for table, info in written.tables.items():
        if _checksum(info) != sums[table]:
            raise VocabTransferError(f"the head {name!r} failed its check: {table!r} on disk is not what was written.")
    if difference := find_difference(staging, new.tokenizer):
        raise VocabTransferError(f"the head {name!r} failed its check: {difference}.")
    if written.tokenizer.get_vocab() != new.tokenizer.get_vocab():
        raise VocabTransferError(f"the head {name!r} failed its check: its tokenizer reads back with other ids.")


def _checksum(info: TensorInfo) -> int:
    checksum, left = 0, info.nbytes
    with info.file.open("rb", buffering=0) as stream:
        stream.seek(info.begin)
        while left > 0 and (data := stream.read(min(left, CHUNK))):
            checksum = zlib.crc32(data, checksum)
            left -= len(data)
    return checksum


def _check_room(folder: HydraFolder, name: str, new: NewHead) -> None:
    tables = sum(nbytes(i.dtype, (new.config.rows, *i.shape[1:])) for i, _ in new.tables.values())
    needed = tables + new.config.vocabulary * BYTES_PER_TOKEN + SETTINGS_BYTES + sum(map(len, new.files.values()))
    free = shutil.disk_usage(folder.path).free
    if needed > free:
        raise VocabTransferError(
            f"the head {name!r} needs {needed / 1e9:.2f} GB, but the disk of {folder.path} has {free / 1e9:.2f} GB free."
        )


def _check_extra(staging: Path, file: str) -> None:
    pure = PurePosixPath(file)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or (staging / file).exists() or file == CONFIG_NAME:
        raise UsageError(f"an extra file of a head cannot be called {file!r}: the name is taken, or no name.")


def _hashes(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield path.relative_to(folder).as_posix(), {"bytes": path.stat().st_size, "sha256": hash_file(path)}


def _provenance(files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Return method, evidence and language from a built checkpoint's report, as far as it has them."""
    try:
        report = json.loads(files.get("report.json", b"{}"))
    except ValueError:
        report = {}
    if not isinstance(report, dict):
        report = {}
    method, rules, language = (report.get(key) for key in ("method", "rows_by_rule", "language"))
    method = {k: method[k] for k in ("name", "calibrated") if k in method} if isinstance(method, dict) else {}
    evidence = {"rows_by_rule": rules} if isinstance(rules, dict) else {}
    code = language.get("code") if isinstance(language, dict) else None
    return method, evidence, code if isinstance(code, str) else None


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()
