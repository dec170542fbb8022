"""A chat model that answers requests: its own answers to learn from, and how well it copies."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.progress import track
from vocabtransfer.running.load import folder_opener
from vocabtransfer.self_training.dialogues import Dialogue, common_length, judge
from vocabtransfer.tokenization.load import load_tokenizer

#: Share of a text that must come back, in order, for a copy to count as one.
COPIED = 0.99


@dataclass(frozen=True)
class Answer:
    """What a model said, and whether it ended its turn by itself."""

    text: str
    finished: bool


class Answerer(Protocol):
    """Anything that answers requests of one user turn."""

    def __call__(self, requests: Sequence[str], *, max_new_tokens: int, seed: int | None = None) -> list[Answer]:
        """Answer each request with at most so many tokens; the likeliest answer, or one drawn with a seed."""
        ...


class ChatModel:
    """A causal language model with a chat template, on any device, answering in batches."""

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerFast, *, batch_size: int = 8, temperature: float = 0.7
    ) -> None:
        """Wrap a loaded model; `UsageError` when its tokenizer has no chat template."""
        if not tokenizer.chat_template:
            raise UsageError("the model has no chat template, so it cannot be asked anything: give a chat model.")
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._batch = batch_size
        self._temperature = temperature

    @classmethod
    def open(cls, folder: str | Path, *, dtype: torch.dtype = torch.float32, **options: Any) -> "ChatModel":
        """Load a model folder; ``options`` are those of the class. Nothing is downloaded."""
        tokenizer = load_tokenizer(folder)
        model = folder_opener(Path(folder)).from_pretrained(folder, dtype=dtype, local_files_only=True)
        return cls(model, tokenizer, **options)

    def __call__(self, requests: Sequence[str], *, max_new_tokens: int, seed: int | None = None) -> list[Answer]:
        """Answer each request; requests of similar length share a batch, answers come in the order of the requests."""
        prompts = [self._prompt(request) for request in requests]
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        answers: dict[int, Answer] = {}
        starts = range(0, len(order), self._batch)
        for start in track(starts, "answering"):
            chosen = order[start : start + self._batch]
            batch = self._generate([prompts[i] for i in chosen], max_new_tokens, None if seed is None else seed + start)
            answers.update(zip(chosen, batch, strict=True))
        return [answers[i] for i in range(len(requests))]

    def _prompt(self, request: str) -> list[int]:
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": request}], tokenize=False, add_generation_prompt=True
        )
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @torch.inference_mode()
    def _generate(self, prompts: list[list[int]], max_new_tokens: int, seed: int | None) -> list[Answer]:
        ends = self.ends
        pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else ends[0]
        width = max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        draw: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if seed is not None:
            torch.manual_seed(seed)
            draw = {"do_sample": True, "temperature": self._temperature, "top_p": 0.9, "top_k": 0}
        device = next(self._model.parameters()).device
        made = self._model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=pad,
            **draw,
        )
        return [self._answer(row, ends) for row in made[:, width:].tolist()]

    @property
    def ends(self) -> list[int]:
        """The tokens that end a turn; `VocabTransferError` when the model has none."""
        stated = self._model.generation_config.eos_token_id
        ends = stated if isinstance(stated, list) else [stated]
        found = [end for end in dict.fromkeys([*ends, self._tokenizer.eos_token_id]) if end is not None]
        if not found:
            raise VocabTransferError("the model has no end-of-turn token, so its answers never end: set eos_token.")
        return found

    def _answer(self, ids: list[int], ends: list[int]) -> Answer:
        stop = next((i for i, token in enumerate(ids) if token in ends), None)
        text = str(self._tokenizer.decode(ids[:stop], skip_special_tokens=True))
        return Answer(text.strip(), stop is not None)


@dataclass(frozen=True)
class SelfAnswers:
    """A model's own answers that are worth learning from, and how many were left out for which reason."""

    dialogues: tuple[Dialogue, ...]
    verdicts: Mapping[str, int]


def self_answers(
    answer: Answerer,
    requests: Sequence[str],
    *,
    script: str,
    tries: int = 1,
    max_new_tokens: int = 256,
    seed: int = 0,
) -> SelfAnswers:
    """Let a model answer requests in the target language and keep the sound answers (`judge`).

    The first try is the likeliest answer; requests whose answer was no good are tried again with drawn ones.

    Args:
        answer: the model.
        requests: what to ask, in the target language.
        script: ISO 15924 name of the script of the target language.
        tries: answers a request may have.
        max_new_tokens: tokens an answer may have.
        seed: of the drawn answers.
    """
    if tries < 1:
        raise UsageError(f"a request is tried once or more, not {tries} times.")
    good: dict[int, Dialogue] = {}
    verdicts: Counter[str] = Counter()
    left = list(range(len(requests)))
    for number in range(tries):
        drawn = None if number == 0 else seed + 1_000_000 * number
        answers = answer([requests[i] for i in left], max_new_tokens=max_new_tokens, seed=drawn) if left else []
        for i, said in zip(left, answers, strict=True):
            verdict = judge(requests[i], said.text, finished=said.finished, script=script)
            verdicts[verdict] += 1
            if verdict == "good":
                good[i] = Dialogue("answer", requests[i], said.text)
        left = [i for i in left if i not in good]
    return SelfAnswers(tuple(good[i] for i in sorted(good)), dict(sorted(verdicts.items())))


@dataclass(frozen=True)
class CopyAccuracy:
    """How well a model copies: share of exact enough copies, and the mean share of each text that came back."""

    tasks: int
    copied: float
    mean: float


def copy_accuracy(answer: Answerer, tasks: Sequence[Dialogue], *, max_new_tokens: int = 512) -> CopyAccuracy:
    """Ask for copies and compare: longest common subsequence by the longer of text and answer.

    A copy counts when that share is at least 99 %: an answer that goes on and on is no copy either.

    Raises `UsageError` when there is no copy task among ``tasks``.
    """
    wanted = [task for task in tasks if task.kind == "copy"]
    if not wanted:
        raise UsageError("there is no copy task to measure: make some with copy_tasks.")
    answers = answer([task.request for task in wanted], max_new_tokens=max_new_tokens)
    shares = [
        common_length(task.answer, said.text) / max(len(task.answer), len(said.text))
        for task, said in zip(wanted, answers, strict=True)
    ]
    return CopyAccuracy(len(shares), sum(share >= COPIED for share in shares) / len(shares), sum(shares) / len(shares))
