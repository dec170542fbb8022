"""Other vocabulary tables in a loaded model, for as long as they are measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


@contextmanager
def with_tables(
    model: PreTrainedModel, table: Tensor, head: Tensor | None = None, bias: Tensor | None = None
) -> Iterator[PreTrainedModel]:
    """Give ``model`` other tables inside the block, so that many can be measured with one body in memory.

    ``table`` is the input table, float32 ``(rows, hidden)``; ``head`` the output table of the same shape, None when it is
    the input table or there is no head; ``bias`` the head's bias ``(rows,)``, None when it has none. A tied model may get
    a head of its own. The model's own tables, and the sizes in its configuration, are put back at the end.
    """
    embedding: Any = model.get_input_embeddings()
    output: Any = model.get_output_embeddings()
    config = model.config.get_text_config(decoder=True)
    kept = (embedding.weight, embedding.num_embeddings, embedding.padding_idx, config.vocab_size)
    kept_output = (output.weight, output.bias, output.out_features) if output is not None else None
    here: dict[str, Any] = {"device": model.device, "dtype": embedding.weight.dtype}
    try:
        embedding.weight = torch.nn.Parameter(table.to(**here), requires_grad=False)
        embedding.num_embeddings, embedding.padding_idx, config.vocab_size = len(table), None, len(table)
        if output is not None:
            rows = embedding.weight if head is None else torch.nn.Parameter(head.to(**here), requires_grad=False)
            output.weight, output.out_features = rows, len(rows)
            output.bias = torch.nn.Parameter(bias.to(**here), requires_grad=False) if bias is not None else None
        yield model
    finally:
        embedding.weight, embedding.num_embeddings, embedding.padding_idx, config.vocab_size = kept
        if kept_output is not None:
            output.weight, output.bias, output.out_features = kept_output
