"""Self-calibration of a chat model with a new vocabulary (arXiv 2412.21140): a light fine-tuning on what it can say itself.

Copying is the skill that new rows damage most, so the model learns to copy passages of the target language; with requests
in that language it learns its own sound answers too. No instruction data is needed. Low-rank updates of the body's
linear layers are trained on the answers and merged; tokenizer, tables and settings stay as they are.
"""

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from vocabtransfer.checkpoint import Checkpoint, WriteReport, check_target, open_checkpoint, plan_checkpoint
from vocabtransfer.checkpoint.plan import Link
from vocabtransfer.checkpoint.rewrite import update_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation.scoring import text_config
from vocabtransfer.files.cards import one_line
from vocabtransfer.files.staging import settled
from vocabtransfer.files.text import TextFiles, read_text
from vocabtransfer.hydra.folder import is_hydra
from vocabtransfer.progress import say, step
from vocabtransfer.public import public, settle_fields
from vocabtransfer.reprs import asked, brief
from vocabtransfer.running.load import load_causal_model
from vocabtransfer.running.memory import is_out_of_memory
from vocabtransfer.running.plan import dtype_name, needs_memory, plan_run
from vocabtransfer.scripts import SCRIPTS, dominant_scripts
from vocabtransfer.self_training.answering import ChatModel, CopyAccuracy, copy_accuracy, self_answers
from vocabtransfer.self_training.answers import AnswerTraining, Turn, encode_turn, train_on_answers
from vocabtransfer.self_training.dialogues import (
    COPY_REQUESTS,
    Dialogue,
    copy_tasks,
    read_dialogues,
    write_dialogues,
)
from vocabtransfer.training.result import CARD, file_names, to_json
from vocabtransfer.version import __version__

FACTS_FILE = "calibrate.json"
# A copy may take so much longer than the text before it is cut off.
_LONGER_COPY, _MORE_TOKENS = 1.25, 16
# Which mixed writing a script is a part of.
_MIXED = {"Hira": "Jpan", "Kana": "Jpan", "Hang": "Kore"}
_OWN_LETTERS = 0.1


@dataclass(frozen=True)
class CalibrateRequest:
    """Everything a self-calibration can be asked for.

    Attributes:
        model: alias, hub id, folder or GGUF file of a chat model.
        text: files of running text in the target language, for copy tasks.
        output: folder to write.
        requests: a file of requests in the target language, one a line; the model's sound answers are learned too.
        tasks: how many copy tasks are learned.
        held_out_tasks: how many more are kept to measure copying before and after.
        copy_requests: sentences that ask for a copy, best in the target language; English ones when empty.
        longest: characters of a passage to copy, at most.
        script: ISO 15924 name of the target language's script, which answers must be in; that of the text when not given.
        tries: answers a request may have until one is sound.
        max_new_tokens: tokens of an answer to a request, at most.
        dialogues: a file that keeps the dialogues to learn; when it exists already, they are read and not made again.
        training: passes, batch, learning rate and shape of the updates; its seed is that of tasks and answers too.
        device: where to run; a GPU when there is one, if not given.
        dtype: precision of the model; float32 on a CPU and the stored one elsewhere, if not given.
        link: how unchanged shards get into the output.
        overwrite: replace an output that vocabtransfer wrote.
        allow_pickle: accept ``.bin`` weights.
        field: the field that holds the text, where text is in records (JSONL, CSV, Parquet ...).
    """

    model: str
    text: TextFiles
    output: Path
    requests: Path | None = None
    tasks: int = 200
    held_out_tasks: int = 40
    copy_requests: tuple[str, ...] = ()
    longest: int = 400
    script: str | None = None
    tries: int = 2
    max_new_tokens: int = 256
    dialogues: Path | None = None
    training: AnswerTraining = dataclasses.field(default_factory=AnswerTraining)
    device: str | None = None
    dtype: str | None = None
    link: Link = "hard"
    overwrite: bool = False
    allow_pickle: bool = False
    field: str | None = None

    def __repr__(self) -> str:
        return asked(self)

    def __post_init__(self) -> None:
        settle_fields(self)
        object.__setattr__(self, "text", read_text(self.text, field=self.field))


