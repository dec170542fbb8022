"""Learning rates that follow the numbers they move.

Adam moves a number by about the rate, whatever its gradient. What that is to a row depends on how large its numbers are:
those of SmolLM2-135M are 2.8 times as large as those of Gemma 3 270M, and what the one learns best at unmakes the other.
"""

from dataclasses import replace

import torch

from vocabtransfer.blocks import GROUP
from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.training.stage import NEW, TABLES, Stage

#: The spread of a table at which rates are meant as they are written; SmolLM2-135M's is 0.1007, Gemma 3 270M's 0.0363.
MEANT_AT = 0.1


def spread_of(checkpoint: Checkpoint) -> float:
    """Return how large the numbers of a model's input table are: the root of their mean square about the mean row."""
    table = checkpoint.input_table()
    rows, width = table.shape
    sums, squares = torch.zeros(width, dtype=torch.float64), 0.0
    for start in range(0, rows, GROUP):
        block = table[start : start + GROUP].float()
        sums += block.sum(0, dtype=torch.float64)
        squares += float(block.square().sum(dtype=torch.float64))
    return float(max(squares / (rows * width) - float((sums / rows).square().mean()), 0.0) ** 0.5)


def rate_for(checkpoint: Checkpoint, rate: float) -> float:
    """Return a learning rate for rows of a model, from one that is meant at a spread of `MEANT_AT`; two digits of it.

    A table of nothing but equal rows has no spread: the rate is then as it was written.
    """
    return _at(spread_of(checkpoint), rate)


def fitted(stages: tuple[Stage, ...], checkpoint: Checkpoint) -> tuple[Stage, ...]:
    """Return stages that nobody named with the rates of those that train rows alone fitted to a model."""
    spread = spread_of(checkpoint)
    return tuple(
        replace(stage, learning_rate=_at(spread, stage.learning_rate)) if stage.name in (NEW, TABLES) else stage
        for stage in stages
    )


def _at(spread: float, rate: float) -> float:
    return float(f"{rate * spread / MEANT_AT:.1e}") if spread > 0 else rate
