"""What must be the same for a run to be resumed."""

from typing import Any

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.files.text import read_text
from vocabtransfer.token_map import MAP_FILE
from vocabtransfer.training.request import AdaptRequest
from vocabtransfer.training.stage import Stage
from vocabtransfer.training.state import fingerprint, fingerprints


def settings_of(
    request: AdaptRequest, checkpoint: Checkpoint, teacher: Checkpoint | None, stages: tuple[Stage, ...], block: int
) -> dict[str, Any]:
    """Return what must be the same for a run to be resumed, by the names of its fields."""
    return {
        "model": _identity(checkpoint),
        "text": fingerprints(read_text(request.text)),
        "source_text": fingerprints(read_text(request.source_text)),
        "source_share": request.share,
        "held_out": fingerprints(read_text(request.held_out)),
        "held_out_bytes": request.held_out_bytes,
        "stages": [stage.label for stage in stages],
        "objective": request.objective,
        "teacher": _identity(teacher) if teacher is not None else {},
        "seed": request.seed,
        "block": block,
        "dtype": request.dtype,
        "optimizer_dtype": request.optimizer_dtype,
        "attention": request.attention,
        "documents_apart": request.documents_apart,
        "evaluate_every": request.evaluate_every,
        "patience": request.patience,
        "weight_decay": request.weight_decay,
        "tables": request.tables,
        "bpe_dropout": request.bpe_dropout,
        "pull": request.pull,
        "table_rate": request.table_rate,
        "lora_rank": request.lora.rank,
        "lora_alpha": request.lora.alpha,
    }


def _identity(checkpoint: Checkpoint) -> dict[str, str]:
    files = [shard.file for shard in checkpoint.shards] + [checkpoint.path / "config.json"]
    files += [path for name in ("tokenizer.json", MAP_FILE) if (path := checkpoint.path / name).is_file()]
    return {file.name: fingerprint(file) for file in files}
