"""A checkpoint as one GGUF file, written tensor by tensor: in memory is never more than one of them.

The values are laid out as `vocabtransfer.checkpoint.gguf_model` reads them back, its tables used the other way round.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.checkpoint.gguf_model import ARCHITECTURES, ENDS
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.export.gguf_vocabulary import GgufVocabulary, gguf_vocabulary
from vocabtransfer.files.whole import whole_path
from vocabtransfer.progress import track

TYPES = ("f32", "f16", "bf16", "q8_0")
EXPORTED = ("llama", "qwen2", "qwen3")
Q8_BLOCK = 32


@dataclass(frozen=True)
class GgufReport:
    """What was written: the file, its bytes, how many tensors, and the name of the pre-tokenizer in it."""

    path: Path
    size: int
    tensors: int
    pre_tokenizer: str


def export_gguf(
    model: str | Path | Checkpoint, target: str | Path, *, kind: str = "f16", overwrite: bool = False
) -> GgufReport:
    """Write a model with its tokenizer as a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

    ``kind`` is the type of the matrices: f32, f16, bf16 or q8_0; vectors stay float32. Raises `UsageError` for another
    ``kind``, and `VocabTransferError`, before anything is written, for an architecture, setting, tensor or tokenizer
    that the format or this writer cannot express, and for a target that exists without ``overwrite``.
    """
    if kind not in TYPES:
        raise UsageError(f"there is no type {kind!r}: choose one of {', '.join(TYPES)}.")
    path = Path(target).expanduser()
    if path.is_dir() or path.is_symlink() or (path.exists() and not overwrite):
        raise VocabTransferError(f"{path} exists: choose another name, or allow overwriting if it is a file.")
    source = model if isinstance(model, Checkpoint) else open_checkpoint(model)
    settings = _settings(source)
    names = _names(source)
    vocabulary = gguf_vocabulary(source)
    if kind == "q8_0":
        _check_blocks(source)
    try:
        with whole_path(path) as part:
            _write(part, source, kind, settings, names, vocabulary)
    except OSError as problem:
        raise VocabTransferError(f"{path} could not be written: {problem.strerror or problem}.") from None
    return GgufReport(path, path.stat().st_size, len(names), vocabulary.pre_tokenizer)


def _settings(source: Checkpoint) -> dict[str, Any]:
    """Return the sizes that the file names; refuse what would make it another model."""
    config = source.config
    kind = config.get("model_type")
    if kind not in EXPORTED:
        raise VocabTransferError(
            f"{source.name} has the architecture {kind!r}, and only {', '.join(EXPORTED)} can be written as GGUF."
        )
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise VocabTransferError(f"{source.name} has scaled rotary embeddings, which cannot be written as GGUF yet.")
    if config.get("use_sliding_window"):
        raise VocabTransferError(f"{source.name} attends in a sliding window, which cannot be written as GGUF yet.")
    if config.get("hidden_act", "silu") != "silu":
        raise VocabTransferError(f"{source.name} has the activation {config['hidden_act']!r}; GGUF would make it silu.")
    heads = config["num_attention_heads"]
    return {
        "context": config["max_position_embeddings"],
        "hidden": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "inner": config["intermediate_size"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "theta": float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        "epsilon": float(config.get("rms_norm_eps", 1e-6)),
    }


def _names(source: Checkpoint) -> dict[str, str]:
    """Return for each tensor of the checkpoint the name it gets in the file."""
    layer = {new: old for old, new in ARCHITECTURES[source.config["model_type"]].layer.items()}
    ends = {new: old for old, new in ENDS.items()}
    tied = source.config.get("tie_word_embeddings", False)
    names = {}
    for name in source.tensors:
        if name == "lm_head.weight" and tied:
            continue
        match = re.fullmatch(r"(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)", name)
        old = None
        if match:
            old = ends.get(match[2]) if match[1] is None else layer.get(match[2])
        if match is None or old is None:
            raise VocabTransferError(f"{source.name} has a tensor {name!r} that GGUF has no name for.")
        names[name] = f"{old}.{match[3]}" if match[1] is None else f"blk.{match[1]}.{old}.{match[3]}"
    return names


def _check_blocks(source: Checkpoint) -> None:
    for info in source.tensors.values():
        if len(info.shape) > 1 and info.shape[-1] % Q8_BLOCK:
            raise VocabTransferError(
                f"tensor {info.name!r} has rows of {info.shape[-1]} values, and q8_0 needs a multiple of {Q8_BLOCK}: "
                "choose f16."
            )


def _write(
    part: Path,
    source: Checkpoint,
    kind: str,
    settings: Mapping[str, Any],
    names: Mapping[str, str],
    vocabulary: GgufVocabulary,
) -> None:
    import gguf

    architecture = source.config["model_type"]
    writer = gguf.GGUFWriter(part, architecture)
    try:
        writer.add_name(source.name)
        writer.add_context_length(settings["context"])
        writer.add_embedding_length(settings["hidden"])
        writer.add_block_count(settings["layers"])
        writer.add_feed_forward_length(settings["inner"])
        writer.add_head_count(settings["heads"])
        writer.add_head_count_kv(settings["kv_heads"])
        writer.add_key_length(settings["head_dim"])
        writer.add_value_length(settings["head_dim"])
        writer.add_rope_dimension_count(settings["head_dim"])
        writer.add_rope_freq_base(settings["theta"])
        writer.add_layer_norm_rms_eps(settings["epsilon"])
        writer.add_vocab_size(source.layout.rows)
        writer.add_file_type(gguf.LlamaFileType[_file_type(kind)])
        vocabulary.add_to(writer)
        for name, new in names.items():
            shape = source.tensors[name].shape
            stored = gguf.GGMLQuantizationType[_stored(kind, shape)]
            size = int(np.prod(gguf.quant_shape_to_byte_shape(shape, stored)))
            writer.add_tensor_info(new, shape, np.dtype(np.float32), size, raw_dtype=stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in track(list(names), "writing the tensors"):
            writer.write_tensor_data(_data(source, name, kind, settings))
    finally:
        writer.close()


def _file_type(kind: str) -> str:
    return "ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"


def _stored(kind: str, shape: tuple[int, ...]) -> str:
    return kind.upper() if len(shape) > 1 else "F32"


def _data(source: Checkpoint, name: str, kind: str, settings: Mapping[str, Any]) -> NDArray[Any]:
    import gguf
    from gguf.quants import quantize

    values: NDArray[np.float32] = source.read(name).to(torch.float32).numpy()
    projection = re.search(r"\.self_attn\.([qk])_proj\.", name)
    if projection and ARCHITECTURES[source.config["model_type"]].permuted:
        # ggml rotates neighbouring values, transformers the two halves of a head.
        heads = settings["heads" if projection[1] == "q" else "kv_heads"]
        values = values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    stored = _stored(kind, values.shape)
    if stored == "F16" and values.size and np.abs(values).max() > np.finfo(np.float16).max:
        raise VocabTransferError(f"tensor {name!r} has values beyond the range of f16: choose bf16 or f32.")
    return quantize(np.ascontiguousarray(values), gguf.GGMLQuantizationType[stored])
