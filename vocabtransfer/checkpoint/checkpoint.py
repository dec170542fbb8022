"""An opened source: its configuration, its tensors on disk, its tokenizer. Nothing is loaded before it is asked for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.blocks import row_blocks
from vocabtransfer.checkpoint.adapters import refuse_wrapped
from vocabtransfer.checkpoint.config_values import check_config, check_generation_config
from vocabtransfer.checkpoint.layout import VocabLayout, find_layout
from vocabtransfer.checkpoint.model_class import continues_text, generates
from vocabtransfer.checkpoint.table_names import is_draft
from vocabtransfer.checkpoint.tensors import Shard, TensorInfo, load_rows, load_tensor, read_weights
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import read_json
from vocabtransfer.public import public
from vocabtransfer.reprs import brief
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.rowless import without_tokens
from vocabtransfer.vocabulary import Kind, Vocabulary

# Rows shorter than this share of the median were never trained: padding, reserved tokens, tokens no text contains.
UNTRAINED_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model folder that has been read and checked, but not loaded.

    ``tensors`` has every tensor of the model by name; ``shards`` the files they lie in. ``config`` and
    ``generation_config`` are what the JSON files say (the second is None when the folder has none).
    """

    path: Path
    name: str
    config: dict[str, Any]
    generation_config: dict[str, Any] | None
    tensors: Mapping[str, TensorInfo]
    layout: VocabLayout
    shards: tuple[Shard, ...]
    sharded: bool

    def __repr__(self) -> str:
        return brief(
            self,
            name=self.name,
            rows=self.layout.rows,
            hidden=self.layout.hidden,
            tied=self.layout.tied,
            path=self.path,
        )

    @property
    def architecture(self) -> str:
        """The model class that config.json names first; "" when it names none."""
        return next(iter(self.config.get("architectures") or []), "")

    @property
    def generates(self) -> bool:
        """Whether the model writes text, whatever it reads: its class can generate. Encoders and draft heads do not."""
        return generates(self.config) and not self.is_draft

    @property
    def continues_text(self) -> bool:
        """Whether the model goes on with a text by itself, without an encoder: what bits per byte are measured of."""
        return continues_text(self.config) and not self.is_draft

    @property
    def is_draft(self) -> bool:
        """Whether these are the weights of an EAGLE draft head, which runs beside its target only."""
        return is_draft(self.tensors)

    @property
    def parameters(self) -> int:
        """The number of parameters in all tensors."""
        return sum(math.prod(info.shape) for info in self.tensors.values())

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The folder's tokenizer; `VocabTransferError` when it has tokens that the embedding table has no row for.

        Added special tokens without a row and without a role are left out: see `rowless_tokens`.
        """
        return self._fitting[0]

    @property
    def rowless_tokens(self) -> tuple[str, ...]:
        """Added special tokens of the folder's tokenizer that the table has no row for, and that were left out."""
        return self._fitting[1]

    @cached_property
    def _fitting(self) -> tuple[PreTrainedTokenizerFast, tuple[str, ...]]:
        return fitting_tokenizer(self.path, self.layout.rows, self.name)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's vocabulary, no longer than the table."""
        vocabulary = Vocabulary.from_tokenizer(self.tokenizer)
        return vocabulary if len(vocabulary) <= self.layout.rows else _cut(vocabulary, self.layout.rows)

    @public
    def read(self, name: str) -> torch.Tensor:
        """Return a tensor in its storage dtype, memory-mapped: only what is touched is read."""
        return load_tensor(self._info(name))

    @public
    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read rows ``start`` to ``stop`` of a tensor: shape (stop - start, ...), storage dtype."""
        info = self._info(name)
        if not info.shape or not 0 <= start <= stop <= info.shape[0]:
            raise VocabTransferError(
                f"{name} of {self.name} is {list(info.shape)}: there are no rows {start} to {stop}."
            )
        return load_rows(info, start, stop)

    def input_table(self) -> torch.Tensor:
        """The input embedding table, (rows, hidden), storage dtype."""
        return self.read(self.layout.input_name)

    def output_table(self) -> torch.Tensor:
        """The output table, (rows, hidden), storage dtype; the input table when the model is tied or has no head."""
        return self.read(self.layout.output_name or self.layout.input_name)

    def output_bias(self) -> torch.Tensor | None:
        """The head's bias, (rows,), storage dtype, or None."""
        name = self.layout.bias_name
        return self.read(name).reshape(-1) if name else None

    def trained_rows(self) -> NDArray[np.bool_]:
        """Tell which rows were trained, shape (rows,).

        False for rows without a token (padding past the tokenizer, holes) and for rows whose norm is next to nothing
        or not a number, in either table.
        """
        return self._trained_rows.copy()

    @cached_property
    def _trained_rows(self) -> NDArray[np.bool_]:
        trained = np.zeros(self.layout.rows, dtype=np.bool_)
        trained[: len(self.vocabulary)] = self.vocabulary.kinds != Kind.HOLE
        for name in {self.layout.input_name, self.layout.output_name} - {None}:
            assert name is not None
            norms = self._row_norms(name)
            usable = np.isfinite(norms)
            here = trained[: len(norms)]  # a head may lack the rows of pictures
            candidates = norms[here & usable]
            floor = UNTRAINED_SHARE * np.median(candidates) if len(candidates) else 0.0
            here &= usable & (norms > floor)
        return trained

    def _row_norms(self, name: str) -> NDArray[np.float32]:
        rows, width = self._info(name).shape
        norms = np.empty(rows, dtype=np.float32)
        for start, stop in row_blocks(rows, width):
            norms[start:stop] = self.read_rows(name, start, stop).float().norm(dim=1).numpy()
        return norms

    def _info(self, name: str) -> TensorInfo:
        try:
            return self.tensors[name]
        except KeyError:
            raise VocabTransferError(f"{self.name} has no tensor named {name!r}.") from None


