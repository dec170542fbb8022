"""Rows from the model's inner lexicon: what the body makes of a word's pieces, turned back into one row.

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

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.links import token_frequencies
from vocabtransfer.errors import UsageError
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.head_bias import BiasFit, fitted_bias
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.inputs import Initialization, Part, SourceBody, TransferInputs
from vocabtransfer.initialization.lessons import lessons
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.initialization.sava import fit_affine
from vocabtransfer.progress import step
from vocabtransfer.token_map import RowReader

FUSED = "inner lexicon"
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


@method(
    "inner_lexicon",
    "copies, then one row for what the body makes of the pieces; the head's from the first piece",
    "arXiv 2410.05864, and ours for the head",
    Need.TABLES,
    Need.BODY,
    separate_output=True,
)
def inner_lexicon(inputs: TransferInputs) -> Initialization:
    """Give new tokens the row that a map, fitted on the source's own tokens, makes of their pieces.

    Special and equal tokens are copied; tokens without pieces get their script's mean. `UsageError` when the source
    tokenizer has no merges (BPE), or too few trained tokens to learn from.
    """
    assert inputs.tables is not None and inputs.body is not None, "the registry checks that methods get what they need"
    kept = identity(inputs)
    wanted = inputs.spelled[~kept.filled[inputs.spelled]]
    pieces = inputs.source.encode_bytes([inputs.target_vocabulary.context_bytes(i) for i in wanted.tolist()])
    spans = [pieces.ids[pieces.indptr[i] : pieces.indptr[i + 1]].astype(np.int64) for i in range(len(wanted))]
    usable = [bool(len(span)) and bool(inputs.trained[span].all()) for span in spans]
    wanted, spans = wanted[usable], [span for span, good in zip(spans, usable, strict=True) if good]
    token_map = kept.or_else(fallback(inputs))
    if not len(wanted):
        return Initialization(token_map)
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
    parts: tuple[Part, ...] = ("input",) if inputs.tables.output is None else ("input", "output")
    fitted = {part: _fitted(inputs.tables.part(part), taught, spans, *states) for part in parts}
    head_part: Part = "output" if "output" in fitted else "input"
    head = _head_rows(inputs, inputs.body, wanted, spans, fitted[head_part], used, kept.filled)
    rows = {"input": fitted["input"], "output": head}
    if inputs.tables.output is None:
        rows = {"input": _serving_both(fitted["input"], head, inputs.body.text_states())}
    places = np.full(inputs.shape[0], -1, np.int64)
    places[wanted] = np.arange(len(wanted))
    made = places >= 0
    evidence = np.where(made, np.float32(len(taught)), token_map.evidence).astype(np.float32)
    token_map = replace(token_map.relabelled(made, FUSED), evidence=evidence).with_metadata(lessons=len(taught))
    return Initialization(token_map, dense=FusedRows(made, places, rows))


@dataclass(frozen=True, eq=False)
class FusedRows:
    """The `DenseRows` of the method, kept in memory: ``places`` is the row in ``tables`` of each token in ``mask``."""

    mask: NDArray[np.bool_]
    places: NDArray[np.int64]
    tables: dict[str, NDArray[np.float32]]

    def rows(self, part: Part, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the new rows of tokens ``ids``, float32 ``(len(ids), hidden)``."""
        return self.tables.get(part, self.tables["input"])[self.places[ids]]


Spans = Sequence[NDArray[np.int64]]


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
    learnt = [_rows(table, [span for _, span in taught]), taught_states]
    new = [_rows(table, spans), states]
    # A few numbers of a state are far larger than all others in many models, and one ridge is to fit all.
    sizes = [np.maximum(block.std(axis=0), 1e-3 * block.std() + 1e-12) for block in learnt]
    examples = np.concatenate([block / size for block, size in zip(learnt, sizes, strict=True)], axis=1)
    places = np.arange(len(taught))
    row_map = fit_affine(examples, places, table, np.array([token for token, _ in taught], np.int64))
    return row_map(np.concatenate([block / size for block, size in zip(new, sizes, strict=True)], axis=1))


def _rows(table: RowReader, spans: Spans) -> NDArray[np.float32]:
    """Return the rows of each span's first and last piece and the mean of all, float32 ``(spans, 3 hidden)``."""
    lengths = np.array([len(span) for span in spans])
    starts = np.cumsum(lengths) - lengths
    rows = table[np.concatenate(spans)]
    means = np.add.reduceat(rows, starts) / lengths[:, None].astype(np.float32)
    return np.concatenate([rows[starts], rows[starts + lengths - 1], means], axis=1)


def _head_rows(
    inputs: TransferInputs,
    body: SourceBody,
    wanted: NDArray[np.int64],
    spans: Spans,
    fitted: NDArray[np.float32],
    used: NDArray[np.float64],
    kept: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Return the head's rows of the new tokens, float32 ``(wanted, hidden)``."""
    assert inputs.tables is not None
    table = inputs.tables.part("output")
    first = np.array([span[0] for span in spans])
    rows = FIRST * table[first] + FITTED * fitted
    if not inputs.words:
        return rows.astype(np.float32)
    frequencies = token_frequencies(inputs.words, inputs.target)
    with step("what the language expects of the new tokens"):
        counts = frequencies[wanted]
        rest = np.log((counts + 0.5) / (np.maximum(used[first], counts) + 1.0))
        fit = BiasFit.on(body.text_states(), body.logit_scale)
        rows = rows + FIRST * np.outer(rest, fit.direction)
        others = table[inputs.counterparts[np.flatnonzero(kept & (inputs.counterparts >= 0))]]
        amounts = fitted_bias(fit, rows, others, counts / max(frequencies.sum(), 1.0))
    return np.asarray(rows + np.outer(amounts, fit.direction), np.float32)


def _serving_both(
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
