"""The model's inner lexicon: what its body makes of the pieces of new tokens, as rows for both sides of the model.

Models put the pieces of a word together in their first layers: half-way up, the state at the last piece stands for the
whole word (Kaplan et al., From Tokens to Words, arXiv 2410.05864). Tokens that the source has can be cut into the parts
they were merged from, so a linear map from such states (and the pieces' rows) to one row is fitted on thousands of
examples in the source's own space; no parallel text and no training. Sent through it, a new token is read as its pieces
were.

It is not *predicted* as they were: a fitted row is short, and a head reads length as likelihood. By the chain rule the
logit wanted of a new token is that of its first piece and the log probability of the others behind it; the mean of the
latter is known from how often both occur, and along the mean state it is a bias. So the head's row is the first piece's,
leaning to the fitted one, with that bias, corrected half-way to the frequencies of the language on states of the untouched
model. A tied table has to serve both sides. States before the head lie in few directions: there the row takes the
head's part, in all others the input's.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.links import token_frequencies
from vocabtransfer.errors import UsageError
from vocabtransfer.initialization.head_bias import BiasFit, competition, fitted_bias
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.inputs import Part, SourceBody, TransferInputs
from vocabtransfer.initialization.lessons import lessons
from vocabtransfer.initialization.sava import fit_affine
from vocabtransfer.progress import step
from vocabtransfer.token_map import RowReader

#: The layer that is read, as a share of all: words have fused by then (seen on Gemma 3 270M: a sixth of the layers is
#: worth 1.08 nats of excess as an input, a third 0.76, a half 0.68).
DEPTH = 0.5
#: A map fitted on fewer tokens says more about the tokens than about the space.
FEWEST_LESSONS = 200
#: The head's row: shares of the first piece's row (with the bias) and of the fitted one.
FIRST, FITTED = 0.7, 0.5
#: How a tied table weighs the input's row against the head's: directions whose second moment before the head is this many
#: times the mean are shared evenly.
EVENLY = 0.3

Spans = Sequence[NDArray[np.int64]]
#: By part of the model: the share of other rows, float32 ``(n_target,)``, and those rows, float32 ``(tokens, hidden)``
#: for the tokens of a `Lexicon`.
Mixed = Mapping[Part, tuple[NDArray[np.floating], NDArray[np.float32]]]


@dataclass(frozen=True, eq=False)
class Expected:
    """What the language expects of new rows of the head: the states they are fitted on, and how often each occurs.

    ``rest`` is the log probability of a token's further pieces behind its first one, ``share`` of all running tokens that
    are this one, both float64 ``(tokens,)``; ``competing`` the log-sum of the logits of the kept rows at every state.
    """

    fit: BiasFit
    rest: NDArray[np.float64]
    share: NDArray[np.float64]
    competing: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Rows of the tokens that are not copied and have pieces, before the two sides of a tied table are put together.

    ``tokens`` int64, ascending, of ``count`` in the new vocabulary; ``entering`` and ``leaving`` float32
    ``(tokens, hidden)``, the head's rows still without the correction to frequencies; ``states`` those before the head,
    float32 ``(places, hidden)``.
    """

    count: int
    tokens: NDArray[np.int64]
    lessons: int
    entering: NDArray[np.float32]
    leaving: NDArray[np.float32]
    tied: bool
    states: NDArray[np.float32]
    expected: Expected | None

    def fused(self, mixed: Mixed | None = None) -> FusedRows:
        """Return the rows for both sides of the model, with a share of other rows mixed in where some are given."""
        entering, leaving = self.entering, self.leaving
        if mixed is not None:
            entering = self._mix(entering, *mixed["input"])
            leaving = self._mix(leaving, *mixed["output"])
        if self.expected is not None and len(self.tokens):
            found = self.expected
            with step("what the language expects of the new tokens"):
                amounts = fitted_bias(found.fit, leaving, found.competing, found.share)
            leaving = (leaving + np.outer(amounts, found.fit.direction)).astype(np.float32)
        rows = {"input": entering, "output": leaving}
        if self.tied and len(self.tokens):
            rows = {"input": serving_both(entering, leaving, self.states)}
        return FusedRows(self.tokens, rows, self.count)

    def _mix(
        self, own: NDArray[np.float32], share: NDArray[np.floating], others: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        weight = share[self.tokens, None]
        return np.asarray(weight * others + (1 - weight) * own, np.float32)


@dataclass(frozen=True, eq=False)
class FusedRows:
    """The `DenseRows` that a lexicon makes, kept in memory.

    ``tables`` are the rows of ``tokens`` (int64, ascending) by part of the model, float32 ``(tokens, hidden)``; ``count``
    is the size of the new vocabulary.
    """

    tokens: NDArray[np.int64]
    tables: Mapping[str, NDArray[np.float32]]
    count: int

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Boolean ``(count,)``: the tokens whose rows it has."""
        mask = np.zeros(self.count, np.bool_)
        mask[self.tokens] = True
        return mask

    def rows(self, part: Part, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the new rows of tokens ``ids``, float32 ``(len(ids), hidden)``."""
        return self.tables.get(part, self.tables["input"])[np.searchsorted(self.tokens, ids)]


_KNOWN: weakref.WeakKeyDictionary[TransferInputs, Lexicon] = weakref.WeakKeyDictionary()


def lexicon(inputs: TransferInputs) -> Lexicon:
    """Return what the body makes of the tokens that are not copied; computed once for the same inputs.

    Raises `UsageError` when the source tokenizer has no merges (BPE), or too few trained tokens to learn from.
    """
    if inputs not in _KNOWN:
        _KNOWN[inputs] = _read(inputs)
    return _KNOWN[inputs]


def _read(inputs: TransferInputs) -> Lexicon:
    assert inputs.tables is not None and inputs.body is not None, "who asks has a body"
    kept = identity(inputs)
    wanted = inputs.spelled[~kept.filled[inputs.spelled]]
    pieces = inputs.source.encode_bytes([inputs.target_vocabulary.context_bytes(i) for i in wanted.tolist()])
    spans = [pieces.ids[pieces.indptr[i] : pieces.indptr[i + 1]].astype(np.int64) for i in range(len(wanted))]
    usable = [bool(len(span)) and bool(inputs.trained[span].all()) for span in spans]
    wanted, spans = wanted[usable], [span for span, good in zip(spans, usable, strict=True) if good]
    tied, nothing = inputs.tables.output is None, np.zeros((0, inputs.tables.hidden), np.float32)
    if not len(wanted):
        return Lexicon(inputs.shape[0], wanted, 0, nothing, nothing, tied, nothing, None)
    used = np.zeros(inputs.shape[1])
    found = token_frequencies(inputs.words, inputs.source) if inputs.words else np.zeros(0)
    used[: min(len(found), len(used))] = found[: len(used)]
    taught = lessons(inputs, used)
    if len(taught) < FEWEST_LESSONS:
        raise UsageError(
            f"The method inner_lexicon learns from tokens that the source merged from others, and found {len(taught)}: "
            "take `method='pieces_characters'`."
        )
    states = _states(inputs.body, [span for _, span in taught], spans)
    fitted = {part: _fitted(inputs.tables.part(part), taught, spans, *states) for part in inputs.tables.parts}
    first = np.array([span[0] for span in spans])
    leaving = FIRST * inputs.tables.part("output")[first] + FITTED * fitted[inputs.tables.parts[-1]]
    expected = _expected(inputs, inputs.body, wanted, first, used, kept.filled) if inputs.words else None
    if expected is not None:
        leaving = leaving + FIRST * np.outer(expected.rest, expected.fit.direction)
    text = inputs.body.text_states() if tied else nothing
    both = fitted["input"], leaving.astype(np.float32)
    return Lexicon(inputs.shape[0], wanted, len(taught), *both, tied, text, expected)


def _states(body: SourceBody, taught: Spans, spans: Spans) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the states at the ends of the taught spans and of the new ones."""
    layers = max(round(DEPTH * body.depth), 1)
    with step("reading pieces with the source model"):
        states = body.span_states([*taught, *spans], layers)
    return states[: len(taught)], states[len(taught) :]


def _fitted(
    table: RowReader,
    taught: Sequence[tuple[int, NDArray[np.int64]]],
    spans: Spans,
    taught_states: NDArray[np.float32],
    states: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Fit the map on what is taught and return the rows that it makes of the new spans, float32 ``(spans, hidden)``."""
    learnt = [span_rows(table, [span for _, span in taught]), taught_states]
    new = [span_rows(table, spans), states]
    # A few numbers of a state are far larger than all others in many models, and one ridge is to fit all.
    sizes = [np.maximum(block.std(axis=0), 1e-3 * block.std() + 1e-12) for block in learnt]
    examples = np.concatenate([block / size for block, size in zip(learnt, sizes, strict=True)], axis=1)
    places = np.arange(len(taught))
    row_map = fit_affine(examples, places, table, np.array([token for token, _ in taught], np.int64))
    return row_map(np.concatenate([block / size for block, size in zip(new, sizes, strict=True)], axis=1))


def span_rows(table: RowReader, spans: Spans) -> NDArray[np.float32]:
    """Return the rows of each span's first and last piece and the mean of all, float32 ``(spans, 3 hidden)``."""
    lengths = np.array([len(span) for span in spans])
    starts = np.cumsum(lengths) - lengths
    rows = table[np.concatenate(spans)]
    means = np.add.reduceat(rows, starts) / lengths[:, None].astype(np.float32)
    return np.concatenate([rows[starts], rows[starts + lengths - 1], means], axis=1)


def _expected(
    inputs: TransferInputs,
    body: SourceBody,
    wanted: NDArray[np.int64],
    first: NDArray[np.int64],
    used: NDArray[np.float64],
    kept: NDArray[np.bool_],
) -> Expected:
    """Return what the counted words say of the tokens ``wanted``, whose first pieces are ``first``."""
    assert inputs.tables is not None
    frequencies = token_frequencies(inputs.words, inputs.target)
    with step("what the language expects of the new tokens"):
        counts = frequencies[wanted]
        rest = np.log((counts + 0.5) / (np.maximum(used[first], counts) + 1.0))
        fit = BiasFit.on(body.text_states(), body.logit_scale)
        others = np.flatnonzero(kept & (inputs.counterparts >= 0))
        competing = competition(fit, inputs.tables.part("output")[inputs.counterparts[others]])
    return Expected(fit, rest, counts / max(frequencies.sum(), 1.0), competing)


def serving_both(
    entering: NDArray[np.float32], leaving: NDArray[np.float32], states: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return rows that read as ``entering`` and are predicted as ``leaving``, float32 like both.

    ``x = argmin k |x - entering|^2 + E (h x - h leaving)^2`` over states ``h`` before the head, with ``k`` the mean of
    the second moments of all directions.
    """
    moments = states.T.astype(np.float64) @ states / len(states)
    even = EVENLY * np.trace(moments) / len(moments) * np.eye(len(moments))
    share = np.linalg.solve(moments + even, moments)
    return np.asarray(entering + (leaving - entering) @ share.T, np.float32)
