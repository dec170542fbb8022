"""One stage of training: a plain loop over accelerate's primitives.

It is our own and not transformers' Trainer because a stage must stop at any update and go on with the same bits, losses
are divided by what was counted over all passes and processes, and gradients of rows that stay are cut out: here that is
a page, there it is a fight with callbacks.
"""

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from vocabtransfer.evaluation.bits_per_byte import bits_per_byte
from vocabtransfer.optimizer import HELD, TableAdamW
from vocabtransfer.progress import step, track
from vocabtransfer.training.attention import check_separable
from vocabtransfer.training.interruption import Interrupted
from vocabtransfer.training.objectives import Batch
from vocabtransfer.training.processes import (
    computed_in,
    gradient_norm,
    like,
    named_trainable,
    random_states,
    restore_random_states,
    summed,
    whole,
)
from vocabtransfer.training.run import LOGITS_AT_A_TIME, Run
from vocabtransfer.training.stage import NEW, Stage
from vocabtransfer.training.stages import load_values, make_trainable, table_parameters
from vocabtransfer.training.state import Progress, check_names, checkpoint_tensors, group_of
from vocabtransfer.training.table_forms import TableForm
from vocabtransfer.training.text import Position, Row, make_batch
from vocabtransfer.training.throughput import Meter, peak_of, token_operations

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
LONGEST_GRADIENT = 1.0
#: The key of how many times the stage's rate a group of parameters takes.
TIMES = "times"


def run_stage(run: Run, number: int, model: PreTrainedModel, before: Progress) -> Progress:
    """Train stage ``number`` of a run on ``model`` (which holds what earlier stages made) and keep the result.

    ``before`` is how the stage before it ended. Goes on from the stage's last checkpoint when there is one. Raises
    `Interrupted`, with the state on disk, when the run's stop sign is up, and `VocabTransferError` when a loss or a
    gradient is not a number.
    """
    return _StageRun(run, number, model, before).train()


