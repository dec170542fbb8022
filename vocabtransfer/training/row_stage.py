"""A stage ``new`` that trains rows alone, from what the untouched model says: cost and memory follow the new rows.

It stands in for the loop over the whole model (see `vocabtransfer.training.loop`) when the objective is ``distill`` and
the teacher is the model that the transfer started from, so that both have one body.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.evaluation.bits_per_byte import bits_per_byte
from vocabtransfer.evaluation.scoring import document_separator
from vocabtransfer.progress import step, track
from vocabtransfer.running.load import load_causal_model
from vocabtransfer.tokenization.ragged import IntArray
from vocabtransfer.training.early_layers import EarlyLayers, load_early
from vocabtransfer.training.interruption import Interrupted
from vocabtransfer.training.row_distiller import RowDistiller, leading_rows
from vocabtransfer.training.row_fit import RowFit, foretold
from vocabtransfer.training.row_head import RowHead
from vocabtransfer.training.row_lessons import Cutter, Lessons, Snippets, choose_texts, other_texts, take_lessons
from vocabtransfer.training.run import Run
from vocabtransfer.training.snippets import SnippetChooser
from vocabtransfer.training.state import Progress, checkpoint_tensors, group_of

NUMBERS, SIDES = "rows:numbers", ("rows:input", "rows:output")
# Each snippet is met so often: listening to the untouched model costs as much as one and a half updates on it.
USES = 3
# Longer than what a new token needs as input: heads predict better behind some context.
_SNIPPET = 96
_LARGEST_POOL = 1 << 20


def run_row_stage(run: Run, number: int, before: Progress) -> Progress:
    """Train the new rows for stage ``number`` of a run and keep the result in its state; see `run_stage`."""
    return _RowStage(run, number, before).train()


class RowMaterial:
    """What new rows are fitted on: snippets of text, what the untouched model says about them, and the fit itself.

    ``rows`` are the numbers of the rows in training, ascending: the new ones, and those of old tokens that a new token's
    text begins with.
    """

    def __init__(self, distiller: RowDistiller, new_rows: NDArray[np.bool_]) -> None:
        """Take what distillation needs and which rows are new, bool (rows,)."""
        self._distiller, self.new_rows = distiller, new_rows
        self.leading = leading_rows(distiller.model, distiller.teacher, new_rows)
        self.rows = np.flatnonzero(new_rows | self.leading)
        self._head = RowHead(distiller.model, self.rows, distiller.dtype, distiller.device)

    def snippets(self, documents: Iterable[str], others: Iterable[str] | None, share: float, tokens: int) -> Snippets:
        """Choose about ``tokens`` tokens of text with new tokens, and a share of them more of other documents."""
        distiller = self._distiller
        chooser = SnippetChooser(distiller.model.tokenizer, self.new_rows, length=_SNIPPET)
        texts, counts = choose_texts(documents, chooser, self.new_rows, tokens)
        more = other_texts(others, chooser, int(tokens * share)) if others is not None else []
        tied = distiller.model.layout.output_name is None
        read = self.new_rows | self.leading if tied else self.new_rows
        cutter = Cutter(distiller.model.tokenizer, distiller.teacher.tokenizer)
        return cutter([*texts, *more], read, self.new_rows | self.leading, counts, others=len(more))

    def lessons(self, snippets: Snippets, teacher: PreTrainedModel) -> Lessons:
        """Let the untouched model, loaded, say what rows are fitted on."""
        separator = document_separator(teacher, self._distiller.teacher.tokenizer)
        return take_lessons(snippets, EarlyLayers(teacher, self._distiller.layer), self._head, separator)

    def fit(self, snippets: Snippets, lessons: Lessons, seed: int) -> RowFit:
        """Return the fit of the rows, at its start."""
        distiller = self._distiller
        model = load_early(distiller.model, distiller.layer, distiller.dtype, distiller.device)
        own = document_separator(model, distiller.model.tokenizer)
        return RowFit(
            *(
                distiller.model,
                self.rows,
                EarlyLayers(model, distiller.layer),
                self._head,
                snippets,
                lessons,
                own,
                seed,
            ),
            leading=self.leading[self.rows],
        )


class _RowStage:
    def __init__(self, run: Run, number: int, before: Progress) -> None:
        assert run.rows is not None, "asked for only where there is one"
        self.run, self.number, self.stage, self.distiller = run, number, run.stages[number], run.rows
        self.updates = self.stage.updates(run.tokens_per_update)
        self.pull = run.pull(number)
        assert run.new_rows is not None, "it is checked before anything runs"
        self.new_rows = run.new_rows
        self.material = RowMaterial(self.distiller, run.new_rows)
        self.rows = self.material.rows
        run.state.check_space(len(self.rows) * int(run.rows.model.input_table().shape[1]) * 2)
        found = run.state.latest()
        self.progress, tensors = found or (
            replace(before, stage=number, update=0, losses=[], best=None, best_score=None, waited=0),
            {},
        )
        self.fit = self._fit()
        if tensors:
            self.fit.restore(group_of(tensors), group_of(tensors, "moment"))

    def _fit(self) -> RowFit:
        run, pool = self.run, self.updates * self.run.tokens_per_update // USES
        pool = min(max(pool, run.tokens_per_update), _LARGEST_POOL)
        source = run.mixture.source
        others = source.documents(0) if source is not None else None
        with step("choosing snippets with new tokens"):
            snippets = self.material.snippets(run.mixture.target.documents(0), others, run.mixture.share, pool)
        return self.material.fit(snippets, self._lessons(snippets), run.seed)

    def _lessons(self, snippets: Snippets) -> Lessons:
        """Return what the untouched model said, from disk where an earlier process kept it."""
        name = f"lessons-{self.number}"
        kept = self.run.state.kept(name)
        if kept is not None and Lessons(**kept).are_of(snippets):
            return Lessons(**kept)
        distiller = self.distiller
        model = load_causal_model(distiller.teacher.path, str(distiller.device), distiller.dtype)
        lessons = self.material.lessons(snippets, model)
        self.run.state.keep(name, lessons.tensors())
        return lessons

    def train(self) -> Progress:
        """Make the updates that are left, evaluating and saving on the way."""
        run, progress, pace = self.run, self.progress, self.run.pace
        if run.held_out and progress.update == 0 and progress.best is None:
            self._begin()
        plan = self.fit.plan(run.tokens_per_update, self.updates)
        left = range(progress.update, self.updates)
        for number in track(left, f"stage {self.stage.name}", total=len(left)):
            if pace.patience is not None and progress.waited >= pace.patience:
                break
            self._update(number, plan[number])
            last = progress.update == self.updates
            if run.held_out and (last or progress.update % pace.evaluate_every == 0):
                self._evaluate()
                self._save()
            elif progress.update % pace.save_every == 0:
                self._save()
            if run.stop.asked and not last:
                self._save()
                raise Interrupted(progress.update, self.stage.name)
        return self._finish()

    def _update(self, number: int, texts: IntArray) -> None:
        rate = self.stage.rate(number, self.updates)
        loss = self.fit.update(number, texts, rate, self.pull)
        self.stage.check_finite(loss, "loss", number + 1)
        self.progress.losses.append(loss)
        self.progress.tokens += int(self.fit.tokens(texts))
        self.progress.update += 1

    def _begin(self) -> None:
        progress = self.progress
        if not progress.curve:
            self._evaluate()
        progress.start_from_last()
        if self.run.pace.keeps_best:
            self._save()

    def _evaluate(self) -> None:
        run = self.run
        with step("evaluating"):
            model = load_causal_model(self.distiller.model.path, str(self.distiller.device), self.distiller.dtype)
            set_rows(model, self.values())
            bits = bits_per_byte(model, run.tokenizer, run.held_out).bits_per_byte
        self.progress.record(self.stage.name, bits)

    def values(self) -> dict[str, Tensor]:
        """Return the rows as they are now, with what those that no snippet holds are foretold to be."""
        found = {NUMBERS: torch.from_numpy(self.rows)}
        for side, change in self.fit.changes.items():
            rows, counts = self.fit.rows(side).detach().cpu().clone(), self.fit.counts[side]
            made = np.flatnonzero(self.new_rows[self.rows])
            moved = change.detach().cpu()
            unmet = torch.from_numpy(made[counts[made] == 0])
            rows[unmet] += foretold((rows - moved)[made], moved[made], counts[made])[0]
            found[f"rows:{side}"] = rows
        return found

    def _save(self) -> None:
        changes = {side: change.detach() for side, change in self.fit.changes.items()}
        tensors = checkpoint_tensors(changes, moment=self.fit.moments())
        with step("saving"):
            keep = self.progress.best if self.run.pace.keeps_best else None
            self.run.state.save(self.progress, tensors, keep)

    def _finish(self) -> Progress:
        """Keep what the stage made: its best where held-out text tells it, else its last values."""
        progress, run = self.progress, self.run
        if run.pace.keeps_best and progress.best is not None and progress.best != progress.update:
            self.fit.restore(group_of(run.state.tensors_of(progress.best)), {})
        with step("saving"):
            run.state.finish_stage(progress, self.values())
        return progress


def set_rows(model: PreTrainedModel, values: Mapping[str, Tensor]) -> list[str]:
    """Put trained rows into the tables of a model; return the names of the parameters that changed."""
    tables = {"rows:input": model.get_input_embeddings().weight, "rows:output": model.get_output_embeddings().weight}
    changed = []
    for side in SIDES:
        if side in values:
            table = tables[side]
            with torch.no_grad():
                table[values[NUMBERS].to(table.device)] = values[side].to(table.device, table.dtype)
            changed += [name for name, parameter in model.named_parameters() if parameter is table]
    return changed


def new_tables(checkpoint: Checkpoint, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tables of a checkpoint with trained rows, by their names in its files, in the dtype they are stored in."""
    found = {}
    for tensor in checkpoint.layout.tensors:
        side = "rows:output" if tensor.part == "output" and "rows:output" in values else "rows:input"
        if tensor.part not in ("input", "shared", "output") or tensor.further:
            continue
        table = checkpoint.read(tensor.name).clone()
        table[values[NUMBERS]] = values[side].to(table.dtype)
        found[tensor.name] = table
    return found
