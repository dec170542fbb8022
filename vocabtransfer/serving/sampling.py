"""Choosing the next token of one row, by transformers' own processors, with a random generator of its own."""

from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from vocabtransfer.hydra.loaded import LoadedHead
from vocabtransfer.serving.jobs import Sampling


class Chooser:
    """Chooses the tokens of one row; the same seed draws the same tokens, whatever other rows there are."""

    def __init__(self, head: LoadedHead, sampling: Sampling, prompt_length: int, device: torch.device) -> None:
        """Take the head's generation settings, and what a request wants otherwise.

        ``prompt_length`` counts the tokens that `choose` will see before the first new one.
        """
        settings = head.generation_config
        temperature = _temperature(settings, sampling)
        self.draws = temperature > 0
        self._generator: torch.Generator | None = None
        self._processors = _constraints(settings, head.end_ids, prompt_length, device)
        if self.draws:
            self._generator = torch.Generator()
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed)
            self._processors += _warpers(settings, sampling, temperature)

    def choose(self, logits: torch.Tensor, context: list[int]) -> int:
        """Return the next token for logits (rows of the head,) after ``context``, the tokens in the head's ids."""
        scores = logits.float().unsqueeze(0)
        if self._processors:
            ids = torch.tensor([context], dtype=torch.int64, device=logits.device)
            scores = LogitsProcessorList(self._processors)(ids, scores)  # type: ignore[arg-type]
        if not self.draws:
            return int(scores.argmax())
        probabilities = torch.softmax(scores[0].cpu(), dim=-1)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))


def _temperature(settings: GenerationConfig, sampling: Sampling) -> float:
    if sampling.temperature is not None:
        return sampling.temperature
    if sampling.top_p is not None or settings.do_sample:
        return float(settings.temperature or 1.0)
    return 0.0


def _constraints(settings: GenerationConfig, ends: list[int], begin: int, device: torch.device) -> list[Any]:
    """Return what the head's settings ask for whether tokens are drawn or not."""
    made: list[Any] = []
    if settings.sequence_bias:
        made.append(SequenceBiasLogitsProcessor(settings.sequence_bias))
    if settings.repetition_penalty not in (None, 1.0):
        made.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        made.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    if settings.bad_words_ids:
        made.append(NoBadWordsLogitsProcessor(settings.bad_words_ids, eos_token_id=ends or None))
    if settings.suppress_tokens:
        made.append(SuppressTokensLogitsProcessor(settings.suppress_tokens, device=str(device)))
    if settings.begin_suppress_tokens:
        made.append(SuppressTokensAtBeginLogitsProcessor(settings.begin_suppress_tokens, begin, device=str(device)))
    return made


def _warpers(settings: GenerationConfig, sampling: Sampling, temperature: float) -> list[Any]:
    made: list[Any] = []
    if temperature != 1.0:
        made.append(TemperatureLogitsWarper(temperature))
    if settings.top_k:
        made.append(TopKLogitsWarper(top_k=settings.top_k))
    top_p = sampling.top_p if sampling.top_p is not None else settings.top_p
    if top_p is not None and top_p < 1.0:
        made.append(TopPLogitsWarper(top_p=top_p))
    if settings.min_p is not None:
        made.append(MinPLogitsWarper(min_p=settings.min_p))
    return made
