"""A light fine-tuning of a chat model on dialogues: low-rank updates, and loss on the answers alone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.progress import track
from vocabtransfer.training.loop import LONGEST_GRADIENT
from vocabtransfer.training.objectives import IGNORED
from vocabtransfer.training.run import LOGITS_AT_A_TIME
from vocabtransfer.training.stage import LORA, LoraShape, Stage
from vocabtransfer.training.stages import add_lora, merge_lora

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Turn:
    """One dialogue as token ids: what the model is given, and what it is to say, the end of its turn included."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.prompt) + len(self.answer)


def encode_turn(tokenizer: PreTrainedTokenizerFast, messages: Messages, ends: Sequence[int]) -> Turn:
    """Encode a dialogue in the form of the model's chat template, cut where the model begins to speak.

    Args:
        tokenizer: has a chat template.
        messages: one request and its answer.
        ends: the tokens that end a turn; the one that the template puts behind an answer is learned, else the first.
    """
    prompt = _text(tokenizer, messages[:-1], add_generation_prompt=True)
    whole = _text(tokenizer, messages, add_generation_prompt=False)
    # Where a template shows an answer otherwise than it asks for one, the answer as it is follows the prompt.
    said = whole[len(prompt) :] if whole.startswith(prompt) else messages[-1]["content"]
    asked, both = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, prompt + said))
    if both[: len(asked)] == asked:
        ids = both[len(asked) :]
    else:  # a token reaches over the border, which the model never meets when it answers
        ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return Turn(tuple(asked), (*ids[:stop], ids[stop] if stop < len(ids) else ends[0]))


def _text(tokenizer: PreTrainedTokenizerFast, messages: Messages, *, add_generation_prompt: bool) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))


@dataclass(frozen=True)
class AnswerTraining:
    """How a model is trained on answers: passes over all turns, turns of an update, and the highest learning rate."""

    epochs: int = 1
    batch: int = 8
    learning_rate: float = 2e-4
    lora: LoraShape = field(default_factory=lambda: LoraShape(8, 16.0))
    seed: int = 0


def train_on_answers(
    model: PreTrainedModel, turns: Sequence[Turn], how: AnswerTraining
) -> tuple[list[float], list[str]]:
    """Train low-rank updates of all linear layers of the body on the answers, and merge them into ``model``.

    An update is one AdamW step on ``how.batch`` turns, the gradient cut at norm 1. Same inputs, seed and threads, same
    result. Returns the losses of all updates, in nats a token, and the names of the parameters that changed.

    Raises `VocabTransferError` when a loss or gradient is not a number; ``model`` is then of no use any more.
    """
    torch.manual_seed(how.seed)
    model.requires_grad_(False)
    add_lora(model, how.lora)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    batches = list(_batches(len(turns), how))
    stage = Stage(LORA, len(batches), False, how.learning_rate)
    model.train()
    losses = []
    for update, chosen in enumerate(track(batches, "calibrating")):
        optimizer.zero_grad(set_to_none=True)
        losses.append(_gradients(model, [turns[i] for i in chosen]))
        norm = float(torch.nn.utils.clip_grad_norm_(trained, LONGEST_GRADIENT))
        if not math.isfinite(losses[-1] + norm):
            raise VocabTransferError(
                f"The loss or its gradient became NaN or infinite at update {update + 1}: give a lower `learning_rate` "
                f"than {how.learning_rate:g}; nothing was written."
            )
        for group in optimizer.param_groups:
            group["lr"] = stage.rate(update, len(batches))
        optimizer.step()
    model.eval()
    return losses, merge_lora(model)


def _batches(count: int, how: AnswerTraining) -> Iterator[list[int]]:
    for epoch in range(how.epochs):
        order = np.random.default_rng([how.seed, epoch]).permutation(count).tolist()
        for start in range(0, count, how.batch):
            yield order[start : start + how.batch]


def _gradients(model: PreTrainedModel, turns: list[Turn]) -> float:
    """Add up the gradients of a batch in as many passes as memory asks for; return its loss in nats a token."""
    counted = sum(len(turn.answer) for turn in turns)
    turns = sorted(turns, key=len)
    rows = int(model.config.get_text_config().vocab_size)
    size = max(LOGITS_AT_A_TIME // (rows * len(turns[-1])), 1)
    total = 0.0
    for start in range(0, len(turns), size):
        loss = _answer_loss(model, turns[start : start + size]) / counted
        loss.backward()
        total += loss.item()
    return total


def _answer_loss(model: PreTrainedModel, turns: list[Turn]) -> Tensor:
    """Return the summed cross entropy of all answer tokens of some turns, in nats."""
    width = max(map(len, turns))
    ids = np.zeros((len(turns), width), np.int64)
    labels = np.full((len(turns), width), IGNORED, np.int64)
    for row, turn in enumerate(turns):
        ids[row, : len(turn)] = (*turn.prompt, *turn.answer)
        labels[row, len(turn.prompt) : len(turn)] = turn.answer
    mask = np.arange(width) < np.array([len(turn) for turn in turns])[:, None]
    device = model.device
    logits = model(
        input_ids=torch.from_numpy(ids).to(device),
        attention_mask=torch.from_numpy(mask.astype(np.int64)).to(device),
        use_cache=False,
    ).logits[:, :-1]
    targets = torch.from_numpy(labels).to(device)[:, 1:]
    return nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
