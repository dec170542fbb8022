"""Look at the heads of a Hydra, check them, rename and remove them."""

import contextlib
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vocabtransfer.checkpoint.tensors import load_tensor
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.staging import reserved
from vocabtransfer.hydra.add import hash_file
from vocabtransfer.hydra.fingerprint import backbone_fingerprint
from vocabtransfer.hydra.folder import HydraFolder, open_hydra, write_hydra_json
from vocabtransfer.hydra.names import check_free, check_name
from vocabtransfer.hydra.stored import StoredHead
from vocabtransfer.progress import step
from vocabtransfer.public import public

BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class HeadInfo:
    """A head in a list. ``problem`` says why a head cannot be used, and the rest is then empty."""

    name: str
    own: bool = False
    language: str | None = None
    vocabulary: int = 0
    rows: int = 0
    tied: bool = False
    bytes: int = 0
    method: str | None = None
    adapter: bool = False
    forced: bool = False
    problem: str | None = None


@public
def list_heads(hydra: str | Path | HydraFolder) -> list[HeadInfo]:
    """Describe every head of a Hydra, the backbone's own first; damaged ones too, with what is wrong with them."""
    folder = _open(hydra)
    return [_info(folder, name) for name in folder.names()]


@public
def describe_head(hydra: str | Path | HydraFolder, name: str) -> dict[str, Any]:
    """Return everything that is known about a head as plain data. Raises `VocabTransferError` for a damaged one."""
    head = _open(hydra).head(name)
    config = head.config
    return {
        "name": head.name,
        "own": head.own,
        "folder": str(head.folder),
        "language": config.language,
        "vocabulary": config.vocabulary,
        "rows": config.rows,
        "hidden": config.hidden,
        "tied": config.tied,
        "bytes": head.bytes,
        "tables": {table: {"dtype": info.dtype, "shape": list(info.shape)} for table, info in head.tables.items()},
        "backbone": {"name": config.backbone_name, "fingerprint": config.backbone, "forced": config.forced},
        "method": dict(config.method),
        "evidence": dict(config.evidence),
        "adapter": str(head.adapter) if head.adapter else None,
        "values": dict(config.values),
        "generation_config": dict(head.generation_config or {}),
    }


@public
def remove_head(hydra: str | Path | HydraFolder, name: str) -> None:
    """Delete a head's folder; it vanishes in one step. The backbone's own head cannot be removed."""
    folder = _open(hydra)
    path = folder.head_path(name)
    if path == folder.path:
        raise UsageError(f"{name!r} is the backbone's own head and cannot be removed from {folder.path}.")
    if path.is_symlink():
        path.unlink()
        return
    # The name of an unfinished head: should this process die, the next one to add a head of that name clears it up.
    doomed = path.with_name(f".{path.name}.partial-{os.getpid()}")
    path.rename(doomed)
    shutil.rmtree(doomed)


@public
def rename_head(hydra: str | Path | HydraFolder, name: str, new_name: str) -> None:
    """Give a head another name, in one step. Raises `UsageError` when the new name is taken or no name."""
    folder = _open(hydra)
    path = folder.head_path(name)
    name = check_name(name)
    new_name = check_name(new_name)
    with contextlib.ExitStack() as held:
        if folder.heads_path.is_dir():
            held.enter_context(reserved(folder.heads_path / new_name, any_case=True))
        new_name = check_free(new_name, [other for other in folder.names() if other != name], folder.path)
        if path == folder.path:
            write_hydra_json(folder.path, new_name, folder.fingerprint, folder.name)
        elif new_name != name:
            path.rename(path.with_name(new_name))


@public
def verify_head(hydra: str | Path | HydraFolder, name: str) -> HeadInfo:
    """Check a head thoroughly: every file against its hash, every row finite, tokenizer, ids, and the backbone.

    Raises `VocabTransferError` saying what is wrong.
    """
    folder = _open(hydra)
    with step(f"verifying the head {name}"):
        head = folder.head(name)
        if backbone_fingerprint(folder.checkpoint) != folder.fingerprint:
            raise VocabTransferError(
                f"the backbone in {folder.path} is not the one it had when the Hydra was made: put its weights back."
            )
        folder.check_fits(head.config, name)
        for file, facts in head.config.files.items():
            _check_file(head.folder / file, facts)
        for table, info in head.tables.items():
            _check_finite(load_tensor(info), table, head)
        _check_ids(head)
    return _info(folder, check_name(name))


def _open(hydra: str | Path | HydraFolder) -> HydraFolder:
    return hydra if isinstance(hydra, HydraFolder) else open_hydra(hydra)


def _info(folder: HydraFolder, name: str) -> HeadInfo:
    try:
        head = folder.head(name)
        folder.check_fits(head.config, name)
    except VocabTransferError as problem:
        return HeadInfo(name, own=name == folder.own_name, problem=str(problem))
    config = head.config
    return HeadInfo(
        name=name,
        own=head.own,
        language=config.language,
        vocabulary=config.vocabulary,
        rows=config.rows,
        tied=config.tied,
        bytes=head.bytes,
        method=str(config.method["name"]) if "name" in config.method else None,
        adapter=head.adapter is not None,
        forced=config.forced,
    )


def _check_file(path: Path, facts: Any) -> None:
    wanted = facts if isinstance(facts, dict) else {}
    if not path.is_file():
        raise VocabTransferError(f"{path} is missing: add the head again.")
    if path.stat().st_size != wanted.get("bytes") or hash_file(path) != wanted.get("sha256"):
        raise VocabTransferError(f"{path} is not the file that was written with the head: add the head again.")


def _check_finite(values: torch.Tensor, table: str, head: StoredHead) -> None:
    block = max(1, BLOCK_ELEMENTS // max(1, math.prod(values.shape[1:])))
    for start in range(0, len(values), block):
        low, high = torch.aminmax(values[start : start + block].float())
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise VocabTransferError(f"{table!r} of the head {head.name!r} has values that are not finite.")


def _check_ids(head: StoredHead) -> None:
    used = set(head.tokenizer.get_vocab().values())
    for key, value in (head.generation_config or {}).items():
        if key.endswith("_token_id"):
            for i in value if isinstance(value, list) else [value]:
                if type(i) is int and i >= 0 and i not in used:
                    raise VocabTransferError(
                        f"{key!r} of the head {head.name!r} is {i}, which has no token: correct its generation_config.json."
                    )
