"""What training leaves behind: a checkpoint like the one it began with, or a PEFT adapter."""

import enum
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from vocabtransfer.checkpoint import Checkpoint, WriteReport, check_target
from vocabtransfer.checkpoint.plan import Link
from vocabtransfer.checkpoint.rewrite import update_checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.cards import card_header, one_line
from vocabtransfer.files.copying import place_file
from vocabtransfer.files.manifest import write_manifest
from vocabtransfer.files.staging import settled, staged_folder
from vocabtransfer.tokenization.load import VOCABULARY_FILES
from vocabtransfer.training.stages import table_parameters
from vocabtransfer.training.state import write_tensors
from vocabtransfer.version import __version__

FACTS_FILE = "adapt.json"
CARD = "README.md"
_PREFIX = "base_model.model."
_TOKENIZER_FILES = (
    *VOCABULARY_FILES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "chat_template*"),
)


def file_names(checkpoint: Checkpoint, model: PreTrainedModel, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return, for parameters of the model, the tensors of the checkpoint that hold them: both copies of a tied table.

    Raises `VocabTransferError` naming a parameter that the files hold under another name or in another shape, as
    for mixtures of experts: such a model could be trained but not written back.
    """
    tables = table_parameters(model)
    table = next(name for name, parameter in tables.items() if parameter is model.get_input_embeddings().weight)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    found = {}
    for name in names:
        if name in tables:
            parts = ("input", "shared") if name == table else ("output_bias" if len(shapes[name]) == 1 else "output",)
            found[name] = tuple(
                tensor.name for tensor in checkpoint.layout.tensors if tensor.part in parts and not tensor.further
            )
        else:
            # Some files leave out the name of the model around its layers (`transformer.`), or have one more.
            own = [
                own for own in checkpoint.tensors if own == name or own.endswith(f".{name}") or name.endswith(f".{own}")
            ]
            found[name] = (name,) if name in own else tuple(own)
        if not found[name] or (len(found[name]) != 1 and name not in tables):
            raise VocabTransferError(
                f"{checkpoint.name} keeps {name!r} under another name or in other parts in its files, so it could not be "
                "written back: train the tables only (stages new and tables)."
            )
        for own_name in found[name]:
            if checkpoint.tensors[own_name].shape[-len(shapes[name]) :] != shapes[name]:
                raise VocabTransferError(
                    f"{own_name!r} has shape {list(checkpoint.tensors[own_name].shape)} in the files of {checkpoint.name} "
                    f"and {list(shapes[name])} in the model: they do not belong together."
                )
    return found


def write_model(
    checkpoint: Checkpoint,
    target: Path,
    model: PreTrainedModel,
    changed: Sequence[str],
    facts: Mapping[str, Any],
    *,
    link: Link,
    overwrite: bool,
) -> WriteReport:
    """Write the checkpoint with the changed parameters of ``model``; see `update_checkpoint`."""
    parameters = dict(model.named_parameters())
    values = {
        own: parameters[name].detach().reshape(checkpoint.tensors[own].shape)
        for name, names in file_names(checkpoint, model, changed).items()
        for own in names
    }
    return write_values(checkpoint, target, values, facts, link=link, overwrite=overwrite)


def write_values(
    checkpoint: Checkpoint,
    target: Path,
    values: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    *,
    link: Link,
    overwrite: bool,
) -> WriteReport:
    """Write the checkpoint with other values of some tensors, by their names in its files; see `update_checkpoint`."""
    return update_checkpoint(
        checkpoint,
        target,
        values,
        extra_files={FACTS_FILE: to_json(facts), CARD: card(checkpoint, facts)},
        facts={"vocabtransfer": __version__, "source": checkpoint.name},
        link=link,
        overwrite=overwrite,
    )


def write_adapter(
    checkpoint: Checkpoint,
    target: Path,
    config: Any,
    values: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    *,
    overwrite: bool,
) -> Path:
    """Write a PEFT folder: low-rank matrices and whole tables (``values`` by parameter), tokenizer, configuration.

    ``config`` is PEFT's; the model that the adapter stands on is the checkpoint. Raises `VocabTransferError` as
    `update_checkpoint` does.
    """
    target = settled(target)
    check_target(target, overwrite)
    tensors = {_PREFIX + name.replace(".default.weight", ".weight"): value for name, value in values.items()}
    settings = {name: _plain(value) for name, value in config.to_dict().items()}
    settings |= {"base_model_name_or_path": str(checkpoint.path.resolve()), "inference_mode": True}
    with staged_folder(target, overwrite) as staging:
        write_tensors(staging / "adapter_model.safetensors", tensors)
        (staging / "adapter_config.json").write_bytes(to_json(dict(sorted(settings.items()))))
        for pattern in _TOKENIZER_FILES:
            for file in sorted(checkpoint.path.glob(pattern)):
                if file.is_file() and not (staging / file.name).exists():
                    place_file(file, staging / file.name, "copy")
        (staging / FACTS_FILE).write_bytes(to_json(facts))
        (staging / CARD).write_bytes(card(checkpoint, facts, adapter=True))
        write_manifest(staging, {"vocabtransfer": __version__, "source": checkpoint.name})
    return target


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    return value.value if isinstance(value, enum.Enum) else value


def to_json(facts: Mapping[str, Any]) -> bytes:
    """Return facts as indented UTF-8 JSON."""
    return (json.dumps(facts, ensure_ascii=False, indent=2) + "\n").encode()


def card(checkpoint: Checkpoint, facts: Mapping[str, Any], *, adapter: bool = False) -> bytes:
    """Return the model card: the checkpoint's own, if it has one, and what training added."""
    own = checkpoint.path / CARD
    before = own.read_text(encoding="utf-8").rstrip() + "\n\n" if own.is_file() and not adapter else ""
    if not before:
        header = card_header({"base_model": checkpoint.name, "tags": ["vocabtransfer"]})
        before = f"{header}# {one_line(checkpoint.name)}, adapted\n\n"
    lines = [
        "## Continued pre-training",
        "",
        f"After what is said above, vocabtransfer {facts['vocabtransfer']} trained this model further:",
        "",
        "| stage | updates | tokens | learning rate | loss at first | at last |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {stage['name']} | {stage['updates']:,} | {stage['tokens']:,} | {stage['learning_rate']:g} | "
        f"{stage['first_loss']:.3f} | {stage['last_loss']:.3f} |"
        for stage in facts["stages"]
    ]
    if facts["curve"]:
        first, last = facts["curve"][0], facts["bits_per_byte"]
        lines += ["", f"Bits per byte on held-out text: {first['bits_per_byte']:.4f} before, {last:.4f} after."]
    lines += ["", f"`{FACTS_FILE}` has the settings and the curve."]
    return (before + "\n".join(lines) + "\n").encode()
