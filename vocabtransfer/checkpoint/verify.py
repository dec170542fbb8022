"""Reopen a written checkpoint and compare it with what was meant, before anybody can see it."""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint.auto_tokenizer import find_difference
from vocabtransfer.checkpoint.checkpoint import Checkpoint, read_checkpoint
from vocabtransfer.checkpoint.tensors import TensorInfo
from vocabtransfer.errors import VocabTransferError

READ_BLOCK = 8 << 20
# Kept tensors up to this size are compared in full, larger ones in evenly spread samples.
COMPARED_BYTES = 1 << 20
SAMPLE_BYTES = 1 << 16
SAMPLES = 16


def verify_checkpoint(
    folder: Path, source: Checkpoint, tokenizer: PreTrainedTokenizerFast, sums: Mapping[str, int]
) -> None:
    """Check the folder against the source, the tokenizer, and the CRC-32 sums of the new tables as they were written.

    Headers are read strictly again; kept tensors must be the source's bytes; the tables must hang together as before
    (tied or not) and be no shorter than the vocabulary; the tokenizer must read back with the same ids; every id in the
    two settings files must have a token. Raises `VocabTransferError` for the first thing that is wrong.
    """
    written = read_checkpoint(folder, source.name)
    _same_parts(written, source)
    for name, info in written.tensors.items():
        if name in sums:
            if _checksum(info) != sums[name]:
                raise _wrong(f"the bytes of {name!r} on disk are not those that were written")
        elif not _same_bytes(info, source.tensors[name]):
            raise _wrong(f"the kept tensor {name!r} differs from the source's")
    if difference := find_difference(folder, tokenizer):
        raise _wrong(difference)
    if written.tokenizer.chat_template != tokenizer.chat_template:
        raise _wrong("the chat template reads back differently")
    used = set(tokenizer.get_vocab().values())
    for values, name in ((written.config, "config.json"), (written.generation_config or {}, "generation_config.json")):
        for key, i in _role_ids(values):
            if i >= 0 and i not in used:
                raise _wrong(f"{key!r} of {name} is {i}, which has no token")


def _same_parts(written: Checkpoint, source: Checkpoint) -> None:
    if written.tensors.keys() != source.tensors.keys():
        odd = sorted(written.tensors.keys() ^ source.tensors.keys())[0]
        raise _wrong(f"{odd!r} is not in both the source and the result")
    if (written.layout.tensors, written.layout.hidden) != (source.layout.tensors, source.layout.hidden):
        raise _wrong("the tables hang together otherwise than in the source")
    vocabulary = {tensor.name: tensor for tensor in source.layout.tensors}
    for name, info in written.tensors.items():
        before = source.tensors[name]
        shape = list(before.shape)
        if name in vocabulary:
            shape[vocabulary[name].axis] = written.layout.vocabulary_rows + vocabulary[name].spare
        if (info.dtype, list(info.shape)) != (before.dtype, shape):
            raise _wrong(f"{name!r} is {info.dtype} {list(info.shape)} instead of {before.dtype} {shape}")


def _checksum(info: TensorInfo) -> int:
    checksum = 0
    for data in _read(info, 0, info.nbytes):
        checksum = zlib.crc32(data, checksum)
    return checksum


def _same_bytes(first: TensorInfo, second: TensorInfo) -> bool:
    if first.file.samefile(second.file) and first.begin == second.begin:
        return True
    if first.nbytes <= COMPARED_BYTES:
        places = [(0, first.nbytes)]
    else:
        last = first.nbytes - SAMPLE_BYTES
        places = [(last * i // (SAMPLES - 1), SAMPLE_BYTES) for i in range(SAMPLES)]
    return all(
        ours == theirs
        for place, length in places
        for ours, theirs in zip(_read(first, place, length), _read(second, place, length), strict=True)
    )


def _read(info: TensorInfo, place: int, length: int) -> Iterator[bytes]:
    with info.file.open("rb", buffering=0) as stream:
        stream.seek(info.begin + place)
        while length > 0:
            data = stream.read(min(length, READ_BLOCK))
            if not data:
                raise _wrong(f"{info.name!r} ends too early")
            length -= len(data)
            yield data


def _role_ids(values: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in values.items():
        if key.endswith("_token_id"):
            for i in value if isinstance(value, list) else [value]:
                if type(i) is int:
                    yield key, i


def _wrong(what: str) -> VocabTransferError:
    return VocabTransferError(f"the written checkpoint failed its check: {what}; nothing was left behind.")
