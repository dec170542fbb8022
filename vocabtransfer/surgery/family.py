"""One saved map for every size of a family: draft and target, or small and large, then share one vocabulary.

Models of a family have one tokenizer. So the map that was made for one of them says for all of them which rows a new
token is made from; only the rows differ. What a method fitted to the rows or the body of the map's own model (a shift by
token frequencies, rows of the inner lexicon, trained rows) does not belong to the map and is left behind, with a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.initialization import Initialization, Method, TransferInputs
from vocabtransfer.initialization.identity import COPIED, SPECIAL
from vocabtransfer.initialization.norms import Norm, check_norm
from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.surgery.explanation import source_names
from vocabtransfer.surgery.opened_map import OpenedMap, inspect
from vocabtransfer.surgery.tables import checkpoint_tables
from vocabtransfer.surgery.transfer import DENSE_ROWS, TransferResult, calibrated
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.carry import named_but_missing, with_settings_of
from vocabtransfer.tokenization.pieces import PieceEncoder

#: The method of a result whose map was there already.
SAVED = "saved_map"


@public
def apply_map(
    saved: OpenedMap | str | Path,
    source: Checkpoint,
    *,
    words: Mapping[str, float] | None = None,
    calibrate: bool | None = None,
    norm: Norm = "none",
    seed: int = 0,
) -> TransferResult:
    """Make new tables for a model with a map that was made for another model of its family.

    The result has the map's tokenizer (tokenizer.json byte for byte), with the roles, chat template and limits of the
    model that the map is applied to.

    Args:
        saved: the map, or the folder of a finished build that holds it: token_map.safetensors, source_tokens.json and the
            tokenizer's files are read.
        source: the model; its vocabulary must be the one that the map was made for, but for tokens behind it.
        words: counts of target-language words, for the calibration to token frequencies.
        calibrate: match the head to these frequencies; where there are words, when not given.
        norm: bring the new rows to the source's lengths: "none", "global" or "script".
        seed: for the words that calibration draws.

    Raises:
        VocabTransferError: the folder has no map, or the source has another vocabulary (the first token that differs is
            named), or a chat template that names tokens which the new vocabulary lacks.
    """
    opened = saved if isinstance(saved, OpenedMap) else inspect(saved)
    norm = check_norm(norm)
    with step("comparing the vocabulary with the map's"):
        notes = list(_compared(opened, source))
    for token in named_but_missing(source.tokenizer, opened.tokenizer):
        raise VocabTransferError(
            f"the chat template of {source.name} writes {token!r}, which the map's vocabulary lacks: make the map from a "
            "model of the family that has a chat template, and apply it to the others."
        )
    tokenizer = with_settings_of(opened.tokenizer, source.tokenizer)
    with step("reading both vocabularies"):
        inputs = TransferInputs(
            source=PieceEncoder(source.tokenizer, source.vocabulary),
            target=PieceEncoder(tokenizer),
            trained=source.trained_rows(),
            words=words or {},
            seed=seed,
            tables=checkpoint_tables(source),
            predicts=source.generates,
        )
    token_map = _for_rows(opened.token_map, len(inputs.trained), source)
    output_map = opened.output_map
    if output_map is not None:
        output_map = _for_rows(output_map, len(inputs.trained), source) if source.layout.output_name else None
    elif source.layout.output_name and opened.token_map.metadata.get("tied"):
        notes.append(
            "The map was made for a model with one table for input and output, so the head's rows are made as the input's."
        )
    notes += _fitted_elsewhere(opened.token_map)
    notes += _untrained(token_map, inputs.trained)
    result = TransferResult(
        source,
        tokenizer,
        Method(SAVED, "a map made for another model of the family", "ours", frozenset(), False, False, _saved),
        inputs,
        Initialization(token_map, output_map=output_map),
        norm,
        tuple(notes),
        beside=opened.beside,
    )
    if calibrate or (calibrate is None and words and source.generates):
        return calibrated(result, seed)
    if source.generates and calibrate is None:
        note = "Frequencies were not calibrated: give text in the target language (`text`)."
        return replace(result, notes=(*result.notes, note))
    return result


def _saved(inputs: TransferInputs) -> Initialization:
    raise VocabTransferError("a saved map is applied by `apply_map`, not made anew.")


def _compared(opened: OpenedMap, source: Checkpoint) -> Iterator[str]:
    """Raise at the first token of the source that is not the map's; yield a note on tokens behind the map's."""
    theirs, mine = opened.source_names, source_names(source.vocabulary)
    shared = min(len(theirs), len(mine))
    for i in range(shared):
        if theirs[i] != mine[i]:
            raise VocabTransferError(
                f"the map was made for another vocabulary than that of {source.name}: token {i} is {theirs[i]!r} there "
                f"and {mine[i]!r} here; apply it to models with the tokenizer of the model it was made for."
            )
    beyond = [i for i in _used(opened.token_map) if i >= shared]
    if beyond:
        name = repr(theirs[beyond[0]]) if beyond[0] < len(theirs) else f"row {beyond[0]}"
        raise VocabTransferError(
            f"the map was made for another vocabulary than that of {source.name}: it takes rows from token {beyond[0]} "
            f"({name}), and {source.name} has {len(mine):,} tokens."
        )
    if len(mine) > len(theirs):
        listed = ", ".join(map(repr, mine[len(theirs) :][:3]))
        yield f"{source.name} has {len(mine) - len(theirs):,} tokens behind those of the map, which go: {listed}."


def _used(token_map: TokenMap) -> NDArray[np.int64]:
    """Return the source rows that a map reads, sorted, int64."""
    direct = token_map.weights.indices[token_map.weights.indices < token_map.n_source]
    return np.unique(np.concatenate([direct, token_map.groups.indices])).astype(np.int64)


def _for_rows(token_map: TokenMap, rows: int, source: Checkpoint) -> TokenMap:
    """Return a map for a table of so many rows: sizes of a family pad one vocabulary to different lengths."""
    if token_map.n_source == rows:
        return token_map
    last = max(_used(token_map), default=-1)
    if last >= rows:
        raise VocabTransferError(
            f"the map takes rows from id {last}, and the table of {source.name} has {rows:,} rows."
        )
    direct, groups = token_map.weights[:, : token_map.n_source], token_map.groups.copy()
    direct.resize((token_map.n_target, rows))
    groups.resize((groups.shape[0], rows))
    weights = sparse.hstack([direct, token_map.weights[:, token_map.n_source :]], format="csr")
    return replace(token_map, weights=sparse.csr_array(weights, dtype=np.float32), groups=sparse.csr_array(groups))


def _fitted_elsewhere(token_map: TokenMap) -> Iterator[str]:
    count = token_map.metadata.get(DENSE_ROWS)
    if isinstance(count, int) and count:
        yield (
            f"{count:,} rows of the model that the map was made for are not from the map but were fitted or trained for it "
            "alone; here they are the weighted means that the map has for them."
        )


def _untrained(token_map: TokenMap, trained: NDArray[np.bool_]) -> Iterator[str]:
    copies = [code for code, name in enumerate(token_map.rule_names) if name in (COPIED, SPECIAL)]
    made = token_map.weights[np.flatnonzero(~np.isin(token_map.rule, copies))]
    read = np.unique(made.indices[made.indices < token_map.n_source])
    count = int((~trained[read]).sum())
    if count:
        yield f"{count:,} of the rows that new tokens are made from were never trained in this model."
