"""A LoRA adapter as the adapted model: its vocabulary tables go one way, its layer updates another.

PEFT writes an adapter as a folder: ``adapter_config.json`` and ``adapter_model.safetensors`` with a pair
``lora_A (r, in)``, ``lora_B (out, r)`` for each adapted matrix and whole tensors for what was trained in full
(``modules_to_save``; embeddings and head, usually). In Learned Embedding Propagation (arXiv 2412.21140) the tables are
propagated, and the layer updates are added to the instruct model's layers afterwards.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vocabtransfer.checkpoint import Checkpoint, TensorInfo, open_checkpoint
from vocabtransfer.checkpoint.adapters import CONFIG_NAME, PREFIX, WEIGHTS_NAME
from vocabtransfer.checkpoint.layout import FLOATS
from vocabtransfer.checkpoint.shards import Change
from vocabtransfer.checkpoint.table_names import OUTPUT_NAMES
from vocabtransfer.checkpoint.tensors import load_tensor, read_shard
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import read_json
from vocabtransfer.propagation.body import Difference, rows_of, task_arithmetic
from vocabtransfer.propagation.checks import body, is_arithmetic, same_bytes
from vocabtransfer.public import public
from vocabtransfer.tokenization.load import VOCABULARY_FILES

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
# What makes an update more than the product of two matrices, or lets it act on a part of the tokens only.
UNSUPPORTED_OPTIONS = (
    *("use_dora", "use_qalora", "use_bdlora", "bias", "lora_bias", "layer_replication", "arrow_config"),
    *("alora_invocation_tokens", "trainable_token_indices", "target_parameters", "monteclora_config", "kasa_config"),
)


@dataclass(frozen=True)
class LoraUpdate:
    """One adapted matrix: the update is ``scale * B @ A``, transposed where the layer stores ``(in, out)``."""

    down: TensorInfo
    up: TensorInfo
    scale: float
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the update, as the layer stores its matrix."""
        shape = (self.up.shape[0], self.down.shape[1])
        return (shape[1], shape[0]) if self.transposed else shape

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start..stop`` of the update, float64."""
        up, down = load_tensor(self.up).to(torch.float64), load_tensor(self.down).to(torch.float64)
        product = down[:, start:stop].T @ up.T if self.transposed else up[start:stop] @ down
        return self.scale * product


@dataclass(frozen=True, eq=False)
class LoraDonor:
    """An adapter split in two.

    ``checkpoint`` is the model it was trained on with the adapter's tokenizer and tables; ``updates`` are the low-rank
    layer updates and ``replaced`` other tensors trained in full, both by the name of the tensor.
    """

    checkpoint: Checkpoint
    updates: Mapping[str, LoraUpdate]
    replaced: Mapping[str, TensorInfo]

    def changes(self, base: Checkpoint, instruct: Checkpoint, weight: float) -> dict[str, Change]:
        """Return the instruct model's tensors with ``weight`` times the layer part added, by name.

        The layer part is all that tells the adapted layers from the base model's: the updates, the replaced tensors,
        and what the model that the adapter was trained on had changed before.
        """
        if not weight:
            return {}
        changes = task_arithmetic(base, self.checkpoint, instruct, weight)
        for name, update in self.updates.items():
            is_arithmetic(name, instruct.tensors[name])
            changes[name] = _Merged(instruct.tensors[name], changes.get(name), update, weight)
        for name, after in self.replaced.items():
            changes[name] = Difference(instruct.tensors[name], base.tensors[name], after, weight)
        return changes


@dataclass(frozen=True)
class _Merged:
    info: TensorInfo
    before: Change | None
    update: LoraUpdate
    weight: float

    def __call__(self, start: int, stop: int) -> torch.Tensor:
        rows = self.before(start, stop) if self.before is not None else rows_of(self.info, start, stop)
        return rows + self.weight * self.update.rows(start, stop)


@public
def open_adapted(reference: str | Path, base: Checkpoint, **options: Any) -> Checkpoint | LoraDonor:
    """Open the adapted model: anything that `open_checkpoint` opens, or the folder of a PEFT LoRA adapter.

    Args:
        reference: folder, alias, hub id or GGUF file; a folder with adapter_config.json is an adapter.
        base: the base model, which an adapter without tables of its own stands on.
        options: passed on to `open_checkpoint`.

    Raises:
        VocabTransferError: the adapter is damaged, of a kind that is not plain LoRA, fits no tensor of the base model,
            or has no embedding table.
        UsageError: the name means nothing.
    """
    folder = Path(reference).expanduser()
    if not (folder / CONFIG_NAME).is_file():
        return open_checkpoint(reference, **options)
    config = read_json(folder / CONFIG_NAME)
    if config.get("peft_type") != "LORA":
        raise VocabTransferError(f"{folder} is a {config.get('peft_type')} adapter: only LoRA adapters can be split.")
    if not (folder / WEIGHTS_NAME).is_file():
        raise VocabTransferError(f"{folder} has no {WEIGHTS_NAME}: save the adapter in the safetensors format.")
    found = {_plain_name(info.name): info for info in read_shard(folder / WEIGHTS_NAME).tensors}
    _refuse_unsupported(folder, found, config)
    home = _home(folder, found, config, base, options)
    modules = sorted(name.removesuffix(DOWN) for name in found if name.endswith(DOWN))
    updates = dict(_update(folder, module, found, config, home) for module in modules)
    tables: dict[str, TensorInfo] = {}
    replaced: dict[str, TensorInfo] = {}
    for name, info in sorted(found.items()):
        if name.endswith((DOWN, UP)):
            continue
        table = _table_name(home, name)
        if table is not None:
            tables[table] = info
        else:
            replaced[_target(folder, name, home)] = info
    for name, info in replaced.items():
        if info.shape != home.tensors[name].shape or info.dtype not in FLOATS:
            raise VocabTransferError(
                f"{folder} has {name!r} as {info.dtype} {list(info.shape)}, but the model {home.name} has it with shape "
                f"{list(home.tensors[name].shape)}."
            )
    return LoraDonor(_with_tables(folder, home, tables), updates, replaced)


def _plain_name(name: str) -> str:
    """Return the name of the tensor in the model: PEFT's prefix and the names of its wrappers taken away."""
    plain = name.removeprefix(PREFIX).replace(".modules_to_save.", ".").replace(".base_layer.", ".")
    return re.sub(r"\.(lora_[AB])\.(?!weight$)[^.]+\.weight$", r".\1.weight", plain)


