"""A head on disk: its own folder in a Hydra, or the vocabulary of a whole checkpoint seen as a head."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint, TensorInfo
from vocabtransfer.checkpoint.checkpoint import fitting_tokenizer
from vocabtransfer.checkpoint.config_values import check_generation_config
from vocabtransfer.checkpoint.layout import FLOATS
from vocabtransfer.checkpoint.model_class import generates_from_rows
from vocabtransfer.checkpoint.tensors import read_shard
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import read_json
from vocabtransfer.hydra.head_config import HeadConfig, read_head_config
from vocabtransfer.hydra.settings import vocabulary_values

Table = Literal["input", "output", "output_bias"]
TABLES: tuple[Table, ...] = ("input", "output", "output_bias")

WEIGHTS_NAME = "head.safetensors"
GENERATION_NAME = "generation_config.json"
ADAPTER_NAME = "adapter"


@dataclass(frozen=True, eq=False)
class StoredHead:
    """One head that was found and whose headers were checked; its tensors are not loaded.

    ``tables`` says where the bytes of each table are: "input" always, "output" unless tied, "output_bias" where the
    backbone's head has one. ``folder`` holds the tokenizer. ``stamp`` identifies the files as they were checked.
    """

    name: str
    folder: Path
    config: HeadConfig
    tables: Mapping[Table, TensorInfo]
    generation_config: Mapping[str, Any] | None
    own: bool = False
    stamp: tuple[tuple[int, int, int], ...] = ()

    @property
    def bytes(self) -> int:
        """The size of the tables in bytes, in their storage dtype."""
        return sum(info.nbytes for info in self.tables.values())

    @property
    def adapter(self) -> Path | None:
        """The folder of the LoRA bound to this head, if there is one."""
        folder = self.folder / ADAPTER_NAME
        return folder if not self.own and (folder / "adapter_config.json").is_file() else None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer; `VocabTransferError` when it is missing or has ids that the tables have no row for."""
        if self.changed():
            raise VocabTransferError(f"the head {self.name!r} in {self.folder} was changed meanwhile: load it again.")
        return fitting_tokenizer(self.folder, self.config.rows, str(self.folder))[0]

    def changed(self) -> bool:
        """Tell whether the files of the tables are gone, or others than those that were checked."""
        return _stamp(self.tables) != self.stamp


def read_stored_head(folder: Path, name: str) -> StoredHead:
    """Open the folder of a head. Raises `VocabTransferError` for whatever is missing, damaged or does not agree."""
    if folder.is_symlink():
        raise VocabTransferError(f"{folder} is a symbolic link: a head has to be a folder of its own.")
    config = read_head_config(folder)
    shard = read_shard(folder / WEIGHTS_NAME)
    infos = {info.name: info for info in shard.tensors}
    tables = {table: infos[table] for table in TABLES if table in infos}
    unknown = sorted(infos.keys() - set(TABLES))
    if unknown:
        raise _damaged(shard.file, f"it holds the tensor {unknown[0]!r}, which is no part of a head")
    missing = {"input"} | (set() if config.tied else {"output"})
    if missing - tables.keys():
        raise _damaged(shard.file, f"it lacks the tensor {min(missing - tables.keys())!r}")
    if config.tied and "output" in tables:
        raise _damaged(shard.file, "it holds an output table, but its config says that it is tied")
    for table, info in tables.items():
        shape = (config.rows,) if table == "output_bias" else (config.rows, config.hidden)
        if info.shape != shape or info.dtype not in FLOATS:
            raise _damaged(shard.file, f"{table!r} is {info.dtype} {list(info.shape)} instead of floats {list(shape)}")
    generation = folder / GENERATION_NAME
    settings = read_json(generation) if generation.is_file() else None
    check_generation_config(settings or {}, generation)
    return StoredHead(name, folder, config, tables, settings, stamp=_stamp(tables))


def head_of_checkpoint(checkpoint: Checkpoint, name: str, fingerprint: str, *, own: bool = False) -> StoredHead:
    """See the vocabulary of a checkpoint as a head. Raises `VocabTransferError` when a head could not carry it."""
    if not checkpoint.continues_text:
        kind = checkpoint.architecture or "a model without an architecture"
        raise VocabTransferError(
            f"{checkpoint.name} is {kind}, which does not go on with a text by itself, but heads are for causal language "
            "models."
        )
    if not generates_from_rows(checkpoint.config):
        raise VocabTransferError(
            f"{checkpoint.name} is {checkpoint.architecture}, which does not generate from rows of a table that is not its "
            "own, as heads need it: use the model for text alone, if there is one."
        )
    layout = checkpoint.layout
    if layout.odd_table is not None:
        raise VocabTransferError(
            f"{checkpoint.name} has {layout.odd_table!r} over the vocabulary, which heads cannot carry."
        )
    biases = [tensor for tensor in layout.tensors if tensor.part == "output_bias"]
    if len(biases) > 1 or any(tensor.axis for tensor in biases):
        raise VocabTransferError(f"{checkpoint.name} has an output bias of a kind that heads cannot carry.")
    tables: dict[Table, TensorInfo] = {"input": checkpoint.tensors[layout.input_name]}
    if layout.output_name is not None:
        tables["output"] = checkpoint.tensors[layout.output_name]
    if layout.bias_name is not None:
        tables["output_bias"] = checkpoint.tensors[layout.bias_name]
    tokenizer = checkpoint.tokenizer
    config = HeadConfig(
        backbone=fingerprint,
        backbone_name=checkpoint.name,
        tied=layout.tied,
        rows=layout.rows,
        vocabulary=min(max(tokenizer.get_vocab().values(), default=-1) + 1, layout.rows),
        hidden=layout.hidden,
        values={**vocabulary_values(checkpoint.config), "tie_word_embeddings": layout.tied},
    )
    head = StoredHead(name, checkpoint.path, config, tables, checkpoint.generation_config, own, _stamp(tables))
    vars(head)["tokenizer"] = tokenizer  # the cached property: it is open already
    return head


def _stamp(tables: Mapping[Table, TensorInfo]) -> tuple[tuple[int, int, int], ...]:
    stamps = []
    for info in tables.values():
        try:
            status = info.file.stat()
        except OSError:
            return ()
        stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(stamps)


def _damaged(file: Path, reason: str) -> VocabTransferError:
    return VocabTransferError(f"{file} is damaged: {reason}; add the head again.")