@dataclass(frozen=True, eq=False)
class CalibrateResult:
    """What a self-calibration did: copying of held-out passages before and after, and what ``calibrate.json`` holds."""

    before: CopyAccuracy
    after: CopyAccuracy
    facts: Mapping[str, Any]
    written: WriteReport

    def __repr__(self) -> str:
        return brief(self, path=self.written.path, before=self.before, after=self.after)


@public
def calibrate(request: CalibrateRequest) -> CalibrateResult:
    """Make dialogues in the target language, train a chat model on them a little, and write it.

    Nothing is written before the training is done, so a run that was stopped is simply run again; ``dialogues`` saves
    making the answers again. With the same inputs, seed and threads a run on a CPU gives the same bytes.

    Raises:
        UsageError: numbers that make no sense, a model without chat template, a Hydra.
        VocabTransferError: an input that cannot be used, an output that exists, too little memory, a loss that is NaN.
    """
    _check_numbers(request)
    with step(f"opening {request.model}"):
        checkpoint = _open(request)
    plan = plan_run(checkpoint, device=request.device, dtype=request.dtype)
    learned, held_out = _copy_tasks(request)
    say(needs_memory(f"Training {checkpoint.name} in {dtype_name(plan.dtype)}", plan.weights, plan.device))
    with _memory_errors():
        with step("loading the model"):
            model = load_causal_model(checkpoint.path, plan.device, plan.dtype)
            file_names(checkpoint, model, [name for name, _ in model.named_parameters()])
        chat = ChatModel(model, checkpoint.tokenizer, batch_size=request.training.batch)
        before = _measure(chat, checkpoint, held_out)
        dialogues, made = _dialogues(request, chat, learned, held_out)
        turns = _turns(checkpoint, chat, model, dialogues)
        losses, changed = train_on_answers(model, turns, request.training)
        after = _measure(
            ChatModel(model, checkpoint.tokenizer, batch_size=request.training.batch), checkpoint, held_out
        )
    facts = _facts(request, checkpoint, dialogues, made, turns, losses, before, after)
    facts["running"] = {"device": plan.device, "dtype": dtype_name(plan.dtype)}
    return CalibrateResult(before, after, facts, _write(request, checkpoint, model, changed, facts))


def _check_numbers(request: CalibrateRequest) -> None:
    training = request.training
    positive = {
        "`tasks`": request.tasks,
        "`held_out_tasks`": request.held_out_tasks,
        "`longest`": request.longest,
        "`tries`": request.tries,
        "`max_new_tokens`": request.max_new_tokens,
        "`training.epochs`": training.epochs,
        "`training.batch`": training.batch,
        "`training.lora.rank`": training.lora.rank,
    }
    for option, number in positive.items():
        if number < 1:
            raise UsageError(f"{option} is {number}: it must be 1 or more.")
    if not 0 < training.learning_rate < float("inf") or not 0 < training.lora.alpha < float("inf"):
        raise UsageError("`training.learning_rate` and `training.lora.alpha` must be numbers above 0.")
    if not request.text:
        raise UsageError("Name at least one file of text in the target language: `text`.")


def _open(request: CalibrateRequest) -> Checkpoint:
    """Open the model after checking that the result has a place to go."""
    output = settled(request.output)
    check_target(output, request.overwrite)
    checkpoint = open_checkpoint(request.model, allow_pickle=request.allow_pickle)
    if is_hydra(checkpoint.path):
        raise UsageError(
            f"{request.model} is a Hydra: take one language out of it with `vocabtransfer head export` and calibrate that."
        )
    if not checkpoint.tokenizer.chat_template:
        raise UsageError(f"{checkpoint.name} has no chat template, so it cannot be asked anything: give a chat model.")
    plan_checkpoint(checkpoint, output, vocabulary_size=checkpoint.layout.rows, link=request.link)
    return checkpoint


