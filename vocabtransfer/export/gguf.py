"""A checkpoint as one GGUF file, written block by block: in memory are only a few million values at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.export.gguf_bodies import Body, blocks_in_file, find_body, shape_in_file, tensor_parts, text_part
from vocabtransfer.export.gguf_kept import KeptBody, find_origin, kept_body
from vocabtransfer.export.gguf_settings import MEAN_NOTE, add_settings, body_notes, pooling_setting, settings
from vocabtransfer.export.gguf_vocabulary import GgufVocabulary, gguf_vocabulary, name_in_file
from vocabtransfer.export.sentence_modules import open_with_pooling
from vocabtransfer.files.whole import whole_path
from vocabtransfer.progress import track
from vocabtransfer.public import public

TYPES = ("auto", "f32", "f16", "bf16", "q8_0")
Q8_BLOCK = 32
FLOAT = np.dtype(np.float32)
# Small tensors that decide much: llama.cpp wants them, or computes with them, in float32.
ALWAYS_FLOAT = ("position_embd", "token_types", "ffn_gate_inp", "ffn_gate_inp_shexp")
# What is read when llama.cpp shows a file's type; it runs by the types of the tensors.
FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0"}


@dataclass(frozen=True)
class GgufReport:
    """What was written: the file, its bytes, its tensors, how many of them were copied as a GGUF source stored them.

    ``tokenizer`` is llama.cpp's kind (gpt2, llama, t5), ``pre_tokenizer`` the name of the rules in it. ``notes`` say
    what the engine does otherwise than transformers.
    """

    path: Path
    size: int
    tensors: int
    kept: int
    tokenizer: str
    pre_tokenizer: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class GgufPlan:
    """Everything that is decided before the first byte is written.

    ``parts`` names for each tensor of the file those of the checkpoint, ``types`` and ``shapes`` say how it is stored.
    """

    source: Checkpoint
    body: Body
    settings: Mapping[str, Any]
    parts: Mapping[str, tuple[str, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, str]
    kept: KeptBody | None
    vocabulary: GgufVocabulary
    notes: tuple[str, ...]

    @property
    def tables(self) -> list[str]:
        """The tensors of the file that belong to the vocabulary."""
        tables = {tensor.name for tensor in self.source.layout.tensors}
        return [name for name, parts in self.parts.items() if tables.intersection(parts)]

    def is_kept(self, name: str) -> bool:
        """Tell whether a tensor is copied as the GGUF source stores it."""
        return self.kept is not None and len(self.parts[name]) == 1 and self.parts[name][0] in self.kept.tensors

    def report(self, path: Path, size: int) -> GgufReport:
        """Return the report of a file that was written by this plan."""
        kept = sum(map(self.is_kept, self.parts))
        cutting = self.vocabulary.cutting
        notes = (*self.notes, *self.vocabulary.notes)
        return GgufReport(path, size, len(self.parts), kept, cutting.model, cutting.pre_tokenizer, notes)

    def size(self, name: str) -> int:
        """Return the bytes that a tensor takes in the file."""
        import gguf

        kind = gguf.GGMLQuantizationType[self.types[name]]
        return int(np.prod(gguf.quant_shape_to_byte_shape(self.shapes[name], kind)))

    def stored(self, name: str) -> "_Stored":
        """Return a tensor as it is stored in the file, to be made block by block."""
        if self.kept is not None and self.is_kept(name):
            return _Stored(self.size(name), iter([self.kept.data(self.parts[name][0])]))
        return _Stored(self.size(name), self._blocks(name))

    def _blocks(self, name: str) -> Iterator[NDArray[Any]]:
        for values in blocks_in_file(self.source, self.body, self.parts[name], self.settings):
            yield _encoded(values, self.types[name], name)


class _Stored:
    """What `gguf.GGUFWriter` takes for an array: the number of its bytes, and a way to put them into a file."""

    def __init__(self, nbytes: int, blocks: Iterator[NDArray[Any]]) -> None:
        self.nbytes = nbytes
        self._blocks = blocks

    def tofile(self, stream: IO[bytes]) -> None:
        """Write the blocks; `RuntimeError` unless they have the bytes that were promised."""
        written = sum(stream.write(np.ascontiguousarray(block).data.cast("B")) for block in self._blocks)
        if written != self.nbytes:
            raise RuntimeError(f"{written} bytes were written where {self.nbytes} have room")


def _encoded(values: torch.Tensor, kind: str, name: str) -> NDArray[Any]:
    """Turn rows of a tensor into the bytes of a type."""
    import gguf
    from gguf.quants import quantize

    if kind == "F16":
        halves = values.to(torch.float16)
        if not torch.isfinite(halves).all() and torch.isfinite(values).all():
            raise VocabTransferError(f"tensor {name!r} has values beyond the range of f16: choose bf16 or f32.")
        return halves.numpy()
    if kind == "BF16":
        return values.to(torch.bfloat16).view(torch.int16).numpy()
    floats = values.to(torch.float32).numpy()
    if kind == "F32":
        return floats
    encoded: NDArray[Any] = quantize(np.ascontiguousarray(floats), gguf.GGMLQuantizationType[kind])
    return encoded


@public
def export_gguf(
    model: str | Path | Checkpoint,
    target: str | Path,
    *,
    kind: str = "auto",
    body: str | Path | None = None,
    pre_tokenizer: str | None = None,
    overwrite: bool = False,
) -> GgufReport:
    """Write a model with its tokenizer as a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

    ``kind`` is the type of the matrices: f32, f16, bf16, q8_0, or auto: tensors that come from a GGUF source unchanged
    are copied as they are stored there, new ones become q8_0 beside quantised ones and f16 elsewhere. Vectors stay
    float32. ``body`` is the GGUF source; without it, the one that the model was read or built from. ``pre_tokenizer``
    names llama.cpp's rules for cutting text where none says just what the tokenizer does.

    Raises `UsageError` for another ``kind`` or name, and `VocabTransferError`, before anything is written, for an
    architecture, setting, tensor or tokenizer that the format or this writer cannot express, and for a target that
    exists without ``overwrite``.
    """
    path = Path(target).expanduser()
    if path.is_dir() or path.is_symlink() or (path.exists() and not overwrite):
        raise VocabTransferError(f"{path} exists: choose another name, or allow overwriting if it is a file.")
    plan = plan_gguf(model, kind=kind, body=body, pre_tokenizer=pre_tokenizer)
    try:
        with whole_path(path) as part:
            write_part(part, plan, list(plan.parts))
    except OSError as problem:
        raise VocabTransferError(f"{path} could not be written: {problem.strerror or problem}.") from None
    return plan.report(path, path.stat().st_size)


def plan_gguf(
    model: str | Path | Checkpoint,
    *,
    kind: str = "auto",
    body: str | Path | None = None,
    pre_tokenizer: str | None = None,
) -> GgufPlan:
    """Decide everything that `export_gguf` writes, and raise what it raises before writing."""
    if kind not in TYPES:
        raise UsageError(f"there is no type {kind!r}: choose one of {', '.join(TYPES)}.")
    if body is not None and kind != "auto":
        raise UsageError(f"a body is kept as it is stored, so the type can only be auto, not {kind}.")
    source, pooling = open_with_pooling(model)
    body_file = Path(body).expanduser() if body is not None else None
    source = text_part(source)
    shape = find_body(source)
    found = settings(source, shape) | pooling_setting(source, shape, pooling)
    parts = tensor_parts(source, shape)
    vocabulary = gguf_vocabulary(source, pre_tokenizer)
    origin = body_file or (find_origin(model, source) if kind == "auto" else None)
    kept = None if origin is None else kept_body(source, origin, shape.architecture)
    shapes = {name: shape_in_file(source, shape, names) for name, names in parts.items()}
    types = _types(parts, shapes, kind, kept)
    notes = body_notes(source, shape, found)
    if shape.encoder and pooling is None:
        notes = (*notes, MEAN_NOTE)
    return GgufPlan(source, shape, found, parts, shapes, types, kept, vocabulary, notes)


def _types(
    parts: Mapping[str, tuple[str, ...]], shapes: Mapping[str, tuple[int, ...]], kind: str, kept: KeptBody | None
) -> dict[str, str]:
    """Choose the type of every tensor: a kept one's own, and for the rest what ``kind`` asks for."""
    tensors = {} if kept is None else kept.tensors
    stored = {name: tensors[names[0]].kind for name, names in parts.items() if len(names) == 1 and names[0] in tensors}
    quantised = any(kind not in FILE_TYPES or kind == "Q8_0" for kind in stored.values())
    matrices = ("Q8_0" if quantised else "F16") if kind == "auto" else kind.upper()
    return {name: stored.get(name) or _type(name, shape, matrices, kind == "auto") for name, shape in shapes.items()}


