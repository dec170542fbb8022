"""What the untouched source model makes of its own tokens: states after some layers, and states before the head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.progress import track
from vocabtransfer.running.half_body import halve_where_faster
from vocabtransfer.running.plan import load_for_scoring
from vocabtransfer.running.streamed import run_together, waves

_POSITIONS = 4096  # run at once


@dataclass(eq=False)
class SourceStates:
    """A causal model in a folder, loaded when it is first asked, and the texts it is asked about.

    ``first`` is the id that stands before every text and span: the document separator. ``texts`` gives texts as ids of
    the model's own tokens, int64, none of them empty.
    """

    folder: Path
    first: int
    texts: Callable[[], Sequence[NDArray[np.int64]]]
    _final: NDArray[np.float32] | None = field(default=None, repr=False)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model; float32 on the CPU unless `running_with` says otherwise, products in bfloat16 where that is faster."""
        model = load_for_scoring(self.folder)
        halve_where_faster(model)
        return model

    @cached_property
    def depth(self) -> int:
        """Number of layers."""
        return len(_layers(self.model))

    @property
    def logit_scale(self) -> float:
        """What the model multiplies its logits by."""
        config = self.model.config.get_text_config(decoder=True)
        given = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
        return float(given)

    def span_states(self, spans: Sequence[NDArray[np.integer[Any]]], layers: int) -> NDArray[np.float32]:
        """Return the states after ``layers`` layers at the last token of each span, float32 ``(len(spans), hidden)``.

        Every span is read by itself, behind the separator; none may be empty. Layers above are not run.
        """
        lengths = np.array([len(span) for span in spans])
        result: NDArray[np.float32] | None = None
        batches = []
        for length in np.unique(lengths).tolist():
            alike = np.flatnonzero(lengths == length)
            size = max(_POSITIONS // (length + 1), 1)
            batches += [alike[start : start + size] for start in range(0, len(alike), size)]

        def last(batch: NDArray[np.intp]) -> NDArray[np.float32]:
            ids = torch.tensor([[self.first, *spans[i].tolist()] for i in batch.tolist()], device=self.model.device)
            return self._run(ids, layers)[:, -1].cpu().numpy()

        for together in track(list(waves(batches, self.model)), "reading pieces"):
            found = run_together(self.model, [partial(last, batch) for batch in together])
            for batch, states in zip(together, found, strict=True):
                if result is None:
                    result = np.zeros((len(spans), states.shape[1]), np.float32)
                result[batch] = states
        if result is None:
            raise ValueError("there is no span to read")
        return result

    def text_states(self) -> NDArray[np.float32]:
        """Return the states before the head at every place of the texts, float32 ``(places, hidden)``; computed once."""
        if self._final is None:
            rows: list[NDArray[np.float32]] = []
            for together in track(list(waves(self.texts(), self.model)), "reading text"):
                rows += run_together(self.model, [partial(self._read, text) for text in together])
            self._final = np.concatenate(rows)
        return self._final

    @torch.no_grad()
    def _read(self, text: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the states before the head at every place of one text."""
        ids = torch.from_numpy(np.concatenate([[self.first], text]))[None].to(self.model.device)
        read = self.model.base_model(input_ids=ids, use_cache=False)
        states: NDArray[np.float32] = read.last_hidden_state[0].float().cpu().numpy()
        return states

    @torch.no_grad()
    def _run(self, ids: torch.Tensor, layers: int) -> torch.Tensor:
        """Return the states (batch, length, hidden) after so many layers, and run no more of them."""
        found: list[torch.Tensor] = []

        def stop(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)
            raise _Reached

        hook = _layers(self.model)[layers - 1].register_forward_hook(stop)
        try:
            self.model.base_model(input_ids=ids, use_cache=False)
        except _Reached:
            pass
        finally:
            hook.remove()
        return found[0].float()


class _Reached(Exception):
    """The layer that was wanted has been run."""


def _layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    """Return the list of a model's layers: the longest list of modules in its body."""
    lists = [module for module in model.base_model.modules() if isinstance(module, torch.nn.ModuleList)]
    if not lists:
        raise VocabTransferError(
            f"{type(model).__name__} has no list of layers to stop in: take `method='pieces_characters'`."
        )
    return max(lists, key=len)
