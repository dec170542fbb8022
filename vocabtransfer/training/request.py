"""What an adaptation can be asked for, and what is refused before anything is loaded."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.checkpoint.plan import Link
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.text import TextFiles, read_text
from vocabtransfer.initialization.identity import COPIED, SPECIAL
from vocabtransfer.public import settle_fields
from vocabtransfer.reprs import asked
from vocabtransfer.running.load import cannot_run
from vocabtransfer.token_map import MAP_FILE, TokenMap
from vocabtransfer.training.attention import check_attention
from vocabtransfer.training.objectives import check_objective
from vocabtransfer.training.processes import Precision
from vocabtransfer.training.stage import ALL, BODY, LORA, NEW, OUTER, TABLES, LoraShape, Stage
from vocabtransfer.training.table_forms import ROWS, check_form

HYDRA_FILE = "hydra.json"
LAYER_IS_FOR = "`teacher_layer` is for `objective='distill'`, a first stage new, and one process."


@dataclass(frozen=True)
class AdaptRequest:
    """Everything an adaptation can be asked for.

    Attributes:
        model: alias, hub id, folder or GGUF file of a causal model.
        text: files of text in the target language; documents are parted by empty lines.
        output: folder to write; the state of the run lies beside it as ``OUTPUT.adapting`` until it is there.
        stages: what is trained, for how long, how fast; see `Stage`. `default_stages` when empty, fewer on a CPU, at
            rates that fit the model (`vocabtransfer.training.rates`).
        source_text: files of text in the source model's language, to keep that.
        source_share: the share of rows that come from ``source_text``.
        held_out: files of text to score; a stage hands on its best point by them, and without them there is no curve.
        held_out_bytes: how much of it is scored.
        evaluate_every: updates between evaluations.
        save_every: updates between checkpoints; there is one at every evaluation in any case.
        patience: end a stage after so many evaluations without a new best.
        block: tokens of a row; what the model was made for when not given, at most 1,024 (256 on a CPU).
        batch_tokens: tokens of an update, over all processes; 8,192 when not given (512 on a CPU).
        passes: passes that a process makes for an update; when not given, as many as keep the logits under 512 MiB.
        gradient_checkpointing: compute activations twice rather than keep them.
        dtype: precision of computation, "fp32" or "bf16"; parameters are float32 in any case.
        optimizer_dtype: how AdamW's two moments are kept, "fp32" or "bf16"; see `TableAdamW`.
        attention: how attention is computed, one of `ATTENTIONS`; what transformers takes for the model when not given.
        documents_apart: let no document of a row see those before it; each begins at place 0, as when it is scored.
        cpu: stay off accelerators.
        device: "cpu", "cuda", "cuda:1", "mps"; "auto" or None takes a GPU when there is one. Launchers of several processes
            give each its own, so none of them can be named there.
        weight_decay: of the body's matrices; tables do not decay.
        tables: what rows learn as: "rows" (each for itself), or a form of `TABLE_FORMS`, "pieces" (also what tokens merged
            from the same parts have in common) or "map" (what those made from one source row have).
        bpe_dropout: the chance that a token of the text is taken apart into the two that merged into it; see `Cuts`.
        pull: by how much what learns is drawn back to where its stage began; see `Pace`. When not given, 0, and for new rows
            that are distilled alone what makes 1 over their stage.
        table_rate: how many times the stage's learning rate tables take where body and tables learn together. When not
            given, 5 in a stage ``all`` of a model most of whose rows a transfer made, else 1.
        lora: rank and scale of a lora stage's updates.
        keep_adapter: write a PEFT adapter instead of merging the low-rank updates.
        objective: "clm", "distill" or "alm"; the last two need a ``teacher``.
        teacher: the model with the old tokenizer.
        teacher_layer: the layer behind which ``distill`` compares states while new rows train; a third when not given.
        resume: go on where an interrupted run stopped; begin when there is none.
        restart_stage: with ``resume``, begin the stage that was interrupted again.
        link: how unchanged shards get into the output.
        overwrite: replace an output that vocabtransfer wrote, and the state of an interrupted run.
        allow_pickle: accept ``.bin`` weights.
        seed: for the order of the text, dropout and low-rank updates.
        field: the field that holds the text, where text is in records (JSONL, CSV, Parquet ...).
    """

    model: str
    text: TextFiles
    output: Path
    stages: tuple[Stage, ...] = ()
    source_text: TextFiles = ()
    source_share: float | None = None
    held_out: TextFiles = ()
    held_out_bytes: int = 100_000
    evaluate_every: int = 100
    save_every: int = 100
    patience: int | None = None
    block: int | None = None
    batch_tokens: int | None = None
    passes: int | None = None
    gradient_checkpointing: bool = False
    dtype: Precision = "fp32"
    optimizer_dtype: Precision = "fp32"
    attention: str | None = None
    documents_apart: bool = False
    cpu: bool = False
    device: str | None = None
    weight_decay: float = 0.1
    tables: str = ROWS
    bpe_dropout: float = 0.0
    pull: float | None = None
    table_rate: float | None = None
    lora: LoraShape = dataclasses.field(default_factory=LoraShape)
    keep_adapter: bool = False
    objective: str = "clm"
    teacher: str | None = None
    teacher_layer: int | None = None
    resume: bool = False
    restart_stage: bool = False
    link: Link = "hard"
    overwrite: bool = False
    allow_pickle: bool = False
    seed: int = 0
    field: str | None = None

    def __repr__(self) -> str:
        return asked(self)

    def __post_init__(self) -> None:
        settle_fields(self)
        for name in ("text", "source_text", "held_out"):
            text = read_text(getattr(self, name), field=self.field)
            if text.source is not None:
                raise UsageError(f"{name} is in memory: adapt reads files, so that an interrupted run can go on.")
            object.__setattr__(self, name, text)

    @property
    def share(self) -> float:
        """The share of rows that come from the source-language text; a tenth where none is named."""
        if self.source_share is None:
            return 0.1 if self.source_text else 0.0
        return self.source_share


def check_numbers(request: AdaptRequest) -> None:
    """Raise `UsageError` for numbers and options that make no sense, alone or together."""
    positive = {
        "`held_out_bytes`": request.held_out_bytes,
        "`evaluate_every`": request.evaluate_every,
        "`save_every`": request.save_every,
        "`patience`": request.patience or (1 if request.patience is None else 0),
        "`block`": 1 if request.block is None else request.block,
        "`passes`": 1 if request.passes is None else request.passes,
        "`batch_tokens`": 1 if request.batch_tokens is None else request.batch_tokens,
        "`lora.rank`": request.lora.rank,
        "`teacher_layer`": 1 if request.teacher_layer is None else request.teacher_layer,
    }
    for option, number in positive.items():
        if number < 1:
            raise UsageError(f"{option} is {number}: it must be 1 or more.")
    if request.dtype not in ("fp32", "bf16"):
        raise UsageError(f"`dtype` is float32 or bfloat16 (fp32, bf16 in Python), not {request.dtype!r}.")
    if request.optimizer_dtype not in ("fp32", "bf16"):
        raise UsageError(
            f"`optimizer_dtype` is float32 or bfloat16 (fp32, bf16 in Python), not {request.optimizer_dtype!r}."
        )
    check_attention(request.attention, request.dtype)
    if not 0 <= request.weight_decay < 1:
        raise UsageError(f"`weight_decay` is {request.weight_decay}: it must be from 0 to below 1.")
    if not 0 <= request.bpe_dropout < 1:
        raise UsageError(f"`bpe_dropout` is {request.bpe_dropout}: it must be from 0 to below 1.")
    if request.pull is not None and not 0 <= request.pull < math.inf:
        raise UsageError(f"`pull` is {request.pull}: it must be 0 or more.")
    if request.table_rate is not None and not 0 < request.table_rate < math.inf:
        raise UsageError(f"`table_rate` is {request.table_rate}: it must be above 0.")
    check_form(request.tables)
    if not request.text:
        raise UsageError("Name at least one file of text to train on: `text`.")
    if not 0 <= request.share < 1 or bool(request.share) != bool(request.source_text):
        raise UsageError("`source_text` and `source_share` belong together: a share above 0 and below 1 of the rows.")
    if request.patience is not None and not request.held_out:
        raise UsageError("`patience` needs `held_out`: without it nothing is evaluated.")
    if request.restart_stage and not request.resume:
        raise UsageError("`restart_stage` goes with `resume`.")
    if None not in (request.block, request.batch_tokens) and cast(int, request.batch_tokens) < cast(int, request.block):
        raise UsageError(
            f"`batch_tokens` {request.batch_tokens} holds 0 blocks of {request.block}: give a multiple of {request.block}."
        )
    check_objective(request.objective, request.teacher is not None)
    names = [stage.name for stage in request.stages]
    if request.teacher_layer is not None and (request.objective != "distill" or (names or [NEW])[0] != NEW):
        raise UsageError(LAYER_IS_FOR)
    if names or request.keep_adapter:
        _check_adapter(request, names or [TABLES])
    if NEW in names and Path(request.model).exists() and not (Path(request.model) / MAP_FILE).is_file():
        raise _unknown_rows(Path(request.model).name, f"no {MAP_FILE}")


def open_model(request: AdaptRequest) -> Checkpoint:
    """Open the model; `VocabTransferError` unless it is a causal one whose tokenizer fits its table."""
    checkpoint = open_checkpoint(request.model, allow_pickle=request.allow_pickle)
    if (checkpoint.path / HYDRA_FILE).is_file():
        raise UsageError(
            f"{request.model} is a Hydra, whose heads hang on its body: take one language out of it with "
            "`vocabtransfer head export` and adapt that."
        )
    if not checkpoint.continues_text:
        kind = checkpoint.architecture or "of an unknown kind"
        raise VocabTransferError(
            f"{checkpoint.name} is {kind}, which does not go on with a text by itself: only causal language models are "
            "adapted."
        )
    if reason := cannot_run(checkpoint.config):
        raise VocabTransferError(f"{checkpoint.name} cannot be trained: {reason}.")
    _ = checkpoint.tokenizer
    return checkpoint


def new_rows_of(checkpoint: Checkpoint) -> NDArray[np.bool_] | None:
    """Return which rows the transfer made rather than copied, bool (rows,); None when there is no token map."""
    path = checkpoint.path / MAP_FILE
    if not path.is_file():
        return None
    token_map = TokenMap.load(path)
    if not len(checkpoint.vocabulary) <= token_map.n_target <= checkpoint.layout.rows:
        raise VocabTransferError(
            f"{path} is the map of {token_map.n_target:,} tokens, but {checkpoint.name} has "
            f"{len(checkpoint.vocabulary):,}: take the file away if the vocabulary was changed since."
        )
    kept = [code for code, name in enumerate(token_map.rule_names) if name in (COPIED, SPECIAL)]
    made = np.zeros(checkpoint.layout.rows, dtype=np.bool_)
    made[: token_map.n_target] = ~np.isin(token_map.rule, kept)
    return made


def check_stages(
    request: AdaptRequest, stages: tuple[Stage, ...], checkpoint: Checkpoint, new_rows: NDArray[np.bool_] | None
) -> None:
    """Raise when a stage cannot be run on this model, or its result not be kept as asked."""
    names = [stage.name for stage in stages]
    if NEW in names and (new_rows is None or not new_rows.any()):
        raise _unknown_rows(checkpoint.name, f"no {MAP_FILE}" if new_rows is None else "no new row in its token map")
    if request.table_rate is not None and not set(names) & set(BODY):
        raise UsageError(
            f"`table_rate` is {request.table_rate:g}, but no stage trains the body beside the tables, as "
            f"{', '.join(BODY)} do: give tables that learn alone their rate in the stage, as in tables:200:1e-3."
        )
    _check_adapter(request, names)


def _unknown_rows(name: str, lacking: str) -> VocabTransferError:
    return VocabTransferError(
        f"{name} has {lacking}, so it is not known which rows are new: leave out the stage new, or give a folder that "
        "`vocabtransfer build` made."
    )


def _check_adapter(request: AdaptRequest, names: list[str]) -> None:
    if request.keep_adapter and (names[-1] != LORA or names.count(LORA) > 1 or {OUTER, ALL} & set(names)):
        raise UsageError(
            "`keep_adapter` needs one lora stage, as the last, and no stage that changes layers (outer, all)."
        )
