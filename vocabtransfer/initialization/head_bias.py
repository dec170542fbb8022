"""A bias for new rows of the head, found on states of the untouched model beside the rows that were kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

#: Places of text that the bias is found on, and the most dot products held at once.
PLACES, BLOCK = 1024, 1 << 26
STEPS, STEP_SIZE, STRENGTH = 8, 0.8, 0.5
#: Largest change of a logit, in nats: what a finite sample says about rare tokens is not to be taken to the letter.
LARGEST = 6.0


@dataclass(frozen=True, eq=False)
class BiasFit:
    """States before the head, and the direction along which a row is moved to raise its logit by 1 whatever the place.

    ``states`` is float32 ``(places, hidden)``, ``direction`` float32 ``(hidden,)``.
    """

    states: NDArray[np.float32]
    direction: NDArray[np.float32]
    logit_scale: float

    @classmethod
    def on(cls, states: NDArray[np.float32], logit_scale: float = 1.0) -> BiasFit:
        """Take evenly spaced places of all states, and the direction of the mean of all."""
        centre = states.mean(axis=0, dtype=np.float64)
        direction = (centre / (centre @ centre) / logit_scale).astype(np.float32)
        chosen = np.linspace(0, len(states) - 1, min(PLACES, len(states))).astype(np.int64)
        return cls(states[chosen], direction, logit_scale)


def competition(fit: BiasFit, others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the log-sum of the logits of ``others`` (float32 ``(others, hidden)``) at every state, float32."""
    if not len(others):
        return np.full(len(fit.states), -np.inf, np.float32)
    parts = np.array_split(fit.states, max(len(fit.states) * len(others) // BLOCK, 1))
    sums = [torch.logsumexp(torch.from_numpy(fit.logit_scale * (part @ others.T)), dim=1).numpy() for part in parts]
    return np.asarray(np.concatenate(sums), np.float32)


def fitted_bias(
    fit: BiasFit, rows: NDArray[np.float32], competing: NDArray[np.float32], wanted: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return how much to move each row along the direction, float32 ``(rows,)``: half-way to the wanted shares.

    Args:
        fit: states and direction.
        rows: float32 ``(rows, hidden)``: the new rows.
        competing: float32 ``(places,)``: the log-sum of the rows that were kept, see `competition`.
        wanted: float64 ``(rows,)``: the share of all running tokens that each new one has in the language.
    """
    logits = fit.logit_scale * (fit.states @ rows.T)
    gain = fit.logit_scale * (fit.states @ fit.direction)[:, None]
    goal = np.log(np.maximum(wanted, 1e-7)).astype(np.float32)
    amounts = np.zeros(len(rows), np.float32)
    for _ in range(STEPS):
        moved = logits + gain * amounts
        moved -= np.logaddexp(competing, logsumexp(moved, axis=1))[:, None]
        expected = np.log(np.maximum(np.exp(moved).mean(axis=0), 1e-9))
        amounts = np.clip(amounts + STEP_SIZE * (goal - expected), -LARGEST, LARGEST)
    return np.asarray(STRENGTH * amounts, np.float32)
