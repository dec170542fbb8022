"""From a reference to a backbone in memory, and from another one to a head on disk."""

from pathlib import Path
from typing import Any

import torch

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.hydra.fingerprint import backbone_fingerprint
from vocabtransfer.hydra.folder import HydraFolder, is_hydra, open_hydra
from vocabtransfer.hydra.head_config import CONFIG_NAME
from vocabtransfer.hydra.names import check_name
from vocabtransfer.hydra.stored import StoredHead, head_of_checkpoint, read_stored_head
from vocabtransfer.progress import say
from vocabtransfer.running.load import causal_opener
from vocabtransfer.running.plan import needs_memory

OWN_NAME = "base"


def open_backbone(
    reference: str | Path, own_name: str | None, settings: dict[str, Any]
) -> tuple[Any, StoredHead, HydraFolder | None]:
    """Load the backbone of a Hydra, or of a plain checkpoint; see `HydraForCausalLM.from_pretrained`.

    Returns the model in evaluation mode, its own vocabulary as a head, and the Hydra's folder (None for a checkpoint).
    """
    path = Path(reference).expanduser()
    checkpoint = open_hydra(path).checkpoint if is_hydra(path) else open_checkpoint(reference)
    folder = open_hydra(checkpoint.path) if is_hydra(checkpoint.path) else None
    fingerprint = backbone_fingerprint(checkpoint)
    if folder is not None and fingerprint != folder.fingerprint:
        raise VocabTransferError(
            f"the backbone in {folder.path} is not the one its heads were made for: put its weights back."
        )
    if folder is not None and own_name not in (None, folder.own_name):
        raise UsageError(f"the own head of {folder.path} is called {folder.own_name!r}; rename it to change that.")
    name = folder.own_name if folder is not None else check_name(own_name or OWN_NAME)
    own = head_of_checkpoint(checkpoint, name, fingerprint, own=True)
    say(_memory_sentence(checkpoint, settings))
    try:
        opener = causal_opener(checkpoint.config)
        model = opener.from_pretrained(checkpoint.path, **{"local_files_only": True, **settings})
    except Exception as problem:  # whatever a model class makes of settings and files that are not its own
        said = str(problem).strip().splitlines() or [type(problem).__name__]
        raise VocabTransferError(f"transformers cannot load {checkpoint.path}: {said[0]}") from problem
    return model.eval(), own, folder


def _memory_sentence(checkpoint: Checkpoint, settings: dict[str, Any]) -> str:
    """Say what a backbone needs; "" where it stays on the disk as it is stored, mapped into memory."""
    placed, dtype = settings.get("device_map"), settings.get("dtype")
    device = str(placed[""]) if isinstance(placed, dict) and "" in placed else "cpu"
    stored = sum(info.nbytes for info in checkpoint.tensors.values())
    if device == "cpu" and not isinstance(dtype, torch.dtype):
        return ""
    needed = checkpoint.parameters * dtype.itemsize if isinstance(dtype, torch.dtype) else stored
    return needs_memory(f"Running {checkpoint.name}", needed, device)


def open_head(source: str | Path | Checkpoint | StoredHead, name: str) -> StoredHead:
    """Open a head's folder, or see the vocabulary of a checkpoint as a head."""
    if isinstance(source, StoredHead):
        return source
    if not isinstance(source, Checkpoint):
        path = Path(source).expanduser()
        if (path / CONFIG_NAME).is_file():
            return read_stored_head(path, name)
        source = open_checkpoint(source)
    return head_of_checkpoint(source, name, backbone_fingerprint(source))


def reopened(stored: StoredHead) -> StoredHead:
    """Open a head again whose files have changed since; `VocabTransferError` when they are gone or no head any more."""
    if (stored.folder / CONFIG_NAME).is_file():
        return read_stored_head(stored.folder, stored.name)
    raise VocabTransferError(f"the head {stored.name!r} in {stored.folder} was removed or changed: load it again.")
