"""An ordinary transformers model for each head, all sharing one body.

A view is a copy of the few modules between the model's root and its two tables; everything below them (layers, norms,
rotary embeddings) is the very same objects. Each view has its own config, generation config and tying, so whatever
works with a transformers model works with a view, at the speed of the plain model; and threads that use different
heads share nothing that changes. Making a view copies a few dozen Python objects and no tensor.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.hydra.loaded import LoadedHead
from vocabtransfer.hydra.settings import set_values

# What accelerate and torch.compile leave on a module; it is bound to the original, so a copy must not inherit it.
_BOUND = ("forward", "_old_forward", "_hf_hook", "_compiled_call_impl")
# The mark that transformers leaves on a model whose layers have its hooks for hidden states.
HOOKED = "_output_capturing_hooks_installed"


class Slots:
    """Where the two tables are in a backbone: the names of their modules."""

    def __init__(self, model: Any) -> None:
        self.input = _name_of(model, model.get_input_embeddings())
        self.output = _name_of(model, model.get_output_embeddings())


def make_view(
    backbone: Any, slots: Slots, input_head: LoadedHead, output_head: LoadedHead, *, whole: bool = False
) -> Any:
    """Return the backbone as a model that reads with one head and writes with another (or the same).

    Sizes, ids and generation settings are the output head's. With ``whole``, all modules are copied (no parameters),
    so that they can be changed without a trace in the backbone.
    """
    twin = twin_whole(backbone) if whole else twin_paths(backbone, slots)
    replace_module(twin, slots.input, embedding_module(twin.get_submodule(slots.input), input_head))
    replace_module(twin, slots.output, output_module(twin.get_submodule(slots.output), output_head))
    _set_config(twin, slots, output_head, tied=input_head is output_head and input_head.tied)
    if not whole:
        share_capture(twin, backbone, slots)
    twin.generation_config = copy.deepcopy(output_head.generation_config)
    return twin


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another, by its name."""
    parent, _, last = name.rpartition(".")
    model.get_submodule(parent)._modules[last] = module


def path_modules(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """Yield the modules from the root to the parent of ``name``."""
    module = model
    yield module
    for part in name.split(".")[:-1]:
        module = module._modules[part]  # type: ignore[assignment]
        yield module


def twin_of(module: nn.Module) -> Any:
    """Return a copy of one module: same class, same children and parameters, its own tables of them."""
    twin: Any = object.__new__(type(module))
    state = {key: value for key, value in module.__dict__.items() if key not in _BOUND}
    # The tables of children, parameters, buffers and hooks are the module's own; what they hold is shared.
    twin.__dict__.update({key: copy.copy(v) if isinstance(v, dict | set) else v for key, v in state.items()})
    return twin


def twin_paths(model: nn.Module, slots: Slots) -> Any:
    """Return a model whose modules on the way to the two tables are copies."""
    root = twin_of(model)
    copied = {""}
    for name in (slots.input, slots.output):
        parts = name.split(".")
        for depth in range(1, len(parts)):
            path = ".".join(parts[:depth])
            if path not in copied:
                copied.add(path)
                replace_module(root, path, twin_of(root.get_submodule(path)))
    return root


def share_capture(twin: Any, original: Any, slots: Slots) -> None:
    """Make a view and its original install transformers' hooks for hidden states and attentions once for both.

    The hooks sit on the layers, which are shared; without this, each view would add its own, and every hidden state
    would be returned as many times as there are views.
    """
    seen = set()
    for name in (slots.input, slots.output):
        for copied, source in zip(path_modules(twin, name), path_modules(original, name), strict=True):
            if source not in seen and _captures(source):
                seen.add(source)
                copied.register_forward_pre_hook(_CaptureOnce(source), with_kwargs=True)


def _captures(module: nn.Module) -> bool:
    """Tell whether a module's forward is the one that installs hooks: transformers marks it with a decorator."""
    function = getattr(type(module), "forward", None)
    while function is not None:
        if "capture_outputs" in function.__code__.co_qualname:
            return True
        function = getattr(function, "__wrapped__", None)
    return False


class _CaptureOnce:
    """Before a view's forward: see to it that hooks are on the original if wanted, and that the view knows of them."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __call__(self, module: Any, _inputs: Any, named: Mapping[str, Any]) -> None:
        if module.__dict__.get(HOOKED):
            return
        config = module.config
        wanted = any(key.startswith("output_") and value for key, value in named.items())
        if wanted or getattr(config, "output_hidden_states", False) or getattr(config, "output_attentions", False):
            maybe_install_capturing_hooks(self.source)
        if self.source.__dict__.get(HOOKED):
            setattr(module, HOOKED, True)


def twin_whole(module: nn.Module) -> Any:
    """Return a copy of a module and of all modules below it; the parameters are shared."""
    twin = twin_of(module)
    for name, child in twin._modules.items():
        if child is not None:
            twin._modules[name] = twin_whole(child)
    return twin


def embedding_module(module: nn.Module, head: LoadedHead) -> nn.Module:
    """Return a copy of an embedding module with a head's input table."""
    twin: Any = twin_of(module)
    twin._parameters["weight"] = head.tables.input
    twin.num_embeddings = head.rows
    if twin.__dict__.get("padding_idx") is not None:
        twin.padding_idx = head.pad_id
    return twin  # type: ignore[no-any-return]


def output_module(module: nn.Module, head: LoadedHead) -> nn.Module:
    """Return a copy of an output module with a head's output table and bias."""
    twin: Any = twin_of(module)
    twin._parameters["weight"] = head.tables.output
    twin.out_features = head.rows
    if "bias" in twin._parameters:
        twin._parameters["bias"] = head.tables.bias
    twin.register_forward_pre_hook(_contiguous)
    return twin  # type: ignore[no-any-return]


def _contiguous(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Lay states out in order: of the last places of texts, and a table that is not trained, torch copies the table.

    ``F.linear`` makes a batched product of such states and expands the weight once a text: gigabytes, and a hundred
    times the time, for each prompt. Weights that want a gradient are spared, so a plain model does not show it.
    """
    return tuple(each.contiguous() if isinstance(each, torch.Tensor) else each for each in inputs)


def _set_config(twin: Any, slots: Slots, head: LoadedHead, *, tied: bool) -> None:
    """Give the copied modules a config of their own that speaks of the head's vocabulary."""
    config = copy.deepcopy(twin.config)
    values = {**head.stored.config.values, "tie_word_embeddings": tied, "vocab_size": head.rows}
    set_values(config, values)
    text = config.get_text_config()
    if text is not config:
        text.vocab_size = head.rows
    for name in (slots.input, slots.output):
        for module in path_modules(twin, name):
            own = module.__dict__.get("config")
            if own is not None:
                module.config = config if type(own) is type(config) else text
            if isinstance(module.__dict__.get("vocab_size"), int):
                module.vocab_size = head.rows  # type: ignore[assignment]
    if hasattr(twin, "get_expanded_tied_weights_keys"):
        twin.all_tied_weights_keys = twin.get_expanded_tied_weights_keys(all_submodels=False)


def _name_of(model: Any, wanted: nn.Module | None) -> str:
    for name, module in model.named_modules():
        if module is wanted and wanted is not None and isinstance(getattr(module, "weight", None), torch.Tensor):
            return str(name)
    raise VocabTransferError(f"{type(model).__name__} has no input or output table that a head could stand for.")
