"""GGUF files: key-value fields, a list of tensors, their quantised bytes. Read strictly and without loading them.

The format is little-endian: magic, version, two counts, the fields, the tensor list, then the aligned data
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import damaged

NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
DEFAULT_ALIGNMENT = 32
MOST_ITEMS = 1 << 26
BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: shape in torch's order (rows first), quantisation by its name in ggml, absolute byte range."""

    name: str
    shape: tuple[int, ...]
    kind: str
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class GgufFile:
    """A GGUF file that has been read and checked up to its tensors' bytes."""

    path: Path
    fields: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    def blocks(self, name: str) -> Iterator[NDArray[np.float32]]:
        """Yield the tensor's values in blocks of whole rows, dequantised to float32."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        tensor = self.tensors[name]
        rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
        data = self._bytes[tensor.begin : tensor.end].reshape(rows, -1)
        width = math.prod(tensor.shape) // rows
        step = max(1, BLOCK_ELEMENTS // width)
        for start in range(0, rows, step):
            block = dequantize(np.array(data[start : start + step]), GGMLQuantizationType[tensor.kind])
            yield np.asarray(block, dtype=np.float32).reshape(-1, *tensor.shape[1:])

    def values(self, name: str) -> NDArray[np.float32]:
        """Return the whole tensor, dequantised to float32."""
        return np.concatenate(list(self.blocks(name))).reshape(self.tensors[name].shape)

    @cached_property
    def _bytes(self) -> NDArray[np.uint8]:
        return np.memmap(self.path, dtype=np.uint8, mode="r")


def read_gguf(path: Path) -> GgufFile:
    """Read fields and tensor list of a GGUF file; `VocabTransferError` for anything that is not one, whole."""
    try:
        with path.open("rb") as stream:
            return _read(stream, path)
    except (struct.error, UnicodeDecodeError, ValueError, OverflowError):
        raise damaged(path, "its header is cut short or makes no sense") from None
    except OSError as problem:
        raise VocabTransferError(f"{path} cannot be read: {problem.strerror or problem}.") from None


def _read(stream: IO[bytes], path: Path) -> GgufFile:
    if stream.read(4) != b"GGUF":
        raise damaged(path, "it is not a GGUF file")
    (version,) = struct.unpack("<I", stream.read(4))
    if version not in (2, 3):
        raise damaged(path, f"its version {version} is not 2 or 3 (or its bytes are big-endian)")
    tensor_count, field_count = struct.unpack("<QQ", stream.read(16))
    if max(tensor_count, field_count) > MOST_ITEMS:
        raise ValueError
    fields = {}
    for _ in range(field_count):
        key = _string(stream)
        fields[key] = _value(stream, _number(stream, "<I"))
    entries = [_entry(stream) for _ in range(tensor_count)]
    alignment = fields.get("general.alignment", DEFAULT_ALIGNMENT)
    start = -(-stream.tell() // alignment) * alignment
    size = path.stat().st_size
    tensors = {}
    for name, shape, kind, offset in entries:
        kind_name, length = _length(shape, kind, name, path)
        if start + offset + length > size:
            raise damaged(path, f"tensor {name!r} ends after the file does; download it again")
        tensors[name] = GgufTensor(name, shape, kind_name, start + offset, start + offset + length)
    return GgufFile(path, fields, tensors)


def _entry(stream: IO[bytes]) -> tuple[str, tuple[int, ...], int, int]:
    name = _string(stream)
    dimensions = _number(stream, "<I")
    if dimensions > 8:
        raise ValueError
    shape = struct.unpack(f"<{dimensions}Q", stream.read(8 * dimensions))
    return name, tuple(reversed(shape)), _number(stream, "<I"), _number(stream, "<Q")


def _length(shape: tuple[int, ...], kind: int, name: str, path: Path) -> tuple[str, int]:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        kind_name = GGMLQuantizationType(kind)
    except ValueError:
        raise damaged(path, f"tensor {name!r} has the unknown quantisation {kind}") from None
    block, block_bytes = GGML_QUANT_SIZES[kind_name]
    if 0 in shape:
        raise damaged(path, f"tensor {name!r} is empty")
    if not shape or shape[-1] % block:
        raise damaged(path, f"tensor {name!r} has rows that {kind_name.name} cannot have")
    return kind_name.name, math.prod(shape) // block * block_bytes


def _value(stream: IO[bytes], kind: int) -> Any:
    if kind == STRING:
        return _string(stream)
    if kind != ARRAY:
        return _number(stream, NUMBERS[kind]) if kind in NUMBERS else _fail()
    item_kind, count = _number(stream, "<I"), _number(stream, "<Q")
    if count > MOST_ITEMS:
        raise ValueError
    if item_kind in NUMBERS:
        form = NUMBERS[item_kind]
        data = stream.read(count * struct.calcsize(form))
        return list(struct.unpack(f"<{count}{form[1]}", data))
    return [_value(stream, item_kind) for _ in range(count)]


def _fail() -> Any:
    raise ValueError


def _number(stream: IO[bytes], form: str) -> Any:
    return struct.unpack(form, stream.read(struct.calcsize(form)))[0]


def _string(stream: IO[bytes]) -> str:
    length = _number(stream, "<Q")
    if length > MOST_ITEMS:
        raise ValueError
    data = stream.read(length)
    if len(data) < length:
        raise ValueError
    return data.decode("utf-8")
