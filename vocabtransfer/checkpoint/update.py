"""Write a checkpoint with the same vocabulary and other values: what training changes, everything else byte for byte."""

import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch

from vocabtransfer.checkpoint.checkpoint import Checkpoint
from vocabtransfer.checkpoint.plan import Link, shard_metadata
from vocabtransfer.checkpoint.rewrite import Check, WriteReport
from vocabtransfer.checkpoint.tensors import TORCH_DTYPES, Shard, build_header, raw_bytes
from vocabtransfer.checkpoint.verify import verify_checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.copying import can_link, copy_range, place_file, write_all
from vocabtransfer.files.manifest import MANIFEST_NAME, write_manifest
from vocabtransfer.files.staging import check_target, settled, staged_folder
from vocabtransfer.progress import step
from vocabtransfer.tokenization.load import load_tokenizer

# The same weights in another format would be those of the old model.
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ckpt")


def update_checkpoint(
    source: Checkpoint,
    target: Path,
    values: Mapping[str, torch.Tensor],
    *,
    extra_files: Mapping[str, bytes],
    facts: Mapping[str, str],
    link: Link = "hard",
    overwrite: bool = False,
    check: Check | None = None,
) -> WriteReport:
    """Write ``source`` into the folder ``target`` with some tensors' values replaced.

    ``values`` (by name in the file, shape of the tensor there, any float dtype) are rounded to the storage dtype. Files
    of the source keep their bytes, tokenizer and settings too; shards in which nothing changes are linked or copied.
    ``extra_files`` (name -> content) replace those of the same name; ``facts`` go into the manifest.

    The folder is filled beside ``target``, verified, given to ``check``, flushed and renamed. Raises
    `VocabTransferError` when the target exists (unless ``overwrite``, for folders that this library wrote), is being
    written by another process, a value is not finite, and when verification fails.
    """
    started = time.perf_counter()
    target = settled(target)
    check_target(target, overwrite)
    sums: dict[str, int] = {}
    linked = 0
    with staged_folder(target, overwrite) as staging:
        shards = {shard.file.name for shard in source.shards}
        for shard in source.shards:
            place = staging / shard.file.name
            if any(info.name in values for info in shard.tensors):
                with step(f"writing {shard.file.name}"):
                    sums |= _write_shard(source, shard, place, values)
            else:
                linked += place_file(shard.file, place, _way(shard.file, staging, link)) * shard.size
        for file in sorted(path for path in source.path.iterdir() if path.is_file()):
            unwanted = file.suffix in OTHER_WEIGHTS or file.name in (MANIFEST_NAME, *shards, *extra_files)
            if not unwanted and not file.name.startswith("."):
                place_file(file, staging / file.name, "copy")
        for name, content in extra_files.items():
            (staging / name).write_bytes(content)
        with step("verifying the checkpoint"):
            verify_checkpoint(staging, source, load_tokenizer(source.path), sums)
        if check is not None:
            check(staging)
        write_manifest(staging, dict(facts))
        written = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file()) - linked
    return WriteReport(target, written, linked, tuple(sorted(sums)), 0, time.perf_counter() - started)


def _way(file: Path, folder: Path, link: Link) -> Link:
    return "hard" if link == "hard" and can_link(file, folder) else "copy"


def _write_shard(source: Checkpoint, shard: Shard, place: Path, values: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Write a shard with the values replaced; return the CRC-32 of the bytes of each."""
    current = {info.name: info for info in shard.tensors if source.tensors[info.name].file == shard.file}
    head, order = build_header(
        [(info.name, info.dtype, info.shape) for info in current.values()], shard_metadata(shard)
    )
    sums: dict[str, int] = {}
    with shard.file.open("rb", buffering=0) as old, place.open("xb", buffering=0) as new:
        write_all(new, memoryview(head))
        for name, _ in order:
            info = current[name]
            if name not in values:
                copy_range(old, new, info.begin, info.nbytes)
                continue
            value = values[name].detach().to("cpu", TORCH_DTYPES[info.dtype])
            if tuple(value.shape) != info.shape:
                raise ValueError(f"{name!r} came with shape {tuple(value.shape)} for {info.shape}")
            if not bool(torch.isfinite(value).all()):
                raise VocabTransferError(f"the new {name!r} is not finite in {info.dtype}: nothing was written.")
            data = raw_bytes(value)
            sums[name] = zlib.crc32(data)
            write_all(new, data)
        os.fsync(new.fileno())
    return sums
