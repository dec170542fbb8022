"""A model whose layers are read from disk when they are run, so that the memory it needs is that of a layer or two.

The model is transformers' own, made without weights; hooks put a layer's weights in before it runs and take them out
after it. While a layer runs, the next one is read. `run_together` runs many batches layer by layer, so that each layer
is read once for all of them; a batch sees the same operations in the same order as with the whole model in memory, and
gives the same bits. Tables are never loaded: rows are gathered as ids ask for them, and the head is multiplied in blocks
of rows when it is too large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, TypeVar, cast

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor, nn
from transformers import PreTrainedModel

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.checkpoint.tensors import load_tensor
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.running.stored_weights import StoredWeights, put

Result = TypeVar("Result")
Item = TypeVar("Item")
#: Batches that a streamed model carries through a layer together: at 2,048 positions of width 4,096 half a gigabyte.
BATCHES_A_LAYER = 16
#: How a body may be quantised that is read layer by layer.
READABLE = (None, "fp8", "mxfp4")
#: Embeddings with fewer numbers are loaded like everything else outside the layers.
TABLE_ELEMENTS = 1 << 22
#: A head is multiplied in blocks of rows of at most this many bytes.
HEAD_BYTES = 1 << 30


@dataclass(eq=False)
class _Unit:
    """One layer: its stored tensors, and the empty tensors that stand in for them while it is not loaded."""

    name: str
    module: nn.Module
    sources: list[str]
    nbytes: int
    after: _Unit | None = None
    empty: dict[str, nn.Parameter] = field(default_factory=dict)
    loaded: bool = False
    kept: bool = False


class LayerStream:
    """What loads and drops the layers of one model; `open_streamed` makes it.

    ``keep_bytes`` is how much memory may hold layers from one pass to the next: the first layers stay. ``layer_bytes``
    is the largest layer; about two of them are in memory at a time. ``spare_bytes`` is what is left when all layers stay.
    """

    def __init__(self, model: Any, weights: StoredWeights, keep_bytes: int = 0) -> None:
        self._model, self._weights = model, weights
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="next layer")
        self._coming: dict[_Unit, Future[None]] = {}
        self._tasks: set[Any] = set()
        self.read_bytes = 0
        self.units = [unit for parts in _layer_lists(model) for unit in self._units_of(*parts)]
        self.layer_bytes = max((unit.nbytes for unit in self.units), default=0)
        for unit in self.units:
            unit.kept = unit.nbytes <= keep_bytes
            if not unit.kept:
                break
            keep_bytes -= unit.nbytes
        self.spare_bytes = keep_bytes if all(unit.kept for unit in self.units) else 0
        for unit in self.units:
            unit.module.register_forward_pre_hook(lambda _m, _i, unit=unit: self._enter(unit))
            unit.module.register_forward_hook(lambda _m, _i, _o, unit=unit: self._leave(unit))

    def _units_of(self, name: str, layers: nn.ModuleList) -> list[_Unit]:
        units = []
        for i, module in enumerate(layers):
            sources = self._weights.sources(f"{name}.{i}")
            unit = _Unit(f"{name}.{i}", module, sources, self._weights.bytes_of(sources))
            unit.empty = {key: value for key, value in module.named_parameters() if value.is_meta}
            units.append(unit)
        for unit, after in pairwise(units):
            unit.after = after
        return units

    def _load(self, unit: _Unit) -> None:
        self._weights.load(unit.sources)
        unfilled = [key for key, value in unit.module.named_parameters() if value.is_meta]
        if unfilled:
            raise VocabTransferError(f"The checkpoint has no weights for {unit.name}.{unfilled[0]}, so it cannot run.")

    def _ensure(self, unit: _Unit) -> None:
        coming = self._coming.pop(unit, None)
        if coming is not None:
            coming.result()
        elif not unit.loaded:
            self._load(unit)
        if not unit.loaded:
            unit.loaded = True
            self.read_bytes += unit.nbytes
        after = unit.after
        if after is not None and not after.loaded and after not in self._coming:
            self._coming[after] = self._reader.submit(self._load, after)

    def _drop(self, unit: _Unit) -> None:
        if unit.kept:
            return
        for key, value in unit.empty.items():
            path, _, leaf = key.rpartition(".")
            unit.module.get_submodule(path)._parameters[leaf] = value
        unit.loaded = False

    def _enter(self, unit: _Unit) -> None:
        task = getcurrent()
        if task in self._tasks:
            task.parent.switch(unit)
        else:
            self._ensure(unit)

    def _leave(self, unit: _Unit) -> None:
        if getcurrent() not in self._tasks:
            self._drop(unit)

    def run(self, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run calls of the model side by side, each layer read once for all that need it; results in their order."""
        results: list[Any] = [None] * len(calls)

        def task(i: int) -> Callable[[], None]:
            def body() -> None:
                results[i] = calls[i]()

            return body

        waiting: dict[_Unit, list[Any]] = {}

        def go_on(one: Any) -> None:
            asked = one.switch()
            if not one.dead:
                waiting.setdefault(asked, []).append(one)

        tasks = [greenlet(task(i)) for i in range(len(calls))]
        self._tasks.update(tasks)
        try:
            with torch.no_grad():
                for one in tasks:
                    go_on(one)
                while waiting:
                    unit = max(waiting, key=lambda unit: len(waiting[unit]))
                    self._ensure(unit)
                    for one in waiting.pop(unit):
                        go_on(one)
                    self._drop(unit)
        finally:
            self._tasks.difference_update(tasks)
            for one in tasks:
                if not one.dead and one:
                    one.throw()
        return results

    def close(self) -> None:
        """Drop every layer and end the reading thread."""
        self._reader.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()
        for unit in self.units:
            unit.kept = False
            self._drop(unit)