def _copy_tasks(request: CalibrateRequest) -> tuple[list[Dialogue], list[Dialogue]]:
    """Return copy tasks to learn and others to measure with; no passage is in both."""
    names = str(read_text(request.text))
    try:
        drawn = copy_tasks(
            read_text(request.text),
            request.tasks + request.held_out_tasks,
            seed=request.training.seed,
            requests=request.copy_requests or COPY_REQUESTS,
            longest=request.longest,
        )
    except UsageError:
        raise
    except VocabTransferError as problem:
        raise VocabTransferError(f"`text` {names}: {problem}") from None
    random.Random(request.training.seed).shuffle(drawn)  # they come in the order of the text
    cut = min(request.held_out_tasks, len(drawn) // 2)
    held_out = drawn[:cut]
    measured = {task.answer for task in held_out}
    learned = [task for task in drawn[cut:] if task.answer not in measured]
    if not held_out or not learned:
        raise VocabTransferError(
            f"`text` {names}: the text has {len(drawn)} different passages to copy, too few to learn from some and measure "
            "with others: give more text."
        )
    return learned, held_out


def _measure(chat: ChatModel, checkpoint: Checkpoint, tasks: Sequence[Dialogue]) -> CopyAccuracy:
    encoded = checkpoint.tokenizer([task.answer for task in tasks], add_special_tokens=False)["input_ids"]
    longest = max(map(len, encoded))
    with step("measuring copies"):
        return copy_accuracy(chat, tasks, max_new_tokens=int(longest * _LONGER_COPY) + _MORE_TOKENS)


def _dialogues(
    request: CalibrateRequest, chat: ChatModel, learned: list[Dialogue], held_out: list[Dialogue]
) -> tuple[list[Dialogue], dict[str, Any]]:
    """Return what to learn, read or made, and facts about how it was made."""
    if request.dialogues is not None and request.dialogues.exists():
        measured = {task.answer for task in held_out}
        found = [item for item in read_dialogues(request.dialogues) if item.answer not in measured]
        if not found:
            raise VocabTransferError(f"`dialogues` {request.dialogues}: there is nothing in it to learn from.")
        return found, {"read_from": request.dialogues.name}
    made: dict[str, Any] = {}
    dialogues = list(learned)
    if request.requests is not None:
        asked = list(dict.fromkeys(line.strip() for line in read_text(request.requests)))
        if not asked:
            raise VocabTransferError(f"`requests` {request.requests}: there is no request in it, one is a line.")
        script = request.script or _script([task.answer for task in (*learned, *held_out)])
        answers = self_answers(
            chat,
            asked,
            script=script,
            tries=request.tries,
            max_new_tokens=request.max_new_tokens,
            seed=request.training.seed,
        )
        dialogues += answers.dialogues
        made = {
            "requests": len(asked),
            "script": script,
            "answers": len(answers.dialogues),
            "verdicts": answers.verdicts,
        }
    if request.dialogues is not None:
        write_dialogues(dialogues, request.dialogues)
    return dialogues, made


def _script(texts: Sequence[str]) -> str:
    """Return the script of some texts as `judge` calls it; Japanese and Korean are known by their own letters."""
    codes = dominant_scripts([character for text in texts for character in text])
    counts = np.bincount(codes, minlength=len(SCRIPTS))[1:]
    for script, mixed in _MIXED.items():
        if counts[SCRIPTS.index(script) - 1] > _OWN_LETTERS * counts.sum():
            return mixed
    return SCRIPTS[1 + int(counts.argmax())]


def _turns(
    checkpoint: Checkpoint, chat: ChatModel, model: PreTrainedModel, dialogues: Sequence[Dialogue]
) -> list[Turn]:
    """Return the dialogues as tokens, without those that are longer than the model's window."""
    longest = getattr(text_config(model), "max_position_embeddings", None)
    turns = [encode_turn(checkpoint.tokenizer, dialogue.messages(), chat.ends) for dialogue in dialogues]
    fitting = [turn for turn in turns if longest is None or len(turn) <= longest]
    if not fitting:
        raise VocabTransferError(
            f"No dialogue fits the {longest} tokens of {checkpoint.name}: give a smaller `longest`."
        )
    return fitting


def _facts(
    request: CalibrateRequest,
    checkpoint: Checkpoint,
    dialogues: Sequence[Dialogue],
    made: Mapping[str, Any],
    turns: Sequence[Turn],
    losses: Sequence[float],
    before: CopyAccuracy,
    after: CopyAccuracy,
) -> dict[str, Any]:
    """Return what was done. No times and no machine: the same run gives the same bytes."""
    notes = []
    if request.requests is None and "read_from" not in made:
        notes.append("Only copying was learned: with `requests` the model learns its own answers, too.")
    if len(turns) < len(dialogues):
        notes.append(f"{len(dialogues) - len(turns)} dialogues were longer than the model's window and left out.")
    if after.mean < before.mean:
        notes.append("The model copies less well than before: try a lower `training.learning_rate` or more `tasks`.")
    how = request.training
    return {
        "vocabtransfer": __version__,
        "reference": "arXiv 2412.21140",
        "model": checkpoint.name,
        "text": read_text(request.text).names(),
        "copy_tasks": sum(dialogue.kind == "copy" for dialogue in dialogues),
        "self_answers": sum(dialogue.kind == "answer" for dialogue in dialogues),
        "dialogues": dict(made),
        "turns": len(turns),
        "tokens_learned": sum(len(turn.answer) for turn in turns),
        "epochs": how.epochs,
        "updates": len(losses),
        "batch": how.batch,
        "learning_rate": how.learning_rate,
        "lora": asdict(how.lora),
        "seed": how.seed,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "copying_before": asdict(before),
        "copying_after": asdict(after),
        "notes": notes,
    }


def _write(
    request: CalibrateRequest,
    checkpoint: Checkpoint,
    model: PreTrainedModel,
    changed: Sequence[str],
    facts: Mapping[str, Any],
) -> WriteReport:
    parameters = dict(model.named_parameters())
    values = {
        own: parameters[name].detach().reshape(checkpoint.tensors[own].shape)
        for name, names in file_names(checkpoint, model, changed).items()
        for own in names
    }
    return update_checkpoint(
        checkpoint,
        settled(request.output),
        values,
        extra_files={FACTS_FILE: to_json(facts), CARD: _card(checkpoint, facts)},
        facts={"vocabtransfer": __version__, "source": checkpoint.name},
        link=request.link,
        overwrite=request.overwrite,
    )


def _card(checkpoint: Checkpoint, facts: Mapping[str, Any]) -> bytes:
    """Return the model card: the checkpoint's own, if it has one, and what calibration added."""
    own = checkpoint.path / CARD
    before = own.read_text(encoding="utf-8").rstrip() if own.is_file() else f"# {one_line(checkpoint.name)}, calibrated"
    copied, mean = ((facts["copying_before"][name], facts["copying_after"][name]) for name in ("copied", "mean"))
    lines = [
        "## Self-calibration",
        "",
        f"vocabtransfer {facts['vocabtransfer']} trained low-rank updates of the body on {facts['copy_tasks']:,} copy tasks "
        f"and {facts['self_answers']:,} of the model's own answers, {facts['updates']:,} updates in all, and merged them.",
        "",
        f"Held-out passages copied: {copied[0]:.1%} before, {copied[1]:.1%} after; mean share of a passage that came back "
        f"(longest common subsequence): {mean[0]:.3f} before, {mean[1]:.3f} after. `{FACTS_FILE}` has the settings.",
    ]
    return (before + "\n\n" + "\n".join(lines) + "\n").encode()


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn every way of running out of memory into one sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if not is_out_of_memory(problem):
            raise
        raise VocabTransferError(
            "There is not enough memory; nothing was written: give a smaller `training.batch` or `longest`."
        ) from problem
