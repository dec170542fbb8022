"""Checkpoints that stand in for real ones: the shapes of any model without its weights, and toy tokenizers.

They are for planning (how much would be written for a 70B model?), for benchmarks, and for tests.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint.tensors import (
    DTYPE_NAMES,
    INDEX_NAME,
    SINGLE_NAME,
    TORCH_DTYPES,
    build_header,
    nbytes,
    raw_bytes,
)
from vocabtransfer.vocabulary import byte_alphabet

ROLES: Mapping[str, str] = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
FILL_SCALE = 0.02
FILL_BLOCK = 1 << 22

LLAMA3_70B: Mapping[str, Any] = {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 8192},
    **{"intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8},
    **{"max_position_embeddings": 8192, "rope_theta": 500000.0, "tie_word_embeddings": False},
    **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "dtype": "bfloat16"},
}


def toy_tokenizer(
    words: Sequence[str] = (), *, roles: Mapping[str, str] = ROLES, seed: int = 0, fixed: int = 0
) -> PreTrainedTokenizerFast:
    """Make a byte-level tokenizer of the special tokens, the 256 bytes, and all beginnings of the words given.

    Ids are in that order; with a ``seed`` other than 0 those from ``fixed`` on are shuffled.

    >>> toy_tokenizer(["the"]).tokenize("the")
    ['the']
    """
    alphabet = byte_alphabet()
    spelled = ["".join(alphabet[byte] for byte in word.encode()) for word in words]
    merges = [(word[:cut], word[cut]) for word in spelled for cut in range(1, len(word))]
    special = list(dict.fromkeys(roles.values()))
    tokens = list(dict.fromkeys([*special, *alphabet.values(), *(left + right for left, right in merges)]))
    if seed:
        moved = tokens[fixed:]
        random.Random(seed).shuffle(moved)
        tokens[fixed:] = moved
    model = models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=list(dict.fromkeys(merges)))
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **roles)


def write_hollow_checkpoint(
    folder: Path, config: Mapping[str, Any], *, shard_bytes: int, tied: bool = False, seed: int | None = None
) -> Path:
    """Write config.json and safetensors shards with the shapes that transformers gives a causal model of ``config``.

    Without a ``seed`` the files are sparse: all zeros, next to no disk space. With one they hold small random values.
    Shards hold at most ``shard_bytes`` unless one tensor is larger; a single shard is named ``model.safetensors``.
    ``tied`` adds a tied head as a second copy of the table, which some checkpoints carry. Returns the folder.
    """
    folder.mkdir(parents=True)
    shapes = _shapes(config)
    if tied:
        shapes["lm_head.weight"] = next(iter(shapes.values()))
    shards = list(_shards(shapes, shard_bytes))
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [SINGLE_NAME]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard, seed)
    if len(shards) > 1:
        total = sum(nbytes(dtype, shape) for shard in shards for _, dtype, shape in shard)
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor, _, _ in shard}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX_NAME).write_text(json.dumps(index, indent=2), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2), encoding="utf-8")
    return folder


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    from transformers import AutoConfig, AutoModelForCausalLM

    values = dict(config)
    known = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(known, dtype=getattr(torch, str(config.get("dtype", "float32"))))
    return {name: (DTYPE_NAMES[value.dtype], tuple(value.shape)) for name, value in model.named_parameters()}


def _shards(
    shapes: Mapping[str, tuple[str, tuple[int, ...]]], shard_bytes: int
) -> Iterator[list[tuple[str, str, tuple[int, ...]]]]:
    shard: list[tuple[str, str, tuple[int, ...]]] = []
    size = 0
    for name, (dtype, shape) in shapes.items():
        length = nbytes(dtype, shape)
        if shard and size + length > shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append((name, dtype, shape))
        size += length
    yield shard


def _write_shard(path: Path, shard: Sequence[tuple[str, str, tuple[int, ...]]], seed: int | None) -> None:
    head, order = build_header(shard, {"format": "pt"})
    with path.open("xb") as stream:
        stream.write(head)
        if seed is None:
            stream.truncate(len(head) + sum(length for _, length in order))
            return
        dtypes = {name: dtype for name, dtype, _ in shard}
        generator = torch.Generator().manual_seed(seed)
        block = torch.randn(FILL_BLOCK, generator=generator) * FILL_SCALE
        for name, length in order:
            values = raw_bytes(block.to(TORCH_DTYPES[dtypes[name]]))
            while length > 0:
                length -= stream.write(values[: min(length, len(values))])