def _type(name: str, shape: tuple[int, ...], matrices: str, free: bool) -> str:
    if len(shape) < 2 or name.split(".")[-2] in ALWAYS_FLOAT:
        return "F32"
    if matrices == "Q8_0" and shape[-1] % Q8_BLOCK:
        if free:
            return "F16"
        raise VocabTransferError(
            f"tensor {name!r} has rows of {shape[-1]} values, and q8_0 needs a multiple of {Q8_BLOCK}: choose f16."
        )
    return matrices


def write_part(part: Path, plan: GgufPlan, names: Sequence[str], number: int = 0, count: int = 1) -> None:
    """Write the tensors ``names`` as file ``number`` of ``count``; the first has settings and vocabulary too."""
    import gguf

    factors = plan.settings.get("tensors", {}) if number == 0 else {}
    writer = gguf.GGUFWriter(part, plan.body.architecture)
    try:
        if number == 0:
            _add_fields(writer, plan)
        if count > 1:
            writer.add_uint16("split.no", number)
            writer.add_uint16("split.count", count)
            writer.add_int32("split.tensors.count", len(plan.parts) + len(plan.settings.get("tensors", {})))
        for name, values in factors.items():
            writer.add_tensor_info(name, values.shape, FLOAT, values.nbytes)
        for name in names:
            kind = gguf.GGMLQuantizationType[plan.types[name]]
            writer.add_tensor_info(name, plan.shapes[name], FLOAT, plan.size(name), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for values in factors.values():
            writer.write_tensor_data(values)
        for name in track(names, "writing the tensors"):
            writer.write_tensor_data(cast(Any, plan.stored(name)))
    finally:
        writer.close()


def _add_fields(writer: Any, plan: GgufPlan) -> None:
    writer.add_name(name_in_file(plan.source.name, plan.vocabulary.takes_space_behind))
    add_settings(writer, plan.settings)
    writer.add_vocab_size(plan.source.layout.rows)
    writer.add_file_type(_file_type(plan))
    plan.vocabulary.add_to(writer)


def _file_type(plan: GgufPlan) -> int:
    import gguf

    if plan.kept is not None and plan.kept.tensors:
        said = plan.kept.file.fields.get("general.file_type")
        return said if isinstance(said, int) else int(gguf.LlamaFileType.GUESSED)
    matrices = [kind for name, kind in plan.types.items() if len(plan.shapes[name]) > 1]
    return int(gguf.LlamaFileType[FILE_TYPES[max(set(matrices), key=matrices.count, default="F32")]])
