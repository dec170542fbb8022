"""A PEFT adapter as a source: merged into the model it stands on, once, or named and refused.

An adapter beside the weights, in a folder of its own, or wrapped around the tensors of a file would otherwise be left
out without a word: its low-rank matrices are none of the model's tensors.
"""

from __future__ import annotations

import copy
import hashlib
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vocabtransfer.checkpoint.convert import cached_folder
from vocabtransfer.checkpoint.model_class import opener
from vocabtransfer.checkpoint.tensors import TensorInfo, read_shard, read_weights
from vocabtransfer.errors import UsageError, VocabTransferError, first_line
from vocabtransfer.files.json_files import read_json
from vocabtransfer.tokenization.load import VOCABULARY_FILES

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
_FIRST_BYTES = 1 << 20
_TEXTS = ("*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt", "LICEN[CS]E*")
#: What save_pretrained writes itself.
_WRITTEN = re.compile(r"config\.json|.*\.index\.json|adapter_.*|vocabtransfer.*|report\.json|.*map\.json")


def has_adapter(folder: Path) -> bool:
    """Tell whether a folder holds a PEFT adapter, alone or beside a model's weights."""
    return (folder / CONFIG_NAME).is_file()


def adapter_refusal(folder: Path) -> VocabTransferError:
    """Return the sentence for an adapter that nobody asked to merge."""
    if _has_model(folder):
        return VocabTransferError(
            f"{folder} has a PEFT adapter ({CONFIG_NAME}) beside its weights: `vocabtransfer build --merge-adapter` "
            f"(`merge=True`) adds it to them; move "
            f"{CONFIG_NAME} and {WEIGHTS_NAME} away to go on without it."
        )
    base = read_json(folder / CONFIG_NAME).get("base_model_name_or_path")
    return VocabTransferError(
        f"{folder} is a PEFT adapter of the model {base!r} and no model itself: `vocabtransfer build --merge-adapter` "
        "(`merge=True`) adds it to that "
        "model; or merge it with PEFT (merge_and_unload) and give that folder."
    )


def refuse_wrapped(tensors: Iterable[str], folder: Path) -> None:
    """Refuse weights that PEFT's wrapper was saved around: names like ``base_model.model.*`` or ``*.lora_A.*``."""
    for name in sorted(tensors):
        if name.startswith(PREFIX) or re.search(r"\.(lora_[AB]|base_layer|modules_to_save)\.", name):
            raise VocabTransferError(
                f"{folder} holds the tensors of a PEFT wrapper ({name!r}) and not those of a model: merge the adapter "
                "with PEFT (merge_and_unload), save the model, and give that folder."
            )


def merge_adapter(folder: Path, open_base: Callable[[str], Path]) -> Path:
    """Return the cached folder of the model that an adapter was merged into, merging it the first time.

    ``folder`` has the adapter, and its base model too or its name, which ``open_base`` turns into a folder. Tables and
    heads trained in full (``modules_to_save``, ``embed_tokens``) take the places of the base's; an adapter for more
    tokens than the base has comes with its own tokenizer.

    Raises:
        UsageError: PEFT is not installed.
        VocabTransferError: the adapter is damaged, does not fit its base, or is of a kind that cannot be merged.
    """
    try:
        import peft
    except ImportError:
        raise UsageError('Merging an adapter needs peft: pip install "vocabtransfer[training]".') from None
    config = read_json(folder / CONFIG_NAME)
    if not (folder / WEIGHTS_NAME).is_file():
        raise VocabTransferError(f"{folder} has no {WEIGHTS_NAME}: save the adapter in the safetensors format.")
    tables = [info for info in read_shard(folder / WEIGHTS_NAME).tensors if _is_table(info)]
    if _has_model(folder):
        base = folder
    else:
        named = config.get("base_model_name_or_path")
        if not isinstance(named, str) or not named:
            raise VocabTransferError(f"{folder / CONFIG_NAME} does not name the model that the adapter stands on.")
        try:
            base = open_base(named)
        except (UsageError, VocabTransferError) as problem:
            raise VocabTransferError(
                f"{folder} stands on the model {named!r}, which cannot be opened: {problem}"
            ) from None
    digest = hashlib.sha256()
    for file in (folder / CONFIG_NAME, folder / WEIGHTS_NAME, *(shard.file for shard in read_weights(base).shards)):
        stat = file.stat()
        digest.update(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_FIRST_BYTES))
    name = re.sub(r"[^\w.-]+", "_", folder.resolve().name)

    def build(target: Path) -> None:
        try:
            _write_merged(peft, folder, base, tables, target)
        except VocabTransferError:
            raise
        except Exception as problem:  # PEFT and the model's class raise whatever they trip over
            said = first_line(problem)
            raise VocabTransferError(
                f"The adapter in {folder} cannot be merged into {base} ({config.get('peft_type')}: {said})."
            ) from problem

    return cached_folder(f"{name}-merged-{digest.hexdigest()[:12]}", build)


def _write_merged(peft: Any, folder: Path, base: Path, tables: list[TensorInfo], target: Path) -> None:
    plain = target / "base"  # transformers would load an adapter beside the weights by itself
    plain.mkdir()
    for path in base.iterdir():
        if path.is_file() and not path.name.startswith("adapter_"):
            (plain / path.name).symlink_to(path.resolve())
    config = read_json(base / "config.json")
    model: Any = opener(config).from_pretrained(plain, dtype="auto", local_files_only=True)
    rows = {info.shape[0] for info in tables}
    if len(rows) == 1 and rows != {model.get_input_embeddings().weight.shape[0]}:
        model.resize_token_embeddings(rows.pop(), mean_resizing=False)
    adapted = peft.PeftModel.from_pretrained(model, folder, local_files_only=True)
    if not hasattr(adapted, "merge_and_unload"):
        raise VocabTransferError(
            f"{folder} is a {read_json(folder / CONFIG_NAME).get('peft_type')} adapter, which cannot be merged into a model."
        )
    merged = adapted.merge_and_unload()
    _untie_if_trained_apart(merged)
    shutil.rmtree(plain)
    merged.save_pretrained(target)
    tokenizer = folder if any(any(folder.glob(pattern)) for pattern in VOCABULARY_FILES) else base
    for home in dict.fromkeys((tokenizer, base)):
        for pattern in _TEXTS:
            for file in sorted(home.glob(pattern)):
                if not _WRITTEN.fullmatch(file.name) and not (target / file.name).exists():
                    shutil.copyfile(file, target / file.name)


def _untie_if_trained_apart(model: Any) -> None:
    """Say in the configuration that a head which was trained in full is no longer the input table."""
    import torch

    head = model.get_output_embeddings()
    table = model.get_input_embeddings()
    if head is None or head.weight is table.weight or torch.equal(head.weight, table.weight):
        return
    for part in (model.config, model.config.get_text_config(decoder=True)):
        if getattr(part, "tie_word_embeddings", False):
            part.tie_word_embeddings = False
    head.weight = torch.nn.Parameter(copy.copy(head.weight.detach()), requires_grad=False)


def _has_model(folder: Path) -> bool:
    """Tell whether a folder has a model's weights beside the adapter's."""
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    return (folder / "config.json").is_file() and any(file.name != WEIGHTS_NAME for file in weights)


def _is_table(info: TensorInfo) -> bool:
    return len(info.shape) == 2 and bool(
        re.search(
            r"(embed_tokens|wte|embed_in|word_embeddings|lm_head|embed_out)(\.modules_to_save)?\.weight$", info.name
        )
    )
