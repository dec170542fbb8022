"""Choosing the next token of one row, by transformers' own processors, with a random generator of its own."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
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
from vocabtransfer.serving.jobs import Sampling, Scored

#: Below this a temperature takes the likeliest token, as in vLLM: logits divided by less leave what float32 can hold.
COLDEST = 1e-5
#: What stands for the logarithm of 0, which JSON cannot write.
LEAST_LOGPROB = -9999.0


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
        self._processors = _constraints(settings, sampling, head.end_ids, prompt_length, device)
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


def score(logits: torch.Tensor, token: int, count: int, offset: int) -> Scored:
    """Return a token with its log probability and those of the ``count`` likeliest, from logits (vocabulary,)."""
    scores = torch.log_softmax(logits.float(), dim=-1)
    best = scores.topk(min(count, len(scores)))
    top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    own = float(scores[token]) if token < len(scores) else LEAST_LOGPROB  # a padding row
    return Scored(token, max(own, LEAST_LOGPROB), tuple((i, max(value, LEAST_LOGPROB)) for i, value in top), offset)


class _OutputPenalties(LogitsProcessor):
    """OpenAI's penalties: for a token that the answer has already, and for each time that it has it."""

    def __init__(self, presence: float, frequency: float, begin: int) -> None:
        self._presence, self._frequency, self._begin = presence, frequency, begin

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        counts = torch.bincount(input_ids[0, self._begin :], minlength=scores.shape[1]).to(scores.dtype)
        return scores - self._frequency * counts - self._presence * (counts > 0)


class _LogitBias(LogitsProcessor):
    """Adds numbers to the logits of ids."""

    def __init__(self, bias: Mapping[int, float], device: torch.device) -> None:
        self._ids = torch.tensor(list(bias), device=device)
        self._values = torch.tensor(list(bias.values()), dtype=torch.float32, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.index_add(1, self._ids, self._values.unsqueeze(0))


def _temperature(settings: GenerationConfig, sampling: Sampling) -> float:
    """Return the temperature, 0 for no drawing: that of the request, or of the head's settings where they draw.

    A request that says how to draw, and no temperature, wants to draw.
    """
    drawn = any(value is not None for value in (sampling.top_p, sampling.top_k, sampling.min_p)) or settings.do_sample
    own = float(settings.temperature or 1.0) if drawn else 0.0
    wanted = sampling.temperature if sampling.temperature is not None else own
    return wanted if wanted >= COLDEST else 0.0


def _constraints(
    settings: GenerationConfig, sampling: Sampling, ends: list[int], begin: int, device: torch.device
) -> list[Any]:
    """Return what the request and the head's settings ask for whether tokens are drawn or not."""
    made: list[Any] = []
    if sampling.logit_bias:
        made.append(_LogitBias(sampling.logit_bias, device))
    if settings.sequence_bias:
        made.append(SequenceBiasLogitsProcessor(settings.sequence_bias))
    repetition = sampling.repetition_penalty
    repetition = settings.repetition_penalty if repetition is None else repetition
    if repetition not in (None, 1.0):
        made.append(RepetitionPenaltyLogitsProcessor(float(repetition)))
    if sampling.presence_penalty or sampling.frequency_penalty:
        made.append(_OutputPenalties(sampling.presence_penalty, sampling.frequency_penalty, begin))
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
    top_k = sampling.top_k if sampling.top_k is not None else settings.top_k
    if top_k:
        made.append(TopKLogitsWarper(top_k=top_k))
    top_p = sampling.top_p if sampling.top_p is not None else settings.top_p
    if top_p is not None and top_p < 1.0:
        made.append(TopPLogitsWarper(top_p=top_p))
    min_p = sampling.min_p if sampling.min_p is not None else settings.min_p
    if min_p:
        made.append(MinPLogitsWarper(min_p=min_p))
    return made
