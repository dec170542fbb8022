"""A checkpoint as one GGUF file, written tensor by tensor: in memory is never more than one of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.export.gguf_bodies import (
    FLOAT,
    ROPE_FREQS,
    Body,
    add_settings,
    find_body,
    settings,
    shape_in_file,
    tensor_names,
    values_in_file,
)
from vocabtransfer.export.gguf_kept import KeptBody, find_origin, kept_body
from vocabtransfer.export.gguf_vocabulary import GgufVocabulary, gguf_vocabulary
from vocabtransfer.files.whole import whole_path
from vocabtransfer.progress import track
from vocabtransfer.public import public

TYPES = ("auto", "f32", "f16", "bf16", "q8_0")
Q8_BLOCK = 32
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
class _Plan:
    """Everything that is decided before the first byte is written."""

    source: Checkpoint
    body: Body
    settings: Mapping[str, Any]
    names: Mapping[str, str]
    types: Mapping[str, str]
    kept: KeptBody | None
    vocabulary: GgufVocabulary

    def data(self, name: str) -> NDArray[Any]:
        """Return a tensor as it is stored in the file."""
        import gguf
        from gguf.quants import quantize

        if self.kept is not None and name in self.kept.tensors:
            return self.kept.data(name)
        values = values_in_file(self.source, self.body, name, self.settings)
        kind = self.types[name]
        if kind == "F32":
            return values
        if kind == "F16" and values.size and np.abs(values).max() > np.finfo(np.float16).max:
            raise VocabTransferError(f"tensor {name!r} has values beyond the range of f16: choose bf16 or f32.")
        stored: NDArray[Any] = quantize(values, gguf.GGMLQuantizationType[kind])
        return stored


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
    if kind not in TYPES:
        raise UsageError(f"there is no type {kind!r}: choose one of {', '.join(TYPES)}.")
    if body is not None and kind != "auto":
        raise UsageError(f"a body is kept as it is stored, so the type can only be auto, not {kind}.")
    path = Path(target).expanduser()
    if path.is_dir() or path.is_symlink() or (path.exists() and not overwrite):
        raise VocabTransferError(f"{path} exists: choose another name, or allow overwriting if it is a file.")
    source = model if isinstance(model, Checkpoint) else open_checkpoint(model)
    plan = _plan(model, source, kind, Path(body).expanduser() if body is not None else None, pre_tokenizer)
    try:
        with whole_path(path) as part:
            _write(part, plan)
    except OSError as problem:
        raise VocabTransferError(f"{path} could not be written: {problem.strerror or problem}.") from None
    cutting = plan.vocabulary.cutting
    return GgufReport(
        path,
        path.stat().st_size,
        len(plan.names),
        len(plan.kept.tensors.keys() & plan.names.keys()) if plan.kept else 0,
        cutting.model,
        cutting.pre_tokenizer,
        plan.vocabulary.notes,
    )


def _plan(
    model: str | Path | Checkpoint, source: Checkpoint, kind: str, body_file: Path | None, pre_tokenizer: str | None
) -> _Plan:
    body = find_body(source)
    found = settings(source, body)
    names = tensor_names(source, body)
    vocabulary = gguf_vocabulary(source, pre_tokenizer)
    kept = None
    origin = body_file or (find_origin(model, source) if kind == "auto" else None)
    if origin is not None:
        kept = kept_body(source, origin, body.architecture)
    stored = {} if kept is None else {name: tensor.kind for name, tensor in kept.tensors.items() if name in names}
    quantised = any(kind not in FILE_TYPES for kind in stored.values()) or "Q8_0" in stored.values()
    matrices = ("Q8_0" if quantised else "F16") if kind == "auto" else kind.upper()
    types = {name: stored.get(name) or _type(source, name, matrices, kind == "auto") for name in names}
    return _Plan(source, body, found, names, types, kept, vocabulary)


def _type(source: Checkpoint, name: str, matrices: str, free: bool) -> str:
    shape = source.tensors[name].shape
    if len(shape) < 2 or "wpe" in name:
        return "F32"
    if matrices == "Q8_0" and shape[-1] % Q8_BLOCK:
        if free:
            return "F16"
        raise VocabTransferError(
            f"tensor {name!r} has rows of {shape[-1]} values, and q8_0 needs a multiple of {Q8_BLOCK}: choose f16."
        )
    return matrices


def _write(part: Path, plan: _Plan) -> None:
    import gguf

    source = plan.source
    writer = gguf.GGUFWriter(part, plan.body.architecture)
    try:
        writer.add_name(source.name)
        add_settings(writer, plan.settings)
        writer.add_vocab_size(source.layout.rows)
        writer.add_file_type(_file_type(plan))
        plan.vocabulary.add_to(writer)
        factors = plan.settings.get("rope_factors")
        if factors is not None:
            writer.add_tensor_info(ROPE_FREQS, factors.shape, FLOAT, factors.nbytes)
        for name, new in plan.names.items():
            shape = shape_in_file(source, plan.body, name)
            stored = gguf.GGMLQuantizationType[plan.types[name]]
            size = int(np.prod(gguf.quant_shape_to_byte_shape(shape, stored)))
            writer.add_tensor_info(new, shape, FLOAT, size, raw_dtype=stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for name in track(list(plan.names), "writing the tensors"):
            writer.write_tensor_data(plan.data(name))
    finally:
        writer.close()


def _file_type(plan: _Plan) -> int:
    import gguf

    if plan.kept is not None and plan.kept.tensors:
        said = plan.kept.file.fields.get("general.file_type")
        return said if isinstance(said, int) else int(gguf.LlamaFileType.GUESSED)
    matrices = [kind for name, kind in plan.types.items() if len(plan.source.tensors[name].shape) > 1]
    return int(gguf.LlamaFileType[FILE_TYPES[max(set(matrices), key=matrices.count, default="F32")]])