def open_streamed(
    checkpoint: Checkpoint,
    make: Callable[[], PreTrainedModel],
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    keep_bytes: int = 0,
) -> PreTrainedModel:
    """Open a checkpoint as a model that reads its layers when they are run.

    Args:
        checkpoint: the opened checkpoint.
        make: makes the model from its configuration; called with parameters left empty.
        dtype: what it computes in. Stored weights are converted as they are read.
        device: where it runs.
        keep_bytes: memory that may hold layers from one pass to the next, and the head when all layers stay.

    The model is for inference: nothing in it can be trained or saved. `stream_of` gives its `LayerStream`.

    Raises:
        VocabTransferError: a weight that the model needs is not stored, or its quantisation is not known here.
    """
    from accelerate import init_empty_weights

    quantised = (checkpoint.config.get("quantization_config") or {}).get("quant_method")
    if quantised not in READABLE:
        raise VocabTransferError(f"{checkpoint.name} is quantised by {quantised}, which cannot be read layer by layer.")
    with init_empty_weights(include_buffers=False):
        model: Any = make()
    model.tie_weights()
    model.eval().requires_grad_(False)
    place = torch.device(device)
    weights = StoredWeights(model, checkpoint.tensors, dtype, place)
    stream = LayerStream(model, weights, keep_bytes)
    tables = _stand_in_tables(model, weights, dtype, place, stream.spare_bytes)
    weights.load(weights.others([unit.name for unit in stream.units], tables))
    model.tie_weights()  # a small table was put in anew: what shared the empty one shares it again
    for name, buffer in model.named_buffers():
        if buffer.device != place:
            put(model, name, buffer.to(place))
    layered = tuple(f"{unit.name}." for unit in stream.units)
    lacking = [
        name for name, value in model.named_parameters() if value.is_meta and not name.startswith((*layered, *tables))
    ]
    if lacking:
        raise VocabTransferError(f"{checkpoint.name} has no weights for {lacking[0]}, so it cannot run.")
    # Callers put their inputs where the model says it is, and its first parameter stays empty.
    own = type(model)
    model.__class__ = type(own.__name__, (own,), {"device": property(lambda _: place), "__module__": own.__module__})
    model.layer_stream = stream
    return cast(PreTrainedModel, model)


def stream_of(model: Any) -> LayerStream | None:
    """Return what loads a model's layers; None for a model that is in memory."""
    found = getattr(model, "layer_stream", None)
    return found if isinstance(found, LayerStream) else None