def read_checkpoint(folder: Path, name: str) -> Checkpoint:
    """Open a model folder with safetensors weights; ``name`` is what reports call it.

    Raises `VocabTransferError` for everything that `read_weights` and `find_layout` refuse, and when config.json is
    missing.
    """
    if not (folder / "config.json").is_file():
        raise VocabTransferError(f"{folder} has no config.json, so it is not a model folder.")
    config = read_json(folder / "config.json")
    check_config(config, folder / "config.json")
    generation = folder / "generation_config.json"
    generation_config = read_json(generation) if generation.is_file() else None
    check_generation_config(generation_config or {}, generation)
    weights = read_weights(folder)
    refuse_wrapped(weights.tensors, folder)
    return Checkpoint(
        path=folder,
        name=name,
        config=config,
        generation_config=generation_config,
        tensors=weights.tensors,
        layout=find_layout(config, weights.tensors),
        shards=weights.shards,
        sharded=weights.sharded,
    )


def fitting_tokenizer(folder: Path, rows: int, name: str) -> tuple[PreTrainedTokenizerFast, tuple[str, ...]]:
    """Open a folder's tokenizer for a table of so many rows; return it with the tokens that were left out.

    Left out are added specials without a role (Gemma 3's text models have one for pictures; people add a padding token
    and forget to resize). Raises `VocabTransferError` for all other tokens without a row.
    """
    tokenizer = load_tokenizer(folder)
    check_tokenizer_fits(tokenizer, rows, name)
    rowless = tuple(sorted(token for token, i in tokenizer.get_vocab().items() if i >= rows))
    return (without_tokens(tokenizer, rowless) if rowless else tokenizer), rowless


def check_tokenizer_fits(tokenizer: PreTrainedTokenizerFast, rows: int, name: str) -> None:
    """Refuse tokens without a row, except added specials without a role."""
    beyond = {token: i for token, i in tokenizer.get_vocab().items() if i >= rows}
    specials = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    roles = {value for value in tokenizer.special_tokens_map.values() if isinstance(value, str)}
    refused = sorted(beyond.keys() - (specials - roles), key=lambda token: (beyond[token], token))
    if refused:
        raise VocabTransferError(
            f"the tokenizer of {name} does not fit: {refused[0]!r} has id {beyond[refused[0]]}, but the embedding "
            f"table has {rows} rows."
        )


def _cut(vocabulary: Vocabulary, rows: int) -> Vocabulary:
    return Vocabulary(
        scheme=vocabulary.scheme,
        strings=vocabulary.strings[:rows],
        token_bytes=vocabulary.token_bytes[:rows],
        kinds=vocabulary.kinds[:rows],
        word_initial=vocabulary.word_initial[:rows],
        roles={role: i for role, i in vocabulary.roles.items() if i < rows},
    )
