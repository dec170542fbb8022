"""The first layers of a model, run alone: what distillation of rows needs of a body.

A model's body is a list of layers behind one another. Cut after layer L it reads tokens into states that the layers above
would go on from; nothing above is computed, and, in a model that is loaded for this, nothing above is there.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.running.load import causal_opener

DEFAULT_SHARE = 3


class EarlyLayers:
    """A body that can be run to its layer ``layer`` with embedding rows from outside."""

    def __init__(self, model: PreTrainedModel, layer: int) -> None:
        """Take a loaded model; `VocabTransferError` when its body has no list of so many layers."""
        self._body: Any = model.base_model
        self._embedding = model.get_input_embeddings()
        parent, name = layer_list(model)
        layers = getattr(parent, name)
        if not 1 <= layer <= len(layers):
            raise VocabTransferError(f"`teacher_layer` is {layer}: the model has layers 1 to {len(layers)}.")
        self._last = layers[layer - 1]
        self._whole = layer == len(layers)
        self._place = parent, name, layers, layer

    def states(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Return the states behind the layer, (batch, length, hidden), for ids that number ``rows`` (n, hidden).

        The embedding's own scaling takes part; the gradient reaches ``rows``.
        """
        kept: list[Tensor] = []
        with _caught(self._last, kept), self._cut(), _padding_forgotten(self._embedding):
            entered = torch.func.functional_call(self._embedding, {"weight": rows}, (ids,))
            self._body(inputs_embeds=entered, use_cache=False)
        return kept[0]

    @torch.no_grad()
    def with_last(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Run the whole body on the model's own ids; return the states behind the layer, and what the head reads."""
        kept: list[Tensor] = []
        with _caught(self._last, kept):
            output = self._body(input_ids=ids, use_cache=False)
        return kept[0], cast(Tensor, output.last_hidden_state)

    @contextmanager
    def _cut(self) -> Iterator[None]:
        """Leave out the layers above inside the block."""
        parent, name, layers, layer = self._place
        setattr(parent, name, layers[:layer])
        try:
            yield
        finally:
            setattr(parent, name, layers)


def layer_count(checkpoint: Checkpoint) -> int:
    """Return how many layers a checkpoint's body has, by its configuration; 0 when that does not say."""
    config = checkpoint.config.get("text_config") or checkpoint.config
    for name in ("num_hidden_layers", "n_layer", "num_layers"):
        if isinstance(config.get(name), int):
            return int(config[name])
    return 0


def layer_list(model: PreTrainedModel) -> tuple[nn.Module, str]:
    """Return the module that holds the list of a body's layers, and its name there.

    Raises `VocabTransferError` when there is none: then the body is no plain stack.
    """
    body = model.base_model
    count = int(model.config.get_text_config(decoder=True).num_hidden_layers)
    for parent in body.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return parent, name
    raise VocabTransferError(f"{type(model).__name__} has no list of {count} layers, so it cannot be cut after one.")


def load_early(checkpoint: Checkpoint, layer: int, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Load a checkpoint's embeddings and its first ``layer`` layers only; the weights above are not read."""
    config = AutoConfig.from_pretrained(checkpoint.path, local_files_only=True)
    text = config.get_text_config(decoder=True)
    total = int(text.num_hidden_layers)
    for name, value in vars(text).copy().items():
        if isinstance(value, list) and len(value) == total:  # kinds of layers, one a layer
            setattr(text, name, copy.copy(value[:layer]))
    text.num_hidden_layers = layer
    with _quiet():
        model: Any = causal_opener(checkpoint.config).from_pretrained(
            checkpoint.path, config=config, dtype=dtype, local_files_only=True
        )
    return cast(PreTrainedModel, model.to(device).eval().requires_grad_(False))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from listing the weights above the layer as unexpected."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def _caught(module: nn.Module, kept: list[Tensor]) -> Iterator[None]:
    """Put what ``module`` returns into ``kept`` inside the block."""

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _padding_forgotten(embedding: nn.Module) -> Iterator[None]:
    """Let the padding row be a row like others inside the block: ids are renumbered there."""
    own = getattr(embedding, "padding_idx", None)
    if hasattr(embedding, "padding_idx"):
        embedding.padding_idx = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hasattr(embedding, "padding_idx"):
            embedding.padding_idx = own  # type: ignore[assignment]
