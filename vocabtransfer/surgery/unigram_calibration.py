"""Unigram calibration: make the new head expect each token about as often as the language uses it.

Averaged rows carry the frequencies of the tokens they were averaged from: thirty forms of one noun would each be
expected as often as the noun. The body is run once over words drawn from the target language; the correction each token
needs is then put along the mean hidden state, where it acts as a bias on the logit and hardly moves the row otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vocabtransfer.initialization.inputs import Shift

WORDS_A_CHUNK, CHUNKS, POSITIONS = 40, 32, 1024
STEPS, STEP_SIZE, STRENGTH = 8, 0.7, 0.5
#: Largest change of a logit, in nats: what a finite sample says about rare tokens is not to be taken to the letter.
LARGEST = 4.0


def draw_words(words: Mapping[str, float], seed: int) -> list[str]:
    """Return texts of words drawn independently by their counts: enough context to put the body into the language."""
    texts = list(words)
    weights = np.fromiter(words.values(), np.float64, len(texts))
    drawn = np.random.default_rng(seed).choice(len(texts), WORDS_A_CHUNK * CHUNKS, p=weights / weights.sum())
    chosen = [texts[i] for i in drawn.tolist()]
    return [" ".join(chosen[i : i + WORDS_A_CHUNK]) for i in range(0, len(chosen), WORDS_A_CHUNK)]


def hidden_states(
    model: Any, chunks: Sequence[Sequence[int]], ids: NDArray[np.int64], rows: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Run a model's body over token sequences whose embedding rows are given; float32 ``(positions, hidden)``.

    ``ids`` are the tokens that occur, sorted, and ``rows`` (float32, ``(len(ids), hidden)``) their embeddings.

    The model's own embedding module is used, with the rows put in place of its table, so that whatever it does to its
    rows (scaling, normalisation) is done to these.
    """
    embedding = model.get_input_embeddings()
    kept = embedding.weight, embedding.num_embeddings, embedding.padding_idx
    embedding.weight = torch.nn.Parameter(torch.from_numpy(rows).to(kept[0].dtype), requires_grad=False)
    embedding.num_embeddings, embedding.padding_idx = len(ids), None
    states = []
    try:
        with torch.inference_mode():
            for chunk in chunks:
                inputs = torch.from_numpy(np.searchsorted(ids, chunk))[None]
                states.append(
                    model.base_model(input_ids=inputs, use_cache=False).last_hidden_state[0, 1:].float().numpy()
                )
    finally:
        embedding.weight, embedding.num_embeddings, embedding.padding_idx = kept
    return np.concatenate(states)


def unigram_shift(
    states: NDArray[np.float32],
    head: NDArray[np.float32],
    frequencies: NDArray[np.float64],
    movable: NDArray[np.bool_],
    bias: NDArray[np.float32] | None = None,
    softcap: float | None = None,
    logit_scale: float = 1.0,
) -> Shift:
    """Find the shift that brings the mean predicted distribution half-way to the language's token frequencies.

    Args:
        states: float32 ``(positions, hidden)``: hidden states before the head.
        head: float32 ``(n_target, hidden)``: the new output rows.
        frequencies: float64 ``(n_target,)``: token counts in the target language.
        movable: boolean ``(n_target,)``: tokens that may be moved; the others take no part.
        bias: float32 ``(n_target,)`` of the head, if it has one.
        softcap: the model's final logit soft-cap.
        logit_scale: what the model multiplies its logits by.
    """
    centre = states.mean(axis=0)
    direction = (centre / (centre @ centre)).astype(np.float32)
    sample = states[np.linspace(0, len(states) - 1, min(POSITIONS, len(states))).astype(np.int64)]
    logits = torch.from_numpy(sample) @ torch.from_numpy(head).T * logit_scale
    if bias is not None:
        logits += torch.from_numpy(bias)
    if softcap:
        logits = torch.tanh(logits / softcap) * softcap
    gain = torch.from_numpy(sample @ direction)[:, None]
    open_ = torch.from_numpy(movable)
    wanted = torch.from_numpy(frequencies + 0.5)[open_].float()
    wanted = (wanted / wanted.sum()).log()
    amounts = torch.zeros(int(open_.sum()))
    logits = logits[:, open_]
    for _ in range(STEPS):
        expected = torch.softmax(logits + gain * amounts, dim=1).mean(dim=0).clamp_min(1e-9).log()
        amounts = (amounts + STEP_SIZE * (wanted - expected)).clamp(-2 * LARGEST, 2 * LARGEST)
    amounts -= (amounts * wanted.exp()).sum()
    result = np.zeros(len(movable), np.float32)
    result[movable] = (STRENGTH * amounts / logit_scale).clamp(-LARGEST, LARGEST).numpy()
    return Shift(result, direction)
