"""Write a tokenizer into a folder of its own, whole or not at all, with what is to be known about where it comes from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.manifest import write_manifest
from vocabtransfer.files.staging import staged_folder
from vocabtransfer.tokenization.save import save_tokenizer

KEPT_FILE = "kept_ids.json"


def write_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    kept: NDArray[np.int64] | None = None,
    facts: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write what `save_tokenizer` writes, ``kept_ids.json`` for the ids ``kept`` of another tokenizer, and a manifest.

    The folder appears when it is complete. ``facts`` go into the manifest, which also lets ``overwrite`` replace the
    folder as long as nobody changed it.

    Raises `VocabTransferError` for a folder that exists (or holds foreign files, with ``overwrite``) and when it cannot
    be written.
    """
    with staged_folder(folder, overwrite) as staging:
        save_tokenizer(tokenizer, staging)
        if kept is not None:
            text = json.dumps(kept.tolist(), separators=(",", ":"))
            (staging / KEPT_FILE).write_text(text + "\n", encoding="utf-8", newline="\n")
        write_manifest(staging, dict(facts or {}))


def read_kept(folder: Path) -> NDArray[np.int64] | None:
    """Return the ids that a written tokenizer took over from its source, -1 for new tokens; None where none are stored.

    Raises `VocabTransferError` for a damaged file.
    """
    path = folder / KEPT_FILE
    if not path.is_file():
        return None
    try:
        kept = np.array(json.loads(path.read_text(encoding="utf-8")), np.int64)
    except (ValueError, TypeError, OverflowError):
        kept = np.zeros((0, 0), np.int64)
    if kept.ndim != 1 or (kept < -1).any():
        raise VocabTransferError(f"{path} should hold one list of token ids: make the tokenizer again.")
    return kept
