"""A Hydra on disk: a valid checkpoint of the backbone with its own head, and a folder for each further head.

hydra/config.json, model*.safetensors, tokenizer.json ...    loads as any checkpoint does
hydra/hydra.json                                             the own head's name and the backbone's fingerprint
hydra/heads/NAME/head.safetensors, tokenizer.json, generation_config.json, head_config.json
hydra/heads/NAME/adapter/                                    a LoRA for the backbone that goes with the head
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vocabtransfer.checkpoint import Checkpoint, check_space, check_target, plan_checkpoint, read_checkpoint
from vocabtransfer.checkpoint.auto_tokenizer import keep_ids
from vocabtransfer.checkpoint.plan import SETTINGS_BYTES, Link
from vocabtransfer.checkpoint.tensors import INDEX_NAME
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.copying import can_link, place_file
from vocabtransfer.files.json_files import read_json
from vocabtransfer.files.manifest import write_manifest
from vocabtransfer.files.staging import settled, staged_folder
from vocabtransfer.files.whole import clear_parts, write_whole
from vocabtransfer.hydra.fingerprint import backbone_fingerprint
from vocabtransfer.hydra.head_config import HeadConfig, refuse_misfit
from vocabtransfer.hydra.names import check_name
from vocabtransfer.hydra.stored import StoredHead, head_of_checkpoint, read_stored_head
from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.tokenization.save import save_tokenizer

HYDRA_NAME, HEADS_NAME = "hydra.json", "heads"
FORMAT = 1


@dataclass(frozen=True, eq=False)
class HydraFolder:
    """An opened Hydra: nothing is loaded before it is asked for."""

    path: Path
    own_name: str
    fingerprint: str
    name: str

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The backbone with its own head."""
        return read_checkpoint(self.path, self.name)

    @property
    def heads_path(self) -> Path:
        """The folder that holds the folders of the further heads."""
        return self.path / HEADS_NAME

    def names(self) -> tuple[str, ...]:
        """Return the names of all heads there are now, the backbone's own first."""
        found: list[str] = []
        if self.heads_path.is_dir():
            found = [p.name for p in self.heads_path.iterdir() if p.is_dir() and not p.name.startswith(".")]
        return (self.own_name, *sorted(found))

    def head_path(self, name: str) -> Path:
        """Return the folder of a head that is there; `VocabTransferError` with the names there are otherwise."""
        name = check_name(name)
        if name == self.own_name:
            return self.path
        if name not in self.names():
            raise VocabTransferError(f"{self.path} has no head named {name!r}; it has {', '.join(self.names())}.")
        return self.heads_path / name

    def head(self, name: str) -> StoredHead:
        """Open a head. Raises `VocabTransferError` when there is none of that name or it is damaged."""
        folder = self.head_path(name)
        if folder == self.path:
            return head_of_checkpoint(self.checkpoint, self.own_name, self.fingerprint, own=True)
        return read_stored_head(folder, name)

    def check_fits(self, config: HeadConfig, name: str, *, force: bool = False) -> None:
        """Refuse a head of another backbone, unless it was or is forced; of another width in any case."""
        refuse_misfit(
            config,
            name,
            hidden=self.checkpoint.layout.hidden,
            fingerprint=self.fingerprint,
            backbone=f"{self.name} of {self.path}",
            force=force,
        )


def is_hydra(path: Path) -> bool:
    """Tell whether a folder is a Hydra."""
    return (path / HYDRA_NAME).is_file()


@public
def open_hydra(path: str | Path) -> HydraFolder:
    """Open a Hydra folder; `VocabTransferError` when it is none or damaged."""
    path = Path(path).expanduser()
    if not is_hydra(path):
        raise VocabTransferError(
            f"{path} is not a Hydra (it has no {HYDRA_NAME}): make one with vocabtransfer head create."
        )
    data = read_json(path / HYDRA_NAME)
    values = [data.get(key) for key in ("own_head", "backbone", "name")]
    if not isinstance(data.get("format"), int) or not all(isinstance(value, str) and value for value in values):
        raise VocabTransferError(f"{path / HYDRA_NAME} is damaged: it needs format, own_head, backbone and name.")
    if data["format"] > FORMAT:
        raise VocabTransferError(f"{path} was written by a newer version of vocabtransfer: update vocabtransfer.")
    own, fingerprint, name = map(str, values)
    with contextlib.suppress(OSError):  # a Hydra that may only be read is a Hydra, too
        clear_parts(path / HYDRA_NAME)
    return HydraFolder(path, check_name(own), fingerprint, name)


@public
def create_hydra(
    source: Checkpoint, target: str | Path, *, own_name: str = "base", link: Link = "hard", overwrite: bool = False
) -> HydraFolder:
    """Make a Hydra with one head, the source's own, which is called ``own_name``.

    The weights are hard-linked (``link="hard"``) or copied; tokenizer and settings are copied. Raises
    `VocabTransferError` when the target exists (unless ``overwrite``, for folders that this library wrote and nobody
    added to), overlaps the source, or when the source is not a causal language model.
    """
    target = settled(Path(target).expanduser())
    own_name = check_name(own_name)
    check_target(target, overwrite)
    plan = plan_checkpoint(source, target, vocabulary_size=source.layout.rows, link=link)
    disk = next(parent for parent in target.parents if parent.exists())
    copied = sum(file.bytes for file in plan.files if link == "copy" or not can_link(file.source, disk))
    check_space(replace(plan, bytes_needed=copied + SETTINGS_BYTES))
    with step("taking the backbone's fingerprint"):
        fingerprint = backbone_fingerprint(source)
        head_of_checkpoint(source, own_name, fingerprint)
    with staged_folder(target, overwrite) as staging:
        for file in plan.files:
            (staging / file.name).parent.mkdir(parents=True, exist_ok=True)
            place_file(file.source, staging / file.name, link if file.name.endswith(".safetensors") else "copy")
        kept = ["config.json", "generation_config.json", *([INDEX_NAME] if source.sharded else [])]
        for name in kept:
            if (source.path / name).is_file():
                place_file(source.path / name, staging / name, "copy")
        save_tokenizer(source.tokenizer, staging)
        keep_ids(staging, source.tokenizer)
        write_hydra_json(staging, own_name, fingerprint, source.name)
        if backbone_fingerprint(read_checkpoint(staging, source.name)) != fingerprint:
            raise VocabTransferError(f"{target} failed its check: the backbone differs from {source.name}'s.")
        write_manifest(staging, {"source": source.name})
    return open_hydra(target)


def write_hydra_json(folder: Path, own_name: str, fingerprint: str, name: str) -> None:
    """Write hydra.json, in one step where there is one already."""
    facts: Mapping[str, Any] = {"format": FORMAT, "own_head": own_name, "backbone": fingerprint, "name": name}
    write_whole(folder / HYDRA_NAME, json.dumps(facts, ensure_ascii=False, indent=2) + "\n")
