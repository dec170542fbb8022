"""What every initialiser is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.alignment.links import token_counts
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.files.text import Text
from vocabtransfer.token_map import RowReader, TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.vocabulary import Kind, Vocabulary

NOISE_BLOCK = 1024
#: Which of a model's tables: the input embeddings, or the output rows of the head (the same where they are tied).
Part = Literal["input", "output"]


@dataclass(frozen=True, eq=False)
class Tables:
    """A model's tables as float32 rows, read as they are asked for. ``output`` is None when it is the input's."""

    input: RowReader
    output: RowReader | None
    hidden: int

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that have a table of their own."""
        return ("input",) if self.output is None else ("input", "output")

    def part(self, part: Part) -> RowReader:
        """Return one of the two; the input table for the output of a tied model."""
        return self.output if part == "output" and self.output is not None else self.input


@dataclass(frozen=True, eq=False)
class Donor:
    """Another model that already has good rows for many tokens: its vocabulary, tables and trained rows.

    ``trained`` is boolean, one a row of its tables.
    """

    name: str
    vocabulary: Vocabulary
    tables: Tables
    trained: NDArray[np.bool_]


class SourceBody(Protocol):
    """The untouched source model, run on token ids of its own vocabulary."""

    @property
    def depth(self) -> int:
        """Number of layers."""
        ...

    @property
    def logit_scale(self) -> float:
        """What the model multiplies its logits by."""
        ...

    def span_states(self, spans: Sequence[NDArray[np.integer[Any]]], layers: int) -> NDArray[np.float32]:
        """Return the states after ``layers`` layers at the end of each span of ids, float32 ``(spans, hidden)``."""
        ...

    def text_states(self) -> NDArray[np.float32]:
        """Return the states before the head over text of the target language, float32 ``(places, hidden)``."""
        ...


@dataclass(frozen=True)
class VectorFiles:
    """Word vectors a user has: fastText ``.bin`` or text ``.vec`` files for each of the two languages."""

    source: Path | None = None
    target: Path | None = None


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
        tables: the source model's tables, for methods that look into them.
        text: running text in the target language.
        source_text: running text in the source model's language.
        donor: another model, for methods that learn from its rows.
        vectors: word vectors trained elsewhere; methods that need some train them from the texts otherwise.
        body: the source model itself, for methods that look at what it makes of pieces (causal models).
        predicts: the model predicts the next token; False for encoders, which only read.
        known: the model knows the target language, so that what it makes of pieces says more than a few translations.
    """

    source: PieceEncoder
    target: PieceEncoder
    trained: NDArray[np.bool_]
    table: WordTable | None = None
    words: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    tables: Tables | None = None
    text: Text | None = None
    source_text: Text | None = None
    donor: Donor | None = None
    vectors: VectorFiles = VectorFiles()
    body: SourceBody | None = None
    predicts: bool = True
    known: bool = False

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
    def counterparts(self) -> NDArray[np.int64]:
        """The source token equal to each target token, int64 ``(target tokens,)``; -1 for none and past the table."""
        found = self.target_vocabulary.counterparts(self.source_vocabulary)
        return np.where(found < len(self.trained), found, -1)

    @property
    def spelled(self) -> NDArray[np.int64]:
        """The target tokens whose text says what they are for, int64: not byte tokens that no text is written with."""
        target = self.target_vocabulary
        return np.flatnonzero((target.kinds <= Kind.BYTE) & ~target.spelled_otherwise())

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


class DenseRows(Protocol):
    """Rows that are no sparse combination of the source's, such as a donor's rows sent through a fitted map."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Boolean ``(n_target,)``: the rows it makes; all others are the token map's."""
        ...

    def rows(self, part: Part, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the new rows of tokens ``ids`` (all of them in `mask`), float32 ``(len(ids), hidden)``."""
        ...


@dataclass(frozen=True, eq=False)
class Initialization:
    """What a method says about the new rows: a token map, and for some methods noise, rows or a shift on top.

    ``output_map`` is for methods that treat the head of an untied model differently; None means "as the input".
    ``dense`` takes the place of the map's rows where its mask is true; the map's rule should say so.
    """

    token_map: TokenMap
    output_map: TokenMap | None = None
    noise: Noise | None = None
    shift: Shift | None = None
    dense: DenseRows | None = None
