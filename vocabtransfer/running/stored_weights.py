"""The weights of a model on disk, part by part, in the names and shapes that its modules want.

Most checkpoints store what the modules hold. Some do not: experts lie one by one and are run as one tensor, names of old
releases differ. transformers knows these conversions and does them here too, a part at a time. Weights in eight-bit
floats with block scales, and four-bit ones of experts (gpt-oss), are multiplied out as they are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from vocabtransfer.checkpoint.tensors import TensorInfo, load_tensor
from vocabtransfer.errors import VocabTransferError

#: What names the scales of eight-bit weights (DeepSeek V3 and its kind): one float32 for a block of 128 x 128.
SCALE = "_scale_inv"
_BLOCK = 128
_EIGHT_BIT = ("F8_E4M3", "F8_E5M2")
#: What names the two parts of experts in MXFP4: two numbers a byte, and an exponent for 32 of them.
BLOCKS, EXPONENTS = "_blocks", "_scales"


class StoredWeights:
    """Where each tensor of a model that has no weights yet lies on disk.

    Raises `VocabTransferError` for weights that cannot be streamed: quantised in a way that is not known here.
    """

    def __init__(self, model: Any, tensors: Mapping[str, TensorInfo], dtype: torch.dtype, device: torch.device) -> None:
        self._model, self._dtype, self._device = model, dtype, device
        self._tensors = tensors
        self._wanted = model.state_dict()
        self._converted: set[str] = set()  # stored names that do not go into a module as they are
        self._places = self._targets()
        self._precise = _precise_parts(model, dtype)

    def sources(self, prefix: str) -> list[str]:
        """Return the stored names of everything under a module's name, in the order of the disk."""
        found = [name for name, place in self._places.items() if place.startswith(f"{prefix}.")]
        return sorted(found, key=lambda name: (str(self._tensors[name].file), self._tensors[name].begin))

    def exact(self, name: str) -> TensorInfo | None:
        """Return where the tensor of that module name lies, when it is stored as it is used."""
        found = [source for source, place in self._places.items() if place == name]
        if len(found) != 1 or self._needs_conversion(found):
            return None
        info = self._tensors[found[0]]
        return info if info.shape == tuple(self._wanted[name].shape) else None

    def others(self, prefixes: Sequence[str], without: Sequence[str]) -> list[str]:
        """Return the stored names under none of the prefixes and not placed at one of the names ``without``."""
        heads = tuple(f"{prefix}." for prefix in prefixes)
        return [n for n, place in self._places.items() if not place.startswith(heads) and place not in without]

    def bytes_of(self, sources: Sequence[str]) -> int:
        """Return how much memory these tensors take once loaded."""
        width = torch.empty((), dtype=self._dtype).element_size()
        return sum(loaded_elements(name, self._tensors) * width for name in sources)

    def load(self, sources: Sequence[str]) -> None:
        """Read tensors and put them into their modules, in the dtype and on the device asked for."""
        if self._needs_conversion(sources):
            self._load_converted(sources)
            return
        for name in sources:
            place = self._places[name]
            if place in self._wanted:
                put(self._model, place, self._read(name, place))

    def _read(self, name: str, place: str) -> Tensor:
        stored = load_tensor(self._tensors[name])
        wanted = self._kind(place)
        if name.endswith(BLOCKS) and is_packed(name, self._tensors):
            return unpacked(stored, load_tensor(self._tensors[_exponents(name)]), wanted).to(self._device)
        if self._tensors[name].dtype in _EIGHT_BIT:
            scale = self._tensors.get(name + SCALE)
            return multiplied_out(stored, load_tensor(scale) if scale else None).to(self._device, wanted)
        if not stored.is_floating_point():
            return stored.to(self._device, copy=True)
        return stored.to(self._device, wanted, copy=True)

    def _kind(self, place: str) -> torch.dtype:
        """Return the precision of a module's tensor: float32 where its model insists, or its own."""
        if self._precise is not None and self._precise.search(place):
            return torch.float32
        own = self._wanted[place].dtype if place in self._wanted else self._dtype
        return own if own.is_floating_point and own.itemsize > 1 else self._dtype

    def _targets(self) -> dict[str, str]:
        """Return the (first) place that each stored name goes to; note the names that transformers converts."""
        names = [name for name in self._tensors if not name.endswith(SCALE)]
        packed = {name: name.removesuffix(BLOCKS) for name in names if is_packed(name, self._tensors)}
        spent = {_exponents(name) for name in packed}
        names = [name for name in names if name not in spent]
        if all(packed.get(name, name) in self._wanted for name in names):
            return {name: packed.get(name, name) for name in names}
        try:
            from transformers.conversion_mapping import get_model_conversion_mapping
            from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
        except ImportError:
            return {name: _with_prefix(packed.get(name, name), self._model, self._wanted) for name in names}
        mapping = get_model_conversion_mapping(self._model)
        renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
        converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
        prefix = self._model.base_model_prefix
        places: dict[str, str] = {}
        for name in names:
            stands = packed.get(name, name)
            place, pattern = rename_source_key(stands, renamings, converters, prefix, self._wanted)
            if place not in self._wanted and stands in self._wanted:
                place, pattern = stands, None
            places[name] = place
            if pattern is not None:
                self._converted.add(name)
        return places

    def _needs_conversion(self, sources: Sequence[str]) -> bool:
        return not self._converted.isdisjoint(sources)

    def _load_converted(self, sources: Sequence[str]) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig
        from transformers.utils import logging

        parts = {name: self._read(name, self._places[name]) for name in sources}
        config = LoadStateDictConfig(
            dtype=self._dtype,
            dtype_plan=self._model._get_dtype_plan(self._dtype),
            # The mapping remembers which of its rules were used, so each part gets one of its own.
            weight_mapping=cast(Any, get_model_conversion_mapping(self._model)),
            device_map={"": self._device},
        )
        talks = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # it would draw a bar a layer
        try:
            convert_and_load_state_dict_in_model(self._model, parts, config)
        finally:
            if talks:
                logging.enable_progress_bar()


