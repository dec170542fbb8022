"""Exact token losses of any causal model of transformers, in bounded memory whatever the size of the vocabulary."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.running.streamed import run_together

# 64 Mi float32 logits are 256 MiB: 1,365 positions of a vocabulary of 49,152 at a time, 256 positions of 262,144.
_LOGITS_AT_A_TIME = 1 << 26
_DEFAULT_WINDOW = 1024


def text_config(model: PreTrainedModel) -> Any:
    """Return the part of a model's configuration that describes its text side."""
    return model.config.get_text_config(decoder=True)


def document_separator(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id that stands before the first token of a document.

    The tokenizer's bos comes first, then the bos that the model's configuration names (Qwen's tokenizers have none),
    then eos of the tokenizer and of the configuration. Raises `VocabTransferError` when there is none of them.
    """
    config = text_config(model)
    for owner, role in ((tokenizer, "bos"), (config, "bos"), (tokenizer, "eos"), (config, "eos")):
        found = getattr(owner, f"{role}_token_id", None)
        candidates = found if isinstance(found, list) else [found]
        for candidate in candidates:
            if candidate is not None and 0 <= candidate < len(tokenizer):
                return int(candidate)
    raise VocabTransferError(
        "The tokenizer and the configuration name neither a bos nor an eos token: "
        "set bos_token so that the first token of a text has something to follow."
    )


def default_window(model: PreTrainedModel) -> int:
    """Return the positions that a window may hold: what the model was made for, but at most 1,024."""
    longest = getattr(text_config(model), "max_position_embeddings", None)
    return min(int(longest), _DEFAULT_WINDOW) if longest and longest > 0 else _DEFAULT_WINDOW


class CausalScorer:
    """Computes -log p(token | what precedes it) with a causal model, in nats.

    The body runs once over a batch of sequences; the head runs over slices of positions, through the model's own
    forward pass, so that its bias, scaling and soft cap take part and logits never fill the memory. Models whose
    forward pass cannot be cut like that (found out by comparing on a few tokens) are run whole.

    Raises `VocabTransferError` when the model is not causal, has no head, or has fewer rows than ``tokenizer`` needs.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model = model
        self.separator = document_separator(model, tokenizer)
        self.rows = _check_tables(model, tokenizer)
        self._two_steps = self._check_causal()

    def call(self, batch: Sequence[tuple[NDArray[np.int64], int]]) -> Callable[[], list[NDArray[np.float64]]]:
        """Return what scores a batch of (sequence, start) when it is called: see `nats`."""
        return lambda: self.nats([sequence for sequence, _ in batch], [start for _, start in batch])

    # Not inference mode: sharded training keeps the buffers that a first pass makes.
    @torch.no_grad()
    def nats(self, sequences: Sequence[NDArray[np.int64]], starts: Sequence[int]) -> list[NDArray[np.float64]]:
        """Return the losses of the ids ``sequence[start:]`` of every sequence, float64, in nats; every start is >= 1.

        The sequences form one batch, padded at the end, where causal attention never looks.
        """
        with _evaluating(self.model):
            ids = np.full((len(sequences), max(map(len, sequences))), self.separator, dtype=np.int64)
            for row, sequence in zip(ids, sequences, strict=True):
                row[: len(sequence)] = sequence
            everything = torch.from_numpy(ids).to(self.model.device)
            place, lengths = np.arange(1, ids.shape[1])[None], np.array([len(sequence) for sequence in sequences])
            kept = (place >= np.array(starts)[:, None]) & (place < lengths[:, None])
            positions = torch.from_numpy(kept).to(self.model.device)
            losses = self._losses(everything[:, :-1], positions, everything[:, 1:][positions])
        return np.split(losses.cpu().numpy(), np.cumsum(lengths - np.array(starts))[:-1])

    def _losses(self, inputs: Tensor, kept: Tensor, targets: Tensor) -> Tensor:
        """Return float64 losses of the ``targets`` (n,), which belong to the positions ``kept`` (batch, length)."""
        if not self._two_steps:
            return _cross_entropy(self.model(input_ids=inputs, use_cache=False).logits[kept], targets)
        body = self.model.base_model(input_ids=inputs, use_cache=False)
        hidden = body.last_hidden_state[kept]
        size = max(_LOGITS_AT_A_TIME // self.rows, 1)
        parts = [
            _cross_entropy(self._head(body, hidden[i : i + size]), targets[i : i + size])
            for i in range(0, len(targets), size)
        ]
        return torch.cat(parts)

    def _head(self, body: Any, hidden: Tensor) -> Tensor:
        """Return the logits (n, rows) for hidden states (n, width): the model's forward pass with its body replaced."""
        output = copy.copy(body)
        output.last_hidden_state = hidden[None]
        placeholder = torch.full((1, len(hidden)), self.separator, device=hidden.device)
        with _replaced_forward(self.model.base_model, output):
            logits: Tensor = self.model(input_ids=placeholder, use_cache=False).logits
        return logits[0]

    @torch.no_grad()
    def _check_causal(self) -> bool:
        """Refuse models that look ahead; return whether body and head can be run one after the other."""
        first, second = (self.separator + 1) % self.rows, (self.separator + 2) % self.rows
        start = [self.separator, first, second]
        inputs = torch.tensor([[*start, first], [*start, second]], device=self.model.device)
        with _evaluating(self.model):
            logits, body = self._both(inputs)
            if not bool(torch.isfinite(logits).any()):
                raise VocabTransferError("the model's predictions are not finite: its weights or settings are damaged.")
            # Rounding is all that may differ: a hundred units in the last place, in half precision a twentieth.
            tolerance = min(100 * torch.finfo(logits.dtype).eps, 0.05) * float(logits.nan_to_num(0, 0, 0).abs().max())
            if not torch.allclose(logits[0, :3], logits[1, :3], rtol=0, atol=tolerance, equal_nan=True):
                raise VocabTransferError(
                    f"{type(self.model).__name__} is not a causal model (a token changes what is predicted before it), "
                    "so it gives no bits per byte: evaluate a decoder such as Llama, Gemma or Qwen."
                )
            if body is None:
                return False
            try:
                parts = self._head(body, body.last_hidden_state[0])
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
                return False
            return parts.shape == logits[0].shape and torch.allclose(parts, logits[0], rtol=0, atol=tolerance)

    def _both(self, inputs: Tensor) -> tuple[Tensor, Any]:
        """Return the logits of the whole model, and what its body alone gives, None where it cannot be run so."""

        def body() -> Any:
            try:
                return self.model.base_model(input_ids=inputs, use_cache=False)
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
                return None

        calls: list[Callable[[], Any]] = [lambda: self.model(input_ids=inputs, use_cache=False).logits, body]
        logits, alone = run_together(self.model, calls)
        return logits, alone


def _check_tables(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the rows of the input table after checking that there is a head and that every token has a row."""
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise VocabTransferError(f"{name} is an encoder-decoder: bits per byte needs a causal (decoder-only) model.")
    if model.get_output_embeddings() is None:
        raise VocabTransferError(f"{name} has no language-model head: open the model with AutoModelForCausalLM.")
    rows = len(cast(Tensor, model.get_input_embeddings().weight))
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= rows:
        raise VocabTransferError(
            f"The tokenizer has ids up to {highest:,} but the model's table has {rows:,} rows: "
            "they do not belong together."
        )
    return rows


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return float64 losses (n,) of ``targets`` (n,) under ``logits`` (n, rows); the sums run in float32."""
    logits = logits.float()
    chosen = logits.gather(1, targets[:, None])[:, 0]
    return torch.logsumexp(logits, dim=1).double() - chosen.double()


@contextmanager
def _replaced_forward(module: torch.nn.Module, output: Any) -> Iterator[None]:
    """Make ``module`` return ``output`` inside the block, without running it."""
    own = module.__dict__.get("forward")
    module.forward = lambda *_, **__: output
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off inside the block."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
