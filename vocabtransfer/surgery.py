"""A source checkpoint meets a target tokenizer: the token map between them, applied to tables in row blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as save_safetensors
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from vocabtransfer.alignment.links import token_frequencies
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.checkpoint import Checkpoint, VocabTensor, WriteReport, write_checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.initialization import Initialization, Method, TransferInputs, find_method
from vocabtransfer.initialization.calibration import draw_words, fits_in_memory, hidden_states, unigram_shift
from vocabtransfer.progress import step
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.vocabulary import Kind, Vocabulary

MAP_FILE, SHIFT_FILE = "token_map.safetensors", "calibration.safetensors"
SOURCE_STRINGS = "source_tokens.json"


class TableRows:
    """Rows of a checkpoint's table as float32, read from the file as they are asked for."""

    def __init__(self, table: torch.Tensor) -> None:
        """Wrap a memory-mapped table of any float dtype, shape ``(rows, hidden)``."""
        self._table = table

    def __getitem__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows ``ids``, float32 ``(len(ids), hidden)``."""
        rows: NDArray[np.float32] = self._table[torch.from_numpy(ids)].float().numpy()
        return rows


@dataclass(frozen=True)
class Explanation:
    """Why a row of the new vocabulary is what it is."""

    id: int
    token: str
    text: str
    rule: str
    evidence: float
    sources: tuple[tuple[str, float], ...]


@dataclass(frozen=True, eq=False)
class TransferResult:
    """New tables for a checkpoint, not yet written. ``notes`` are sentences a person should read."""

    source: Checkpoint
    tokenizer: PreTrainedTokenizerFast
    method: Method
    inputs: TransferInputs
    initialization: Initialization
    notes: tuple[str, ...] = ()

    @property
    def token_map(self) -> TokenMap:
        """The map of the input table."""
        return self.initialization.token_map

    @property
    def vocabulary(self) -> Vocabulary:
        """The new vocabulary."""
        return self.inputs.target_vocabulary

    @cached_property
    def _groups(self) -> dict[str, NDArray[np.float32]]:
        return {}

    @cached_property
    def _deviation(self) -> dict[str, NDArray[np.float32]]:
        return {}

    def rows(self, tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start..stop`` of a new tensor: float32 ``(stop - start, hidden)``, or ``(stop - start,)``."""
        token_map = self.token_map
        if tensor.part == "output" and self.initialization.output_map is not None:
            token_map = self.initialization.output_map
        is_bias = tensor.part == "output_bias"
        values = self.source.read(tensor.name)
        table = TableRows(values.reshape(-1, 1) if is_bias else values)
        if tensor.name not in self._groups:
            self._groups[tensor.name] = token_map.group_rows(table)
        rows = token_map.apply(table, start, stop, self._groups[tensor.name])
        if is_bias:
            return torch.from_numpy(rows[:, 0])
        noise = self.initialization.noise
        if noise is not None:
            if tensor.name not in self._deviation:
                trained = np.flatnonzero(self.inputs.trained)
                self._deviation[tensor.name] = table[trained[:: max(1, len(trained) // 16384)]].std(axis=0)
            rows = rows + noise.draw(start, stop, self._deviation[tensor.name])
        shift = self.initialization.shift
        if shift is not None and (tensor.part == "output" or (tensor.part in ("input", "shared") and self._tied)):
            rows = rows + shift.rows(start, stop)
        return torch.from_numpy(rows)

    @property
    def _tied(self) -> bool:
        return self.source.layout.tied

    @cached_property
    def _names(self) -> list[str]:
        return source_names(self.inputs.source_vocabulary)

    def source_name(self, column: int) -> str:
        """Return the readable name of a column of the token map: a source token, or a group."""
        return column_name(self.token_map, self._names, column)

    def explain(self, token: int | str) -> Explanation:
        """Say which source tokens, weights, rule and evidence made a row; by id or by text.

        Raises:
            VocabTransferError: the text is not one token of the new vocabulary.
        """
        return explain(self.token_map, self.vocabulary, self._names, token)

    def files(self) -> dict[str, bytes]:
        """Return what lies beside the checkpoint so that its map can be inspected later: name -> content."""
        files = {SOURCE_STRINGS: json.dumps(self._names, ensure_ascii=False, indent=0).encode()}
        shift = self.initialization.shift
        if shift is not None:
            files[SHIFT_FILE] = save_safetensors({"amounts": shift.amounts, "direction": shift.direction})
        return files

    def save(
        self,
        target: str | Path,
        *,
        link: Any = "hard",
        overwrite: bool = False,
        pad_to_multiple_of: int = 1,
        extra_files: Mapping[str, bytes] | None = None,
    ) -> WriteReport:
        """Write the checkpoint, with its token map beside it; see `vocabtransfer.checkpoint.write_checkpoint`."""
        return write_checkpoint(
            self.source,
            Path(target),
            tokenizer=self.tokenizer,
            rows=self.rows,
            extra_files={MAP_FILE: self.token_map.to_bytes(), **self.files(), **(extra_files or {})},
            link=link,
            overwrite=overwrite,
            pad_to_multiple_of=pad_to_multiple_of,
        )


def transfer(
    source: Checkpoint,
    tokenizer: PreTrainedTokenizerFast,
    *,
    method: str = "trans_tokenization",
    alignment: WordTable | None = None,
    words: Mapping[str, float] | None = None,
    calibrate: bool = True,
    seed: int = 0,
) -> TransferResult:
    """Make new vocabulary tables for a checkpoint.

    Args:
        source: an opened checkpoint.
        tokenizer: the target tokenizer.
        method: the initialiser's name; see `vocabtransfer.initialization.METHODS`.
        alignment: word-pair counts from the source's best language into the target language.
        words: counts of target-language words; the alignment's own when not given.
        calibrate: match the head to the language's token frequencies (causal models that fit into memory).
        seed: for methods and calibration that draw random numbers.

    Raises:
        UsageError: the method is unknown or needs what was not given.
        VocabTransferError: the source cannot be read.
    """
    chosen = find_method(method)
    if words is None:
        words = target_words(alignment) if alignment is not None else {}
    with step("reading both vocabularies"):
        inputs = TransferInputs(
            source=PieceEncoder(source.tokenizer, source.vocabulary),
            target=PieceEncoder(tokenizer),
            trained=source.trained_rows(),
            table=alignment,
            words=words,
            seed=seed,
        )
    if not inputs.trained.any():
        raise VocabTransferError(
            f"No embedding row of {source.name} was ever trained, so there is nothing to transfer."
        )
    with step(f"making the token map ({chosen.name})"):
        initialization = chosen(inputs)
    result = TransferResult(source, tokenizer, chosen, inputs, initialization)
    return _calibrated(result, seed) if calibrate else result


def target_words(table: WordTable) -> dict[str, float]:
    """Return the target-language words of a table with their counts."""
    return dict(zip(table.target_words, table.target_totals.astype(float).tolist(), strict=True))


def _calibrated(result: TransferResult, seed: int) -> TransferResult:
    """Add the unigram calibration where it applies; say in a note where it does not."""
    source, inputs = result.source, result.inputs
    if not inputs.words or not source.is_causal:
        return result
    if not fits_in_memory(source.parameters):
        note = f"Frequencies were not calibrated: running {source.name} in float32 needs more memory than is free."
        return replace(result, notes=(*result.notes, note))
    with step("calibrating token frequencies"):
        frequencies = token_frequencies(inputs.words, inputs.target)
        movable = np.array([_has_letter(result.vocabulary, i) for i in range(inputs.shape[0])])
        movable &= result.vocabulary.kinds == Kind.TEXT
        texts = draw_words(inputs.words, seed)
        chunks = [ids for ids in result.tokenizer(texts, add_special_tokens=False)["input_ids"] if len(ids) > 1]
        if not chunks or not movable.any():
            return result
        by_part = {tensor.part: tensor for tensor in reversed(source.layout.tensors)}
        table = by_part.get("input") or by_part["shared"]
        used = np.unique(np.concatenate([np.array(chunk) for chunk in chunks]))
        head = _all_rows(result, by_part.get("output") or table)
        entered = head if "output" not in by_part else _all_rows(result, table)
        rows = entered[used]
        del entered
        model = AutoModelForCausalLM.from_pretrained(source.path, dtype=torch.float32, local_files_only=True).eval()
        states = hidden_states(model, chunks, used, rows)
        del model
        bias = result.rows(by_part["output_bias"], 0, inputs.shape[0]).numpy() if "output_bias" in by_part else None
        config = source.config.get("text_config") or source.config
        shift = unigram_shift(
            states,
            head,
            frequencies,
            movable,
            bias,
            softcap=config.get("final_logit_softcapping"),
            logit_scale=float(config.get("logit_scale") or 1 / float(config.get("logits_scaling") or 1)),
        )
    return replace(result, initialization=replace(result.initialization, shift=shift))


def _all_rows(result: TransferResult, tensor: VocabTensor) -> NDArray[np.float32]:
    """Return a whole new table, float32, made in blocks so that no more than one table is in memory."""
    count = result.inputs.shape[0]
    table = np.empty((count, result.source.layout.hidden), np.float32)
    for start in range(0, count, 4096):
        stop = min(start + 4096, count)
        table[start:stop] = result.rows(tensor, start, stop).numpy()
    return table


def _has_letter(vocabulary: Vocabulary, token: int) -> bool:
    text = vocabulary.text(token)
    return text is not None and any(character.isalpha() for character in text)


def source_names(vocabulary: Vocabulary) -> list[str]:
    """Return a readable name for every source token: its text, or its raw string where it is not valid text."""
    texts = (vocabulary.text(i) for i in range(len(vocabulary)))
    return [text if text else raw for text, raw in zip(texts, vocabulary.strings, strict=True)]


def explain(token_map: TokenMap, vocabulary: Vocabulary, names: list[str], token: int | str) -> Explanation:
    """Explain a row by id, or by text: as a word after a space first, then as it stands, then as a raw string."""
    row = token if isinstance(token, int) else _find(vocabulary, token)
    if not 0 <= row < token_map.n_target:
        raise VocabTransferError(f"There is no token {row}: the vocabulary has ids 0 to {token_map.n_target - 1}.")
    columns = token_map.row(row)
    labels = [column_name(token_map, names, column) for column, _ in columns]
    return Explanation(
        id=row,
        token=vocabulary.strings[row],
        text=vocabulary.text(row) or "",
        rule=token_map.rule_of(row),
        evidence=float(token_map.evidence[row]),
        sources=tuple((label, weight) for label, (_, weight) in zip(labels, columns, strict=True)),
    )


def column_name(token_map: TokenMap, names: list[str], column: int) -> str:
    """Return the readable name of a column of a token map."""
    if column >= token_map.n_source:
        return token_map.group_names[column - token_map.n_source]
    return names[column] if column < len(names) else f"<row {column}>"


def _find(vocabulary: Vocabulary, text: str) -> int:
    index = vocabulary.index()
    content = text.strip() or text
    for key in ((content.encode(), True), (text.encode(), False)):
        if key in index:
            return index[key]
    if text in vocabulary.strings:
        return vocabulary.strings.index(text)
    raise VocabTransferError(f"{text!r} is not one token of the new vocabulary; try one of its pieces.")
