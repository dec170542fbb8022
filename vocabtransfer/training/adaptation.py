"""Continued pre-training of a checkpoint in stages: checks first, then training, then the result in one piece."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from vocabtransfer.checkpoint import Checkpoint, WriteReport, check_target, open_checkpoint, plan_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation.scoring import document_separator
from vocabtransfer.evaluation.texts import limit_bytes, read_documents
from vocabtransfer.files.staging import settled
from vocabtransfer.files.text import read_text
from vocabtransfer.progress import say, step
from vocabtransfer.public import public
from vocabtransfer.reprs import brief
from vocabtransfer.running.load import load_causal_model
from vocabtransfer.running.memory import is_out_of_memory
from vocabtransfer.training.cuts import Cuts
from vocabtransfer.training.estimate import sentence_before
from vocabtransfer.training.facts import run_facts
from vocabtransfer.training.loop import run_stage
from vocabtransfer.training.needs import need_of
from vocabtransfer.training.objectives import (
    ChoosesText,
    FormsTables,
    LanguageModelling,
    Surroundings,
    find_objective,
)
from vocabtransfer.training.processes import ModelShares, open_accelerator
from vocabtransfer.training.rates import fitted
from vocabtransfer.training.request import (
    LAYER_IS_FOR,
    AdaptRequest,
    check_numbers,
    check_stages,
    new_rows_of,
    open_model,
)
from vocabtransfer.training.result import file_names, write_adapter, write_model, write_values
from vocabtransfer.training.row_distiller import RowDistiller
from vocabtransfer.training.row_stage import NUMBERS, SIDES, new_tables, run_row_stage, set_rows
from vocabtransfer.training.run import Pace, Run
from vocabtransfer.training.settings import settings_of
from vocabtransfer.training.sizes import block_of, rows_of
from vocabtransfer.training.stage import BODY, LORA, NEW, Stage, default_stages
from vocabtransfer.training.stages import add_lora, load_values, merge_lora, table_parameters
from vocabtransfer.training.state import Progress, State, state_folder
from vocabtransfer.training.table_forms import form_of
from vocabtransfer.training.text import Mixture, PackedText, Position


@dataclass(frozen=True, eq=False)
class AdaptResult:
    """What an adaptation did.

    ``facts`` is what ``adapt.json`` holds; ``losses`` are the training losses of all updates, in nats a token (or
    chunk), by stage. ``written`` is None for an adapter, and in all processes but the first.
    ``throughput`` has the speed of each stage that this call trained by the whole model: tokens a second, and model
    FLOPs utilisation.
    """

    output: Path
    facts: Mapping[str, Any]
    losses: tuple[tuple[float, ...], ...]
    written: WriteReport | None = None
    throughput: tuple[Mapping[str, Any], ...] = ()

    def __repr__(self) -> str:
        return brief(
            self, output=self.output, updates=sum(map(len, self.losses)), bits_per_byte=self.facts["bits_per_byte"]
        )


@public
def adapt(request: AdaptRequest) -> AdaptResult:
    """Train a checkpoint further on text, in stages, and write it as it was found but for what was trained.

    Every update is one AdamW step on packed rows of text, the gradient cut at norm 1; rows of tables that the text says
    nothing about are held, see `vocabtransfer.optimizer.TableAdamW`. With the same inputs, seed, processes and threads a run
    gives the same bytes on a CPU, however often it was interrupted and resumed. Under `accelerate launch` and torchrun all
    processes call this alike; the first one writes.

    Raises:
        UsageError: options that make no sense together, or settings other than those a resumed run was begun with.
        VocabTransferError: an input that cannot be used, an output that exists, too little memory, a loss that became
            NaN; `vocabtransfer.training.Interrupted` after Ctrl-C. What was trained up to the last checkpoint is kept.
    """
    with _trained(request) as (run, checkpoint):
        return _result(run, checkpoint, request)


@dataclass(frozen=True, eq=False)
class DistilledRows:
    """Rows that were trained alone, not yet written.

    ``numbers`` int64 (n,) are their ids; ``values`` float32 (n, hidden) by side, "input" and, where the head is separate,
    "output"; ``facts`` is what ``adapt.json`` would hold.
    """

    numbers: NDArray[np.int64]
    values: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@contextmanager
def distilled_rows(request: AdaptRequest) -> Iterator[DistilledRows]:
    """Train as `adapt` does with one stage ``new`` that distils rows, and yield the rows instead of writing a checkpoint.

    When the block ends well, the state of the run is removed; until then the same request with ``resume`` goes on from
    it. Raises what `adapt` raises, and `VocabTransferError` where rows cannot be trained alone.
    """
    with _trained(request) as (run, checkpoint):
        if run.rows is None or len(run.stages) > 1:
            raise VocabTransferError(
                f"New rows of {checkpoint.name} cannot be distilled alone: use `vocabtransfer adapt`."
            )
        values = run.state.stage_values(0)
        sides = {name.removeprefix("rows:"): value for name, value in values.items() if name in SIDES}
        facts = run_facts(run, checkpoint, request, [run.state.stage_progress(0)])
        yield DistilledRows(values[NUMBERS].numpy(), sides, facts)
        run.state.remove()


@contextmanager
def _trained(request: AdaptRequest) -> Iterator[tuple[Run, Checkpoint]]:
    """Check a request, make what is left of its updates, and keep the state to its end."""
    check_numbers(request)
    state = State(state_folder(settled(request.output)))
    _check_output(request, state)
    with step(f"opening {request.model}"):
        checkpoint = open_model(request)
    new_rows = new_rows_of(checkpoint)
    accelerator = open_accelerator(
        request.dtype, cpu=request.cpu, device=request.device, unused_parameters=request.teacher is not None
    )
    on_cpu = accelerator.device.type == "cpu"
    stages = request.stages or fitted(default_stages(new_rows is not None, on_cpu), checkpoint)
    check_stages(request, stages, checkpoint, new_rows)
    plan_checkpoint(checkpoint, settled(request.output), vocabulary_size=checkpoint.layout.rows, link=request.link)
    with state, _memory_errors(state):
        run = _prepare(request, checkpoint, state, stages, new_rows, accelerator)
        say(sentence_before(run, checkpoint))
        with run.stop.watching():
            _train(run, checkpoint)
        yield run, checkpoint


def _check_output(request: AdaptRequest, state: State) -> None:
    check_target(settled(request.output), request.overwrite)
    if state.exists() and not request.resume and not request.overwrite:
        raise VocabTransferError(
            f"{state.folder} holds a run that was interrupted: go on with `resume`, or begin anew with `overwrite`."
        )
    if not state.exists() and state.folder.exists():
        raise VocabTransferError(f"{state.folder} is in the way and not the state of a run: move it away.")


def _prepare(
    request: AdaptRequest,
    checkpoint: Checkpoint,
    state: State,
    stages: tuple[Stage, ...],
    new_rows: NDArray[np.bool_] | None,
    accelerator: Accelerator,
) -> Run:
    tokenizer = checkpoint.tokenizer
    shell = cast(PreTrainedModel, SimpleNamespace(config=AutoConfig.from_pretrained(checkpoint.path)))
    block = block_of(request, shell, accelerator)
    rows = rows_of(request, block, accelerator)
    teacher = open_checkpoint(request.teacher, allow_pickle=request.allow_pickle) if request.teacher else None
    precision = torch.bfloat16 if request.dtype == "bf16" else torch.float32
    surroundings = Surroundings(tokenizer, new_rows, teacher, accelerator.device, precision, request.seed, checkpoint)
    distiller = _distiller(request, checkpoint, stages, surroundings, accelerator.num_processes)
    only_rows = distiller is not None and len(stages) == 1
    # Rows alone are trained without the objective: the untouched model need not be held in memory for it.
    objective = LanguageModelling() if only_rows else find_objective(request.objective, surroundings)
    form = form_of(request.tables, checkpoint, new_rows)
    if only_rows and form is not None:
        raise UsageError(
            f"`tables` is {request.tables}: new rows that are distilled alone learn each for itself, so leave it out."
        )
    if isinstance(objective, FormsTables):
        if form is not None or request.pull or {stage.name for stage in stages} != {NEW}:
            raise UsageError(
                f"`objective='{request.objective}'` trains nothing but new rows, in a form of its own: give `stages` "
                "new:100:3e-4, and no `tables` and `pull`."
            )
        form = objective.form
    if accelerator.distributed_type == DistributedType.FSDP and (form is not None or request.pull):
        raise UsageError("`tables`, `pull` and `objective='learned_map'` need whole tables: train without FSDP.")
    shares = ModelShares.of(accelerator)
    if shares.tensor > 1:
        shares.check(shell.config)
        if form is not None or request.pull or LORA in {stage.name for stage in stages}:
            raise UsageError(
                "`tables`, `pull`, `objective='learned_map'` and a stage lora need whole matrices: train without tensor "
                "parallelism."
            )
    separator = document_separator(shell, tokenizer)
    target = PackedText(tokenizer, read_text(request.text), separator, block, request.seed, objective.needs_text)
    source = replace(target, text=read_text(request.source_text), stream=1) if request.source_text else None
    if request.bpe_dropout:
        if objective.needs_text or distiller is not None:
            raise UsageError(
                f"`bpe_dropout` is not for `objective='{request.objective}'`, which compares two tokenizers."
            )
        target = replace(target, cuts=Cuts.of(tokenizer, request.bpe_dropout))
    if isinstance(objective, ChoosesText):
        target = replace(target, choose=objective.choose)
    with step("looking at the text"):
        target.check("`text`")
        if source is not None:
            source.check("`source_text`")
        held_out = (
            tuple(limit_bytes(read_documents(request.held_out), request.held_out_bytes)) if request.held_out else ()
        )
        if request.held_out and not held_out:
            raise VocabTransferError(f"`held_out` {request.held_out}: there is no text to score.")
        settings = settings_of(request, checkpoint, teacher, stages, block)
        settings["batch_tokens"] = request.batch_tokens or rows * block
        settings["teacher_layer"] = distiller.layer if distiller is not None else None
    begun = state.finished() if request.resume and state.exists() else 0
    if begun and shares.tensor > 1:
        raise UsageError(
            "A cut model resumes in its first stage only: begin anew with `overwrite` and without `resume`."
        )
    left = [stage for number, stage in enumerate(stages) if number >= begun and (number or distiller is None)]
    memory = ""
    if left:  # rows that learn alone need less
        need = need_of(request, checkpoint, left, shell.config, (rows // shares.data, block), accelerator)
        memory = need.sentence(checkpoint.name, accelerator)
    if accelerator.is_main_process:
        if request.resume and state.exists():
            state.resume(settings, restart_stage=request.restart_stage)
        else:
            state.begin(settings)
    accelerator.wait_for_everyone()
    pace = Pace(
        rows,
        request.passes,
        request.gradient_checkpointing,
        request.evaluate_every,
        request.save_every,
        request.patience,
        request.weight_decay,
        pull=request.pull,
        table_rate=request.table_rate,
        keeps_best=bool(held_out),
        half_moments=request.optimizer_dtype == "bf16",
        apart=separator if request.documents_apart else None,
    )
    mixture = Mixture(target, source, request.share)
    return Run(
        *(accelerator, tokenizer, objective, mixture, held_out, state, pace, stages),
        *(request.lora, new_rows, request.seed, distiller, form, request.attention, shares, memory),
    )


def _distiller(
    request: AdaptRequest,
    checkpoint: Checkpoint,
    stages: tuple[Stage, ...],
    surroundings: Surroundings,
    processes: int,
) -> RowDistiller | None:
    """Return what trains the new rows of the first stage alone; None where that has to be done by the whole model."""
    teacher = surroundings.teacher
    if request.objective != "distill" or teacher is None or stages[0].name != NEW or processes > 1:
        if request.teacher_layer is not None:
            raise UsageError(LAYER_IS_FOR)
        return None
    found = RowDistiller.find(checkpoint, teacher, request.teacher_layer, surroundings.dtype, surroundings.device)
    if found is None and request.teacher_layer is not None:
        raise VocabTransferError(
            f"{teacher.name} and {checkpoint.name} differ in their layers, so no early layer can be matched: give the model "
            "that the transfer started from as `teacher`, or leave out `teacher_layer`."
        )
    return found


def _train(run: Run, checkpoint: Checkpoint) -> None:
    """Run the stages that are left, each on a model freshly loaded with what the ones before it made."""
    done = run.state.finished()
    progress = run.state.stage_progress(done - 1) if done else Progress(0, 0, Position().to_json())
    for number in range(done, len(run.stages)):
        if run.rows is not None and number == 0:
            progress = run_row_stage(run, number, progress)
            continue
        with step("loading the model"):
            model, _ = load_model(run, checkpoint, number, run.shares)
        if number <= max(done, 1):
            _check_written_back(checkpoint, model, run.stages)
        progress = run_stage(run, number, model, progress)
        del model


def _check_written_back(checkpoint: Checkpoint, model: PreTrainedModel, stages: tuple[Stage, ...]) -> None:
    body = set(BODY) & {stage.name for stage in stages}
    names = [name for name, _ in model.named_parameters()] if body else list(table_parameters(model))
    file_names(checkpoint, model, names)


def load_model(
    run: Run, checkpoint: Checkpoint, stages: int, shares: ModelShares | None = None
) -> tuple[PreTrainedModel, list[str]]:
    """Load a checkpoint with what the first ``stages`` stages made of it; return it and the parameters that changed.

    float32 on the CPU, or cut as ``shares`` says and where its parts belong; the low-rank updates of finished stages are
    merged.
    """
    cut = shares.config() if shares is not None else None
    device = str(run.accelerator.device) if cut is not None else "cpu"
    model = load_causal_model(
        checkpoint.path, device, torch.float32, attn_implementation=run.attention, distributed_config=cut
    )
    changed: dict[str, None] = {}
    for number in range(stages):
        is_lora = run.stages[number].name == LORA
        if is_lora:
            add_lora(model, run.lora)
        values = run.state.stage_values(number)
        if NUMBERS in values:
            changed |= dict.fromkeys(set_rows(model, values))
            continue
        load_values(model, values)
        names = merge_lora(model) if is_lora else []
        changed |= dict.fromkeys([*(name for name in values if "lora_" not in name), *names])
    return model, list(changed)


def _result(run: Run, checkpoint: Checkpoint, request: AdaptRequest) -> AdaptResult:
    stages = [run.state.stage_progress(number) for number in range(len(run.stages))]
    facts = run_facts(run, checkpoint, request, stages)
    losses = tuple(tuple(stage.losses) for stage in stages)
    output = settled(request.output)
    written = None
    if run.accelerator.is_main_process:
        if request.keep_adapter:
            with step("loading the model"):
                config = add_lora(load_causal_model(checkpoint.path), run.lora)
            values = run.state.stage_values(len(stages) - 1)
            write_adapter(checkpoint, output, config, values, facts, overwrite=request.overwrite)
        elif run.rows is not None and len(stages) == 1:
            tables = new_tables(checkpoint, run.state.stage_values(0))
            written = write_values(checkpoint, output, tables, facts, link=request.link, overwrite=request.overwrite)
        else:
            with step("loading the model"):
                model, changed = load_model(run, checkpoint, len(stages))
            written = write_model(
                checkpoint, output, model, changed, facts, link=request.link, overwrite=request.overwrite
            )
        run.state.remove()
    meters = (run.meters[number] for number in sorted(run.meters))
    return AdaptResult(output, facts, losses, written, tuple(meter.facts() for meter in meters if meter.updates))


@contextmanager
def _memory_errors(state: State) -> Iterator[None]:
    """Turn every way of running out of memory into one sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if not is_out_of_memory(problem):
            raise
        kept = f"what was trained up to the last checkpoint is in {state.folder}; " if state.exists() else ""
        raise VocabTransferError(
            f"There is not enough memory: {kept}go on with `resume` and `gradient_checkpointing` or a larger "
            "`passes`, or begin anew with a smaller `block` or `batch_tokens`."
        ) from problem
