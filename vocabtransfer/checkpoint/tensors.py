"""The safetensors format: eight bytes of header length, a JSON header, the tensors' bytes one after the other.

Files are read strictly, because a header that lies about its bytes would otherwise become a model that babbles: every
range must lie inside the file, follow the one before it, and be exactly as long as dtype and shape say.
"""

import json
import math
import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import damaged, read_json

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MAX_HEADER_BYTES = 100_000_000

DTYPE_BITS: Mapping[str, int] = {
    **{"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32},
    **{"F16": 16, "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8},
    **{"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8},
    **{"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
TORCH_DTYPES: Mapping[str, torch.dtype] = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "BOOL": torch.bool},
    **{"U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "C64": torch.complex64},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu},
    **{"F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz},
}
DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in TORCH_DTYPES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: bytes ``begin`` to ``end`` of ``file``, counted from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return self.end - self.begin


@dataclass(frozen=True)
class Shard:
    """One safetensors file: its tensors in the order of their bytes, and the strings its header carries."""

    file: Path
    size: int
    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Weights:
    """All safetensors files of a model folder.

    ``tensors`` has one entry a name. When two shards hold the same name, the one that the index points to is here; the
    other is still listed by its shard.
    """

    shards: tuple[Shard, ...]
    tensors: Mapping[str, TensorInfo]
    sharded: bool


def nbytes(dtype: str, shape: Sequence[int]) -> int:
    """Return the bytes that a tensor of this dtype and shape takes.

    >>> nbytes("BF16", (3, 5))
    30
    """
    return math.prod(shape) * DTYPE_BITS[dtype] // 8


def read_shard(file: Path) -> Shard:
    """Read and check the header of a safetensors file; `VocabTransferError` names the file and the tensor at fault."""
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            prefix = stream.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise damaged(file, "its header does not fit in the file, so it is cut short or not safetensors")
            raw = stream.read(length)
    except OSError as problem:
        raise VocabTransferError(f"{file} cannot be read: {problem.strerror or problem}.") from None
    header = _parse_header(raw, file)
    strings = header.pop("__metadata__", {})
    if not isinstance(strings, dict) or not all(isinstance(value, str) for value in strings.values()):
        raise damaged(file, "its __metadata__ is not a table of strings")
    start = 8 + length
    tensors = sorted(
        (_parse_entry(name, entry, file, start) for name, entry in header.items()),
        key=lambda info: (info.begin, info.end),
    )
    position = start
    for info in tensors:
        if info.begin != position:
            raise damaged(file, f"tensor {info.name!r} does not follow the one before it")
        position = info.end
    if position != size:
        raise damaged(file, f"its tensors take {position - start} bytes and the file has {size - start} for them")
    return Shard(file, size, tuple(tensors), strings)


def read_weights(folder: Path) -> Weights:
    """Read the headers of all safetensors files of a model folder, following its index if it has one.

    The choice of files is that of transformers: ``model.safetensors``, else the index, else the only ``.safetensors``.
    Raises `VocabTransferError` naming file and tensor for damaged shards, files or tensors that the index lists and
    the folder lacks, and folders without weights.
    """
    index = folder / INDEX_NAME
    if (folder / SINGLE_NAME).is_file():
        shard = read_shard(folder / SINGLE_NAME)
        return Weights((shard,), {info.name: info for info in shard.tensors}, sharded=False)
    if index.is_file():
        return _read_sharded(folder, index)
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        shard = read_shard(found[0])
        return Weights((shard,), {info.name: info for info in shard.tensors}, sharded=False)
    if found:
        raise VocabTransferError(
            f"{folder} has {len(found)} safetensors files but no {INDEX_NAME}: download the folder again."
        )
    raise VocabTransferError(f"{folder} has no safetensors weights.")


def _read_sharded(folder: Path, index: Path) -> Weights:
    weight_map = _read_index(index)
    shards = []
    for name in sorted(set(weight_map.values())):
        if not (folder / name).is_file():
            raise VocabTransferError(f"{index} names {name}, which is not in the folder: download it again.")
        shards.append(read_shard(folder / name))
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for info in shard.tensors:
            listed = weight_map.get(info.name, shard.file.name)
            if listed == shard.file.name:
                if info.name in tensors:
                    raise damaged(shard.file, f"tensor {info.name!r} is also in {tensors[info.name].file.name}")
                tensors[info.name] = info
    for name, file in weight_map.items():
        if name not in tensors:
            raise VocabTransferError(f"{index} says that {name!r} is in {file}, which does not hold it.")
    return Weights(tuple(shards), tensors, sharded=True)


def _read_index(index: Path) -> dict[str, str]:
    data = read_json(index)
    weight_map = data.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise damaged(index, "it has no weight_map")
    for name, file in weight_map.items():
        if not isinstance(file, str) or file != Path(file).name or not file.endswith(".safetensors"):
            raise damaged(index, f"it puts {name!r} in {file!r}, which is not a safetensors file of this folder")
    return weight_map


def build_header(
    entries: Iterable[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[tuple[str, int]]]:
    """Lay out tensors (name, dtype, shape) in a new file.

    Returns the first bytes of the file (length and header, padded so that the tensors start on eight bytes) and, in
    the order in which the bytes must follow, each name with its length. Wide dtypes come first, else in the order
    given, as the safetensors library does it, so that every tensor is aligned.
    """
    ordered = sorted(entries, key=lambda entry: -DTYPE_BITS[entry[1]])
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    lengths = []
    position = 0
    for name, dtype, shape in ordered:
        length = nbytes(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + length]}
        lengths.append((name, length))
        position += length
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, lengths


def load_tensor(info: TensorInfo) -> torch.Tensor:
    """Map a tensor into memory without reading it: storage dtype, private to this process when written to."""
    dtype = _torch_dtype(info)
    if info.nbytes == 0:
        return torch.empty(info.shape, dtype=dtype)
    page = info.begin - info.begin % mmap.ALLOCATIONGRANULARITY
    with info.file.open("rb") as stream:
        view = mmap.mmap(stream.fileno(), info.end - page, access=mmap.ACCESS_COPY, offset=page)
    count = math.prod(info.shape)
    return torch.frombuffer(view, dtype=dtype, count=count, offset=info.begin - page).reshape(info.shape)


def load_rows(info: TensorInfo, start: int, stop: int) -> torch.Tensor:
    """Read rows ``start`` to ``stop`` (first axis) into memory: shape (stop - start, ...), storage dtype."""
    dtype = _torch_dtype(info)
    shape = (stop - start, *info.shape[1:])
    if not 0 <= start <= stop <= info.shape[0]:
        raise IndexError(f"rows {start} to {stop} of {info.name!r} with {info.shape[0]} rows")
    length = nbytes(info.dtype, shape)
    if length == 0:
        return torch.empty(shape, dtype=dtype)
    buffer = bytearray(length)
    with info.file.open("rb") as stream:
        stream.seek(info.begin + start * (length // (stop - start)))
        if stream.readinto(buffer) != length:
            raise damaged(info.file, f"tensor {info.name!r} ends too early")
    return torch.frombuffer(buffer, dtype=dtype).reshape(shape)


def raw_bytes(values: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU in row-major order, as safetensors stores them."""
    array: NDArray[np.uint8] = values.contiguous().reshape(-1).view(torch.uint8).numpy()
    return array.data


def _torch_dtype(info: TensorInfo) -> torch.dtype:
    try:
        return TORCH_DTYPES[info.dtype]
    except KeyError:
        raise VocabTransferError(f"tensor {info.name!r} of {info.file} has dtype {info.dtype}, unknown here.") from None


def _parse_header(raw: bytes, file: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            names = [name for name, _ in pairs]
            raise damaged(file, f"its header has {next(n for n in names if names.count(n) > 1)!r} twice")
        return table

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise damaged(file, "its header is not JSON, so it is damaged or not safetensors") from None
    if not isinstance(header, dict):
        raise damaged(file, "its header is not a JSON object")
    return header


def _parse_entry(name: str, entry: object, file: Path, start: int) -> TensorInfo:
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise damaged(file, f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not _is_sizes(shape) or not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise damaged(file, f"tensor {name!r} has an impossible shape or place")
    if math.prod(shape) * DTYPE_BITS[dtype] != (offsets[1] - offsets[0]) * 8:
        raise damaged(file, f"tensor {name!r} says {dtype} {shape} but has {offsets[1] - offsets[0]} bytes")
    return TensorInfo(name, dtype, tuple(shape), file, start + offsets[0], start + offsets[1])


def _is_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
