"""What a run did, as plain data."""

from dataclasses import asdict
from typing import Any

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.files.text import read_text
from vocabtransfer.training.request import AdaptRequest
from vocabtransfer.training.run import Run
from vocabtransfer.training.stage import LORA
from vocabtransfer.training.state import Progress
from vocabtransfer.version import __version__


def run_facts(run: Run, checkpoint: Checkpoint, request: AdaptRequest, stages: list[Progress]) -> dict[str, Any]:
    """Return what was done. No times and no machine: the same run gives the same bytes."""
    tokens = [stage.tokens for stage in stages]
    return {
        "vocabtransfer": __version__,
        "model": checkpoint.name,
        "objective": request.objective,
        "teacher": request.teacher,
        "teacher_layer": run.rows.layer if run.rows is not None else None,
        "text": read_text(request.text).names(),
        "source_text": read_text(request.source_text).names(),
        "source_share": request.share,
        "held_out": read_text(request.held_out).names(),
        "held_out_bytes": request.held_out_bytes if request.held_out else 0,
        "seed": request.seed,
        "block": run.mixture.target.block,
        "batch_tokens": run.tokens_per_update,
        "dtype": request.dtype,
        "optimizer_dtype": request.optimizer_dtype,
        "attention": request.attention,
        "documents_apart": request.documents_apart,
        "processes": run.accelerator.num_processes,
        "weight_decay": run.pace.weight_decay,
        "tables": request.tables,
        "bpe_dropout": request.bpe_dropout,
        "lora": asdict(run.lora) if LORA in [stage.name for stage in run.stages] else None,
        "new_rows": int(run.new_rows.sum()) if run.new_rows is not None else None,
        "stages": [
            {
                "name": stage.name,
                "updates": progress.update,
                "planned_updates": stage.updates(run.tokens_per_update),
                "tokens": progress.tokens - before,
                "learning_rate": stage.learning_rate,
                "table_rate": run.table_rate(stage),
                "pull": run.pull(number),
                "first_loss": progress.losses[0],
                "last_loss": progress.losses[-1],
                "best_update": progress.best,
            }
            for number, (stage, progress, before) in enumerate(zip(run.stages, stages, [0, *tokens], strict=False))
        ],
        "curve": stages[-1].curve,
        "bits_per_byte": _reached(run, stages[-1]),
    }


def _reached(run: Run, progress: Progress) -> float | None:
    """Return the bits per byte of what is written: of the best point where that is handed on, else of the last."""
    if not progress.curve:
        return None
    return progress.best_score if run.pace.keeps_best else float(progress.curve[-1]["bits_per_byte"])