class _StageRun:
    def __init__(self, run: Run, number: int, model: PreTrainedModel, before: Progress) -> None:
        self.run, self.number, self.stage = run, number, run.stages[number]
        self.updates = self.stage.updates(run.tokens_per_update)
        torch.manual_seed(run.seed * 1000 + number)  # low-rank updates begin at random, the same in every process
        trained = make_trainable(model, self.stage, run.lora)
        each = 8 if run.pace.half_moments else 12  # a value and two moments
        run.state.check_space(sum(parameter.numel() for parameter in trained.values()), each)
        self.form = run.form(_matrices(model, run)) if run.form is not None else None
        self.start = {name: p.detach().clone() for name, p in trained.items()} if run.pull(number) else {}
        found = run.state.latest()
        if found is not None:
            self.progress, tensors = found
            check_names(tensors, list(trained), run.state.folder)
            load_values(model, group_of(tensors))
        else:
            self.progress = replace(before, stage=number, update=0, losses=[], best=None, best_score=None, waited=0)
            tensors = {}
        self.masks = _masks(model, run.new_rows) if self.stage.name == NEW else {}
        if run.pace.gradient_checkpointing:
            # transformers 5.24 calls it activation checkpointing and warns of the older name.
            enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
        model.train()
        run.meters[number] = self.meter = self._new_meter(model)
        torch.manual_seed(run.seed * 1000 + number + 7919 * (1 + run.shares.place))
        self.optimizer: torch.optim.Optimizer = _optimizer(trained, model, run, self.stage, self.form)
        self.model: nn.Module = model
        if run.shares.tensor == 1:  # else transformers cut and placed it
            self.model, self.optimizer = run.accelerator.prepare(model, self.optimizer)
        self.trained = named_trainable(self.plain)
        self.learnt = self.trained | (self.form.parameters if self.form is not None else {})
        self._restore(tensors)
        if run.pace.apart is not None:
            name, rows = type(self.plain).__name__, int(self.plain.config.get_text_config().vocab_size)
            check_separable(self.model, name, run.pace.apart, rows, run.accelerator.device, run.accelerator.autocast)

    @property
    def plain(self) -> PreTrainedModel:
        """The model without what accelerate puts around it."""
        return cast(PreTrainedModel, self.run.accelerator.unwrap_model(self.model))

    def _new_meter(self, model: PreTrainedModel) -> Meter:
        accelerator = self.run.accelerator
        peak, source = peak_of(accelerator.device, computed_in(accelerator))
        operations = token_operations(model, self.run.mixture.target.block)
        return Meter(self.stage.name, operations, peak, source, accelerator.num_processes)

    def train(self) -> Progress:
        """Make the updates that are left, evaluating and saving on the way."""
        run, progress, pace = self.run, self.progress, self.run.pace
        if progress.update == 0 and progress.best is None:
            self._begin()
        batches = run.mixture.batches(Position.from_json(progress.position), pace.rows)
        left = range(progress.update, self.updates)
        for _ in track(left, lambda: self.meter.describe(f"stage {self.stage.name}"), total=len(left)):
            if self._is_worn_out():
                break
            rows, position = next(batches)
            with self.meter.update(run.tokens_per_update):
                stopped = self._update(rows)
            progress.update += 1
            progress.position = position.to_json()
            last = progress.update == self.updates
            if run.held_out and (last or progress.update % pace.evaluate_every == 0):
                self._evaluate()
                self._save()
            elif progress.update % pace.save_every == 0:
                self._save()
            if stopped and not last:
                self._save()
                raise Interrupted(progress.update, self.stage.name)
        return self._finish()

    def _begin(self) -> None:
        if not self.run.held_out:
            return
        if not self.progress.curve:
            self._evaluate()
        self.progress.start_from_last()
        if self.run.pace.keeps_best:
            self._save()

    def _is_worn_out(self) -> bool:
        return self.run.pace.patience is not None and self.progress.waited >= self.run.pace.patience

    def _update(self, rows: list[Row]) -> bool:
        """Make one update on a batch of rows; return whether somebody asked for an end."""
        accelerator, progress = self.run.accelerator, self.progress
        shares = self.run.shares
        own = rows[shares.place :: shares.data]
        passes = self._passes(own)
        self.optimizer.zero_grad(set_to_none=True)
        self.model.zero_grad(set_to_none=True)  # a form may keep tables from the optimizer
        total, count = 0.0, 0
        for place, part in enumerate(passes):
            batch = make_batch(part, accelerator.device, self.run.pace.apart)
            # Only the last pass tells the other processes its gradients, which are the sums over all passes by then.
            with nullcontext() if place == len(passes) - 1 else accelerator.no_sync(self.model):
                loss, counted = self._loss(batch)
                accelerator.backward(loss)
            total += loss.item()
            count += counted
        total, everything, asked = summed(accelerator, total, count, float(self.run.stop.asked))
        total, everything = total / shares.tensor, everything / shares.tensor  # neighbours read the same
        self.stage.check_finite(total, "loss", progress.update + 1)
        # Gradients are sums over this process's tokens, averaged over processes: this makes them means over all tokens.
        share = shares.data / max(everything, 1)
        norm = share * gradient_norm(accelerator, self._cut_gradients())
        self.stage.check_finite(norm, "gradient", progress.update + 1)
        for parameter in self.trained.values():
            if parameter.grad is not None:
                parameter.grad.mul_(share * LONGEST_GRADIENT / max(norm, LONGEST_GRADIENT))
        for group in self.optimizer.param_groups:
            group["lr"] = group[TIMES] * self.stage.rate(progress.update, self.updates)
        if self.form is not None:
            self.form.collect()
        self.optimizer.step()
        if self.form is not None:
            self.form.apply()
        self._pull()
        progress.losses.append(total / max(everything, 1))
        progress.tokens += int(everything)
        return asked > 0

    def _pull(self) -> None:
        """Draw what learns towards where it started, by a share of the way that follows its learning rate alone."""
        if not self.start:
            return
        pull = self.run.pull(self.number)
        shares = {id(p): min(pull * group["lr"], 1.0) for group in self.optimizer.param_groups for p in group["params"]}
        with torch.no_grad():
            for name, start in self.start.items():
                self.trained[name].lerp_(start, shares[id(self.trained[name])])
            for parameter in self.form.parameters.values() if self.form is not None else ():
                parameter.mul_(1 - shares[id(parameter)])

    def _cut_gradients(self) -> list[Tensor]:
        """Take the rows that stay out of the gradients; return those that there are."""
        for name, mask in self.masks.items():
            gradient = self.trained[name].grad
            if gradient is not None:
                gradient.mul_(mask)
        return [parameter.grad for parameter in self.trained.values() if parameter.grad is not None]

    def _loss(self, batch: Batch) -> tuple[Tensor, int]:
        with self.run.accelerator.autocast():
            return self.run.objective.loss(self.model, batch)

    def _passes(self, rows: list[Row]) -> list[list[Row]]:
        if self.run.pace.passes is not None:
            size = math.ceil(len(rows) / self.run.pace.passes)
        else:
            positions = (len(rows[0].ids) - 1) * int(self.plain.config.get_text_config().vocab_size)
            size = max(LOGITS_AT_A_TIME // positions, 1)
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _evaluate(self) -> None:
        with step("evaluating"), self.run.accelerator.autocast():
            score = bits_per_byte(self.plain, self.run.tokenizer, self.run.held_out)
        own = score.bits_per_byte if self.run.accelerator.is_main_process else 0.0
        bits = summed(self.run.accelerator, own)[0]  # all processes decide by the same number
        self.progress.record(self.stage.name, bits)

    def _values(self) -> dict[str, Tensor]:
        return self._gathered(self.trained)

    def _gathered(self, tensors: dict[str, Any]) -> dict[str, Tensor]:
        """Return tensors in one piece in the first process, which writes them; nothing in the others."""
        found = ((name, whole(tensor, self.run.accelerator.is_main_process)) for name, tensor in tensors.items())
        return {name: tensor for name, tensor in found if tensor is not None}

    def _save(self) -> None:
        """Write a checkpoint: values, moments, random states, and how far the run is."""
        optimizer = _inner(self.optimizer)
        moments = {
            f"{moment}:{name}": optimizer.state[parameter][moment]
            for name, parameter in self.learnt.items()
            if parameter in optimizer.state
            for moment in MOMENTS
        }
        form = self.form.parameters if self.form is not None else {}
        random = random_states(self.run.accelerator)
        kept, formed = self._gathered(moments), self._gathered(form)
        tensors = checkpoint_tensors(self._values(), moment=kept, form=formed, random=random)
        if self.run.accelerator.is_main_process:
            with step("saving"):
                keep = self.progress.best if self.run.pace.keeps_best else None
                self.run.state.save(self.progress, tensors, keep)
        self.run.accelerator.wait_for_everyone()

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        """Give the optimizer the moments, and torch the random states, that a checkpoint holds."""
        optimizer, moments = _inner(self.optimizer), group_of(tensors, "moment")
        for name, value in group_of(tensors, "form").items():
            self.learnt[name].data.copy_(value)
        for name, parameter in self.learnt.items():
            if f"step:{name}" in moments:
                optimizer.state[parameter] = {
                    "step": moments[f"step:{name}"],
                    **{moment: like(moments[f"{moment}:{name}"], parameter) for moment in MOMENTS[1:]},
                }
        restore_random_states(self.run.accelerator, group_of(tensors, "random"))
        self.masks = {name: like(mask, self.trained[name]) for name, mask in self.masks.items()}
        self.start = {name: like(start, self.trained[name]) for name, start in self.start.items()}

    def _finish(self) -> Progress:
        """Keep what the stage made: its best where held-out text tells it, else its last values."""
        progress, run = self.progress, self.run
        values = self._values()
        if run.accelerator.is_main_process:
            if run.pace.keeps_best and progress.best is not None and progress.best != progress.update:
                values = group_of(run.state.tensors_of(progress.best))
            with step("saving"):
                run.state.finish_stage(progress, values)
        run.accelerator.wait_for_everyone()
        run.accelerator.free_memory()
        return progress


def _matrices(model: PreTrainedModel, run: Run) -> dict[str, nn.Parameter]:
    """Return input table and head by name, where the run is going to compute."""
    tables = table_parameters(model.to(run.accelerator.device))
    return {name: table for name, table in tables.items() if table.dim() == 2}


def _inner(optimizer: Any) -> torch.optim.Optimizer:
    return cast(torch.optim.Optimizer, getattr(optimizer, "optimizer", optimizer))


def _optimizer(
    trained: dict[str, nn.Parameter], model: PreTrainedModel, run: Run, stage: Stage, form: TableForm | None
) -> torch.optim.Optimizer:
    """Return AdamW; only matrices of the body decay: a row that no text mentions should stay as the transfer made it.

    For the same reason tables are held, see `TableAdamW`. They take the stage's rate so many times as `Run.table_rate` says.
    On a CPU torch's steps are fused, which read parameters, gradients and moments once instead of ten times; torch chooses
    for other devices, and for parts of parameters that several processes hold.
    """
    pace, faster = run.pace, run.table_rate(stage)
    alone = run.accelerator.device.type == "cpu" and run.accelerator.num_processes == 1
    tables = table_parameters(model)
    decayed = [p for name, p in trained.items() if p.dim() > 1 and name not in tables]
    others = [p for name, p in trained.items() if p.dim() < 2]
    held = [p for name, p in trained.items() if p.dim() > 1 and name in tables]
    shared = list(form.parameters.values()) if form is not None else []
    if form is not None and not form.rows_learn:
        others, held = [], []
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": pace.weight_decay, TIMES: 1.0},
        {"params": others, "weight_decay": 0.0, TIMES: 1.0},
        {"params": shared, "weight_decay": 0.0, TIMES: faster},
        {"params": held, "weight_decay": 0.0, HELD: True, TIMES: faster},
    ]
    moments = torch.bfloat16 if pace.half_moments else torch.float32
    found = [group for group in groups if group["params"]]
    return TableAdamW(found, lr=0.0, betas=pace.betas, moments=moments, fused=alone or None)


def _masks(model: PreTrainedModel, new_rows: NDArray[np.bool_] | None) -> dict[str, Tensor]:
    """Return for every table 1 where a row is new and 0 elsewhere: float32 (rows, 1), or (rows,) for a bias."""
    assert new_rows is not None, "it is checked before anything runs"
    column = torch.from_numpy(new_rows).float()
    return {
        name: column.reshape(-1, *[1] * (parameter.dim() - 1)) for name, parameter in table_parameters(model).items()
    }
