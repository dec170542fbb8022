"""A head in memory: its tables as parameters, its tokenizer, its generation settings."""

import copy
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerFast

from vocabtransfer.checkpoint.tensors import load_tensor
from vocabtransfer.hydra.concatenate import generation_of
from vocabtransfer.hydra.stored import StoredHead
from vocabtransfer.vocabulary import Vocabulary


class HeadTables(nn.Module):
    """The parameters of a head: ``input`` (rows, hidden), ``output`` (the same parameter when tied), ``bias``."""

    input: nn.Parameter
    output: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, input: nn.Parameter, output: nn.Parameter | None, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.input = input
        self.output = input if output is None else output
        self.register_parameter("bias", bias)

    @property
    def bytes(self) -> int:
        """The memory that the parameters take, in bytes; memory-mapped ones count in full."""
        return sum(parameter.numel() * parameter.element_size() for parameter in self.parameters())


class LoadedHead:
    """A head that can be put onto a backbone. Its tokenizer is read when it is first asked for."""

    def __init__(self, stored: StoredHead, tables: HeadTables, *, trainable: bool = False) -> None:
        self.stored = stored
        self.tables = tables
        self.trainable = trainable
        self.last_used = 0
        self.generation_config = GenerationConfig.from_dict(copy.deepcopy(generation_of(stored)))
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The head's name."""
        return self.stored.name

    @property
    def rows(self) -> int:
        """The rows of the tables."""
        return self.stored.config.rows

    @property
    def tied(self) -> bool:
        """Whether one table serves input and output."""
        return self.stored.config.tied

    @property
    def adapter(self) -> Path | None:
        """The LoRA bound to the head."""
        return self.stored.adapter

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The head's tokenizer, one object for all callers: two threads must not pad or truncate with it at once."""
        with self._lock:
            return self.stored.tokenizer

    def encode(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Encode texts without padding and truncation; safe from several threads."""
        tokenizer = self.tokenizer
        with self._lock:
            encoded = tokenizer(
                list(texts), add_special_tokens=special, padding=False, truncation=False, return_attention_mask=False
            )
        return [list(ids) for ids in encoded["input_ids"]]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without special tokens and padding rows."""
        tokenizer = self.tokenizer
        size = self.stored.config.vocabulary
        with self._lock:
            return str(tokenizer.decode([i for i in ids if 0 <= i < size], skip_special_tokens=True))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What each token stands for; `VocabTransferError` for a tokenizer of a kind that `Vocabulary` does not know."""
        return Vocabulary.from_tokenizer(self.tokenizer)

    @cached_property
    def line_breaks(self) -> list[int]:
        """The ids of all tokens with a line break in them."""
        backend = self.tokenizer.backend_tokenizer
        ids = sorted(self.tokenizer.get_vocab().values())
        texts = backend.decode_batch([[i] for i in ids], skip_special_tokens=False)
        return [i for i, text in zip(ids, texts, strict=True) if "\n" in text]

    @property
    def end_ids(self) -> list[int]:
        """The ids that end a text; empty when the head has none."""
        value = self.generation_config.eos_token_id
        return list(value) if isinstance(value, list) else [] if value is None else [int(value)]

    @property
    def pad_id(self) -> int:
        """The id to pad with; the first end id, else 0, where the head has no padding token."""
        value = self.generation_config.pad_token_id
        if value is None:
            value = self.stored.config.values.get("pad_token_id")
        if not isinstance(value, int) or not 0 <= value < self.rows:
            value = next(iter(self.end_ids), 0)
        return int(value)


def load_head_tables(
    stored: StoredHead,
    input_like: torch.Tensor,
    output_like: torch.Tensor,
    *,
    trainable: bool = False,
    memory_map: bool = True,
) -> HeadTables:
    """Load tables in the dtype and onto the device of the backbone's own input and output tables.

    On the CPU, tables that are stored in that dtype are memory-mapped: pages are read when they are first used, and
    never written back. ``memory_map=False`` reads them into memory at once.
    """

    def parameter(info: Any, like: torch.Tensor) -> nn.Parameter:
        values = load_tensor(info).to(device=like.device, dtype=like.dtype)
        if trainable or not memory_map:
            values = values.clone()
        return nn.Parameter(values, requires_grad=trainable)

    tables = stored.tables
    output = parameter(tables["output"], output_like) if "output" in tables else None
    bias = tables.get("output_bias")
    flat = None
    if bias is not None:
        flat = parameter(bias, output_like)
        flat = nn.Parameter(flat.data.reshape(-1), requires_grad=trainable)
    return HeadTables(parameter(tables["input"], input_like), output, flat)