def _refuse_unsupported(folder: Path, found: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> None:
    advice = "which is not supported: merge the adapter into its base model with PEFT and give that folder"
    for option in UNSUPPORTED_OPTIONS:
        if config.get(option) not in (None, False, "none", [], {}):
            raise VocabTransferError(f"{folder} uses {option} of PEFT, {advice}.")
    for name in sorted(found):
        if "lora_" in name and not name.endswith((DOWN, UP)):
            raise VocabTransferError(f"{folder} has {name!r}, {advice}.")


def _home(
    folder: Path,
    found: Mapping[str, TensorInfo],
    config: Mapping[str, Any],
    base: Checkpoint,
    options: Mapping[str, Any],
) -> Checkpoint:
    """Return the model that the adapter stands on, as its configuration names it; the base where it needs no other."""
    name = str(config.get("base_model_name_or_path") or "")
    place = Path(name).expanduser()
    if name == base.name or (place.is_dir() and place.resolve() == base.path.resolve()):
        return base
    lacking = None if _has_tokenizer(folder) else "tokenizer"
    for tensor in base.layout.tensors:
        if tensor.part != "output_bias" and not any(_same_name(own, tensor.name) for own in found):
            lacking = f"table {tensor.name!r}"
            break
    if lacking is None and not place.is_dir():
        return base
    try:
        return open_checkpoint(name, **options)
    except VocabTransferError as problem:
        if lacking is None:
            return base
        raise VocabTransferError(
            f"{folder} has no {lacking} and the model {name!r} that it was trained on cannot be opened ({problem}): put "
            "that model in its place, or save the adapter with tokenizer, embeddings and head (modules_to_save)."
        ) from None


def _has_tokenizer(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in VOCABULARY_FILES)


def _table_name(home: Checkpoint, name: str) -> str | None:
    """Return the name of the table (or head's bias) that a tensor of the adapter is; None for a part of the body.

    The head of a tied model may have no name of its own on disk; then it is known by what heads are called.
    """
    own = next((tensor.name for tensor in home.layout.tensors if _same_name(name, tensor.name)), None)
    is_head = home.layout.tied and any(re.fullmatch(pattern, name) for pattern in OUTPUT_NAMES)
    return own if own is not None or not is_head else name


def _same_name(one: str, other: str) -> bool:
    """Tell whether two names mean one tensor: some files leave out the first part (``transformer.``)."""
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _update(
    folder: Path, module: str, found: Mapping[str, TensorInfo], config: Mapping[str, Any], home: Checkpoint
) -> tuple[str, LoraUpdate]:
    down, up = found[f"{module}{DOWN}"], found.get(f"{module}{UP}")
    if up is None or len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != up.shape[1]:
        raise VocabTransferError(f"{folder} is damaged: the two LoRA matrices of {module!r} do not fit together.")
    rank = down.shape[0]
    alpha = float(_by_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", rank)))
    update = LoraUpdate(
        down, up, alpha / (rank**0.5 if config.get("use_rslora") else rank), bool(config.get("fan_in_fan_out"))
    )
    name = _target(folder, f"{module}.weight", home)
    if update.shape != home.tensors[name].shape:
        raise VocabTransferError(
            f"{folder} updates {name!r} with a matrix of {list(update.shape)}, but that tensor of the base model has "
            f"shape {list(home.tensors[name].shape)}."
        )
    return name, update


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """Return the value of the first pattern that matches the end of a module's name, as PEFT does it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _target(folder: Path, name: str, home: Checkpoint) -> str:
    matches = [own for own in body(home) if _same_name(name, own)]
    if len(matches) != 1:
        raise VocabTransferError(
            f"{folder} changes {name!r}, which is no tensor of the model {home.name}: the adapter belongs to another."
        )
    return matches[0]


def _with_tables(folder: Path, home: Checkpoint, tables: Mapping[str, TensorInfo]) -> Checkpoint:
    """Return the model with the adapter's tables, and with its tokenizer if it brings one."""
    parts = home.layout.tensors
    if home.layout.tied and tables:  # a copy of the table under a second name need not be in the adapter
        copies = [info for name, info in tables.items() if name != home.layout.bias_name]
        if any(not same_bytes(copies[0], other) for other in copies[1:]):
            raise VocabTransferError(
                f"{folder} trained input and output table apart, but its base model ties them: untie that model first."
            )
        parts = tuple(part for part in parts if part.name in tables or part.part == "output_bias")
    infos = {part.name: tables.get(part.name, home.tensors[part.name]) for part in parts}
    sizes = {infos[part.name].shape[part.axis] for part in parts}
    widths = {infos[part.name].shape[1] for part in parts if part.part != "output_bias"}
    if len(sizes) > 1 or widths != {home.layout.hidden}:
        shapes = ", ".join(f"{name!r} {list(info.shape)}" for name, info in sorted(infos.items()))
        raise VocabTransferError(f"{folder} has tables that do not fit the rest of its model: {shapes}.")
    dropped = {part.name for part in home.layout.tensors} - infos.keys()
    return replace(
        home,
        path=folder if _has_tokenizer(folder) else home.path,
        name=folder.resolve().name,
        tensors={**{name: info for name, info in home.tensors.items() if name not in dropped}, **infos},
        layout=replace(home.layout, tensors=parts, rows=sizes.pop()),
    )