def put(model: Any, name: str, value: Tensor) -> None:
    """Put a tensor in the place of a module's parameter or buffer."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._parameters:
        module._parameters[leaf] = torch.nn.Parameter(value, requires_grad=False)
    else:
        module._buffers[leaf] = value


def multiplied_out(stored: Tensor, scale: Tensor | None) -> Tensor:
    """Return eight-bit weights as float32: each block of 128 x 128 times its scale; as they are without scales.

    Raises `VocabTransferError` when the scales do not belong to the weights.
    """
    values = stored.float()
    if scale is None:
        return values
    if scale.numel() == 1:
        return values * scale.float().reshape(())
    rows, columns = values.shape[-2:]
    wide = scale.float().repeat_interleave(_BLOCK, -2)[..., :rows, :].repeat_interleave(_BLOCK, -1)[..., :columns]
    if wide.shape != values.shape:
        raise VocabTransferError(
            f"Scales of shape {tuple(scale.shape)} do not belong to weights {tuple(values.shape)}."
        )
    return values * wide


def is_packed(name: str, tensors: Mapping[str, TensorInfo]) -> bool:
    """Tell whether a stored tensor holds four-bit numbers of experts, two a byte, with exponents beside it."""
    return name.endswith(BLOCKS) and tensors[name].dtype == "U8" and _exponents(name) in tensors


def loaded_elements(name: str, tensors: Mapping[str, TensorInfo]) -> int:
    """Return how many numbers a stored tensor holds once it is loaded; none for scales, which go into their weights."""
    if name.endswith(SCALE) or (name.endswith(EXPONENTS) and is_packed_by(name, tensors)):
        return 0
    count = math.prod(tensors[name].shape)
    return 2 * count if is_packed(name, tensors) else count


def is_packed_by(name: str, tensors: Mapping[str, TensorInfo]) -> bool:
    """Tell whether a stored tensor holds the exponents of packed experts."""
    blocks = name.removesuffix(EXPONENTS) + BLOCKS
    return blocks in tensors and is_packed(blocks, tensors)


def _exponents(name: str) -> str:
    return name.removesuffix(BLOCKS) + EXPONENTS


def unpacked(blocks: Tensor, exponents: Tensor, dtype: torch.dtype) -> Tensor:
    """Return experts in MXFP4 multiplied out, ``(experts, inputs, outputs)``.

    ``blocks`` uint8 ``(experts, outputs, groups, 16)`` holds two numbers a byte, ``exponents`` uint8 ``(experts, outputs,
    groups)`` one exponent, 127 more than it is, for the 32 numbers of a group (Open Compute Project, Microscaling Formats
    1.0). transformers does it, one expert at a time: all at once would take several times the memory of the result.
    """
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    experts, outputs, groups, half = blocks.shape
    result = torch.empty((experts, 2 * groups * half, outputs), dtype=dtype)
    for expert in range(experts):
        one = slice(expert, expert + 1)
        result[one] = convert_moe_packed_tensors(blocks[one], exponents[one], dtype=dtype)
    return result


def _with_prefix(name: str, model: Any, wanted: Mapping[str, Any]) -> str:
    prefix = f"{model.base_model_prefix}."
    if name not in wanted and prefix + name in wanted:
        return prefix + name
    if name not in wanted and name.removeprefix(prefix) in wanted:
        return name.removeprefix(prefix)
    return name


def _precise_parts(model: Any, dtype: torch.dtype) -> re.Pattern[str] | None:
    """Return what finds the names that transformers keeps in float32 whatever the model's precision, None for no such."""
    if dtype == torch.float32:
        return None
    strict = getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    half = getattr(model, "_keep_in_fp32_modules", None) or () if dtype == torch.float16 else ()
    # transformers reads these names as patterns, with * for anything.
    found = "|".join(name.replace("*", ".*") for name in sorted({*strict, *half}))
    return re.compile(found) if found else None
