"""The identity of a backbone: what all heads of a Hydra share, and what a head made for another model would not fit.

The fingerprint covers the model type and every tensor that does not depend on the vocabulary: name, dtype, shape, and
bytes. Small tensors (norms, biases) enter whole, larger ones with 16 blocks of 4 KiB spread evenly from their first to
their last byte. That is 46 MB of reading for a Llama 3 70B, where a hash of everything would read 138 GB, and it still
tells fine-tunes apart: training moves a share p of the elements of a tensor, and 32,768 sampled elements all miss it
with probability (1 - p) ** 32768, which is below 1e-14 at p = 0.1 % and in one single tensor. It is a guard against
mistakes, not against somebody who wants to deceive.

Settings such as RoPE scaling are left out on purpose: a head fits a long-context setting of the same weights too.
"""

import hashlib
import os
import re
from collections.abc import Iterator

from vocabtransfer.checkpoint import Checkpoint, TensorInfo
from vocabtransfer.errors import VocabTransferError

VERSION = "body1"
SAMPLES, SAMPLE_BYTES = 16, 1 << 12
WHOLE_BYTES = SAMPLES * SAMPLE_BYTES
# Buffers that some savers write and others do not; loaders make them anew.
BUFFERS = re.compile(r"(.+\.)?(rotary_emb\.inv_freq|attn\.masked_bias|attention\.masked_bias)")


def backbone_fingerprint(checkpoint: Checkpoint) -> str:
    """Return the identity of a checkpoint's body, the same for every vocabulary it is given.

    Checkpoints that vocabtransfer wrote from one source share it; another fine-tune, precision or size has another.
    Raises `VocabTransferError` when a file ends too early.
    """
    vocabulary = {tensor.name for tensor in checkpoint.layout.tensors}
    body = [info for name, info in sorted(checkpoint.tensors.items()) if name not in vocabulary]
    digest = hashlib.blake2b(digest_size=16)
    digest.update(str(checkpoint.config.get("model_type", "")).encode())
    kept = [info for info in body if not BUFFERS.fullmatch(info.name)]
    for info in kept:
        digest.update(f"\n{info.name} {info.dtype} {list(info.shape)}".encode())
    for data in _samples(kept):
        digest.update(data)
    return f"{VERSION}:{digest.hexdigest()}"


def _samples(tensors: list[TensorInfo]) -> Iterator[bytes]:
    handles: dict[str, int] = {}
    try:
        for info in tensors:
            path = str(info.file)
            if path not in handles:
                handles[path] = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            for begin, length in _places(info):
                yield _read(handles[path], begin, length, info)
    finally:
        for handle in handles.values():
            os.close(handle)


def _places(info: TensorInfo) -> list[tuple[int, int]]:
    if info.nbytes <= WHOLE_BYTES:
        return [(info.begin, info.nbytes)]
    last = info.nbytes - SAMPLE_BYTES
    return [(info.begin + last * i // (SAMPLES - 1), SAMPLE_BYTES) for i in range(SAMPLES)]


def _read(handle: int, begin: int, length: int, info: TensorInfo) -> bytes:
    os.lseek(handle, begin, os.SEEK_SET)
    data = os.read(handle, length)
    if len(data) != length:
        raise VocabTransferError(f"{info.file} is damaged: tensor {info.name!r} ends too early.")
    return data
