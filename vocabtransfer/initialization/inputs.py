"""What every initialiser is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.alignment.links import token_counts
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.vocabulary import Vocabulary

NOISE_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class TransferInputs:
    """Two vocabularies and the evidence that links them.

    Attributes:
        source: encoder of the source tokenizer.
        target: encoder of the target tokenizer.
        trained: boolean, one a source row: rows the source model was really trained on. Others take part in nothing.
        table: word-pair counts (source language, target language), if there are any.
        words: counts of target-language words, for token frequencies.
        seed: for methods that draw random numbers.
    """

    source: PieceEncoder
    target: PieceEncoder
    trained: NDArray[np.bool_]
    table: WordTable | None = None
    words: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0

    @property
    def source_vocabulary(self) -> Vocabulary:
        """The source's tokens."""
        return self.source.vocabulary

    @property
    def target_vocabulary(self) -> Vocabulary:
        """The target's tokens."""
        return self.target.vocabulary

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a map: target tokens by source rows (of the table, which may be longer than the vocabulary)."""
        return len(self.target.vocabulary), len(self.trained)

    @cached_property
    def counts(self) -> sparse.csr_array | None:
        """Token-pair counts, CSR float32 of `shape`, untrained source rows left out; None without a table."""
        if self.table is None:
            return None
        counts = token_counts(self.table, self.source, self.target)
        counts.resize(self.shape)
        return sparse.csr_array(counts @ sparse.diags_array(self.trained.astype(np.float32)))


@dataclass(frozen=True, eq=False)
class Shift:
    """A calibration that moves row ``t`` by ``amounts[t] * direction``.

    Along the mean hidden state this adds ``amounts[t]`` to the token's logit, nearly whatever the context: the bias
    that most language-model heads do not have. ``amounts`` is float32 ``(n_target,)``, ``direction`` float32
    ``(hidden,)``.
    """

    amounts: NDArray[np.float32]
    direction: NDArray[np.float32]

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return what rows ``start..stop`` are moved by."""
        return np.outer(self.amounts[start:stop], self.direction)


@dataclass(frozen=True, eq=False)
class Noise:
    """Gaussian noise on some rows, with the spread of the source's trained rows times ``scale``.

    The noise of a row depends on the seed and the row alone, so it is the same in whatever blocks a table is written.
    """

    rows: NDArray[np.bool_]
    scale: float
    seed: int

    def draw(self, start: int, stop: int, deviation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the noise of rows ``start..stop``; ``deviation`` is the table's standard deviation a dimension."""
        blocks = []
        for block in range(start // NOISE_BLOCK, -(-stop // NOISE_BLOCK)):
            generator = np.random.default_rng([self.seed, block])
            blocks.append(generator.standard_normal((NOISE_BLOCK, len(deviation)), np.float32))
        offset = start - start // NOISE_BLOCK * NOISE_BLOCK
        noise = (
            np.concatenate(blocks)[offset : offset + stop - start]
            if blocks
            else np.zeros((0, len(deviation)), np.float32)
        )
        return noise * deviation * self.scale * self.rows[start:stop, None]


@dataclass(frozen=True, eq=False)
class Initialization:
    """What a method says about the new rows: a token map, and for some methods noise or a shift on top.

    ``output_map`` is for methods that treat the head of an untied model differently; None means "as the input".
    """

    token_map: TokenMap
    output_map: TokenMap | None = None
    noise: Noise | None = None
    shift: Shift | None = None
