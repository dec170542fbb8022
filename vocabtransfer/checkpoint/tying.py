"""A checkpoint with its head tied or untied, as the tables that are to be made from it need it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vocabtransfer.checkpoint.checkpoint import Checkpoint
from vocabtransfer.checkpoint.layout import VocabTensor
from vocabtransfer.checkpoint.tensors import TensorInfo
from vocabtransfer.errors import VocabTransferError


def with_tying(source: Checkpoint, tied: bool) -> Checkpoint:
    """Return ``source`` with the layout that a tied or untied head gives it.

    A tied checkpoint that is to be untied gets an output table next to its input table, which is read from the same bytes;
    an untied one that is to be tied loses it. Raises `VocabTransferError` when the architecture has no output table of its
    own.
    """
    if source.layout.tied == tied:
        return source
    config = {**source.config, "tie_word_embeddings": tied}
    if tied:
        return _without_output(source, config)
    inputs = [tensor for tensor in source.layout.tensors if tensor.part == "shared"]
    output_name = _output_name(config)
    table = source.tensors[source.layout.input_name]
    twin = replace(source.tensors.get(output_name, table), name=output_name)
    parts = [VocabTensor(tensor.name, "input", 0) for tensor in inputs if tensor.name != output_name]
    rest = [tensor for tensor in source.layout.tensors if tensor.part == "output_bias"]
    layout = replace(source.layout, tensors=(*parts, VocabTensor(output_name, "output", 0), *rest), tied=False)
    if output_name in source.tensors:
        return replace(source, config=config, layout=layout)
    shards = tuple(
        replace(shard, tensors=tuple(_after(shard.tensors, table, twin))) if shard.file == table.file else shard
        for shard in source.shards
    )
    return replace(source, config=config, layout=layout, shards=shards, tensors={**source.tensors, output_name: twin})


def _without_output(source: Checkpoint, config: Mapping[str, Any]) -> Checkpoint:
    gone = {tensor.name for tensor in source.layout.tensors if tensor.part == "output"}
    kept = tuple(
        replace(tensor, part="shared") if tensor.part == "input" else tensor
        for tensor in source.layout.tensors
        if tensor.name not in gone
    )
    shards = tuple(
        replace(shard, tensors=tuple(info for info in shard.tensors if info.name not in gone))
        for shard in source.shards
    )
    tensors = {name: info for name, info in source.tensors.items() if name not in gone}
    layout = replace(source.layout, tensors=kept, tied=True)
    return replace(source, config=dict(config), layout=layout, shards=shards, tensors=tensors)


def _after(tensors: tuple[TensorInfo, ...], table: TensorInfo, twin: TensorInfo) -> list[TensorInfo]:
    place = tensors.index(table) + 1
    return [*tensors[:place], twin, *tensors[place:]]


def _output_name(config: Mapping[str, Any]) -> str:
    """Return what the architecture calls the weight of its head, from a model without weights."""
    import torch
    from transformers import AutoConfig

    from vocabtransfer.checkpoint.model_class import made_from_config

    values = {key: value for key, value in config.items() if key not in ("model_type", "auto_map")}
    try:
        with torch.device("meta"):
            known = AutoConfig.for_model(config["model_type"], **values)
            model = made_from_config(config, known)
    except Exception as problem:
        raise VocabTransferError(
            f"transformers cannot make a {config.get('model_type')} model with a head of its own ({problem})."
        ) from None
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if module is head and head is not None:
            return f"{name}.weight"
    raise VocabTransferError(f"a model of type {config.get('model_type')} has no output table of its own.")