def run_together(model: Any, calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run calls of a model: one after the other when it is in memory, layer by layer when it is streamed.

    ``calls`` share nothing but the model. Their activations are in memory together when it is streamed.
    """
    stream = stream_of(model)
    return stream.run(calls) if stream is not None else [call() for call in calls]


def waves(batches: Iterable[Item], model: Any) -> Iterator[list[Item]]:
    """Yield the batches that run together: one, or as many as a streamed model takes through each layer it reads."""
    most, rest = (BATCHES_A_LAYER if stream_of(model) is not None else 1), iter(batches)
    while wave := list(islice(rest, most)):
        yield wave


def _layer_lists(model: Any) -> list[tuple[str, nn.ModuleList]]:
    """Return the outermost lists of modules that hold parameters: the layers of a body, of a vision tower ..."""
    found: list[tuple[str, nn.ModuleList]] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer, _ in found)
        if isinstance(module, nn.ModuleList) and not inside and len(module) > 0 and _parameters(module):
            found.append((name, module))
    return found


def _parameters(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def _stand_in_tables(
    model: Any, weights: StoredWeights, dtype: torch.dtype, device: torch.device, spare_bytes: int
) -> list[str]:
    """Let large embeddings and the head take their rows from the disk; return the names of their weights.

    A head of at most ``spare_bytes`` stays in memory once it was read.
    """
    names: list[str] = []
    tables: dict[int, Any] = {}
    head, rows = model.get_output_embeddings(), len(model.get_input_embeddings().weight)
    for name, module in model.named_modules():
        key = f"{name}.weight"
        # Tables of positions do arithmetic on what they are given, and are small.
        if isinstance(module, nn.Embedding) and module.num_embeddings >= rows and _is_large(module):
            info = weights.exact(key)
            if info is not None:
                stored = tables.setdefault(id(module.weight), load_tensor(info))
                vars(module)["forward"] = _gathering(module, stored, dtype, device)
                names.append(key)
    for name, module in model.named_modules():
        key = f"{name}.weight"
        if module is head and isinstance(module, nn.Linear) and _is_large(module):
            info = weights.exact(key)
            stored = load_tensor(info) if info is not None else tables.get(id(module.weight))
            if stored is not None:
                stays = stored.numel() * dtype.itemsize <= spare_bytes
                vars(module)["forward"] = _multiplying(module, stored, dtype, device, stays)
                names.append(key)
    return names


def _is_large(module: nn.Embedding | nn.Linear) -> bool:
    return module.weight.numel() >= TABLE_ELEMENTS


def _gathering(module: Any, stored: Tensor, dtype: torch.dtype, device: torch.device) -> Callable[[Tensor], Any]:
    """Return a forward pass that reads just the rows its ids name; another weight put into the module is used as it is."""
    plain = module.forward

    def forward(input: Tensor) -> Any:
        if not module.weight.is_meta:
            return plain(input)
        used, places = torch.unique(input, return_inverse=True)
        kept = module._parameters["weight"], module.num_embeddings, module.padding_idx
        rows = stored[used.cpu()].to(device, dtype)
        try:
            module._parameters["weight"] = nn.Parameter(rows, requires_grad=False)
            module.num_embeddings, module.padding_idx = len(rows), None
            return plain(places)
        finally:
            module._parameters["weight"], module.num_embeddings, module.padding_idx = kept

    return forward


def _multiplying(
    module: Any, stored: Tensor, dtype: torch.dtype, device: torch.device, stays: bool
) -> Callable[[Tensor], Any]:
    """Return a forward pass of the head over blocks of its stored rows, which stay once they were read or are dropped."""
    plain = module.forward
    block = max(HEAD_BYTES // (stored.shape[1] * dtype.itemsize), 1)
    kept: list[Tensor] = []

    def blocks() -> Iterable[Tensor]:
        if kept:
            return kept
        read = (stored[i : i + block].to(device, dtype) for i in range(0, len(stored), block))
        if stays:
            kept.extend(read)
        return kept or read

    def forward(input: Tensor) -> Any:
        if not module.weight.is_meta:
            return plain(input)
        input = input.contiguous()  # for a slice of states, torch would copy the rows once for each text
        parts = [nn.functional.linear(input, rows) for rows in blocks()]
        result = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return result if module.bias is None else result + module.bias.to(device, dtype)

    return forward
