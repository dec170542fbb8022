"""A source checkpoint meets a target tokenizer: the token map between them, applied to tables in row blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as save_safetensors
from transformers import PreTrainedTokenizerFast

from vocabtransfer.alignment.links import token_frequencies
from vocabtransfer.checkpoint import Checkpoint, VocabTensor, WriteReport, write_checkpoint
from vocabtransfer.checkpoint.layout import TEXT_CONFIGS
from vocabtransfer.errors import UnexpectedError, UsageError, VocabTransferError, first_line
from vocabtransfer.evaluation.bits_per_byte import bits_per_byte
from vocabtransfer.initialization import Donor, Initialization, Method, Need, TransferInputs, find_method
from vocabtransfer.initialization.identity import COPIED, SPECIAL
from vocabtransfer.initialization.norms import Norm, check_norm
from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.reprs import brief
from vocabtransfer.running.half_body import products_in_bfloat16
from vocabtransfer.running.load import cannot_run
from vocabtransfer.running.plan import open_runnable, own_device
from vocabtransfer.surgery.choice import APART, APART_MARGIN, best, score, sentence
from vocabtransfer.surgery.evidence import Evidence
from vocabtransfer.surgery.explanation import SOURCE_STRINGS, Explanation, column_name, explain, source_names
from vocabtransfer.surgery.sample import draw_sample, source_states
from vocabtransfer.surgery.tables import NewTables, checkpoint_tables
from vocabtransfer.surgery.unigram_calibration import draw_words, hidden_states, telling_direction, unigram_shift
from vocabtransfer.token_map import MAP_FILE, OUTPUT_MAP_FILE, TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.vocabulary import Kind, Vocabulary

SHIFT_FILE = "calibration.safetensors"
#: What a saved map says of itself: how many rows are not made by it but fitted, drawn or trained.
DENSE_ROWS = "rows_beyond_the_map"
#: Share of the source's tokens from which on a vocabulary counts as an extended one.
KEPT = 0.9
#: Parameters up to which a CPU reads pieces unasked: some minutes of one core.
MEASURED = 1_500_000_000
_PARTS = {"input": ("input", "shared"), "output": ("output",), "bias": ("output_bias",)}


@dataclass(frozen=True, eq=False)
class TransferResult:
    """New tables for a checkpoint, not yet written.

    ``notes`` are sentences a person should read; ``scores`` the bits per byte of the ways that were measured, if any;
    ``beside`` further files that belong to the vocabulary.
    """

    source: Checkpoint
    tokenizer: PreTrainedTokenizerFast
    method: Method
    inputs: TransferInputs
    initialization: Initialization
    norm: Norm = "none"
    notes: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    beside: Mapping[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        return brief(self, source=self.source.name, tokens=len(self.tokenizer), method=self.method.name)

    @cached_property
    def token_map(self) -> TokenMap:
        """The map of the input table; its metadata say how many rows are not made by it alone."""
        found = self.initialization
        beyond = np.zeros(found.token_map.n_target, np.bool_)
        for more in (found.dense.mask if found.dense else None, found.noise.rows if found.noise else None):
            beyond |= False if more is None else more
        facts = {"tied": self.source.layout.output_name is None, DENSE_ROWS: int(beyond.sum())}
        return found.token_map.with_metadata(**facts)

    @property
    def vocabulary(self) -> Vocabulary:
        """The new vocabulary."""
        return self.inputs.target_vocabulary

    @cached_property
    def _tables(self) -> NewTables:
        return NewTables(self.source, self.inputs, self.initialization, self.norm)

    @public
    def rows(self, tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start..stop`` of a new tensor: float32 ``(stop - start, hidden)``, or ``(stop - start,)``."""
        return self._tables.rows(tensor, start, stop)

    @public
    def table(self, part: Literal["input", "output", "bias"] = "input") -> torch.Tensor | None:
        """Return a whole new table, float32 ``(tokens, hidden)``, or the head's bias ``(tokens,)``.

        The output is None when it is the input's (tied models, models without a head), the bias when there is none.
        """
        if part not in _PARTS:
            raise UsageError(f"a table is input, output or bias, not {part!r}.")
        tensor = self._tensor(part)
        return self._tables.whole(tensor) if tensor is not None else None

    def blocks(self, part: Literal["input", "output"]) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield a new table in float32 blocks, each with the number of its first row; the output may be the input's."""
        tensor = self._tensor(part) or self._tensor("input")
        assert tensor is not None, "every model has an input table"
        return self._tables.blocks(tensor)

    def _tensor(self, part: str) -> VocabTensor | None:
        tensors = self.source.layout.tensors
        return next((each for each in tensors if each.part in _PARTS[part] and not each.further), None)

    @cached_property
    def _names(self) -> list[str]:
        return source_names(self.inputs.source_vocabulary)

    @public
    def source_name(self, column: int) -> str:
        """Return the readable name of a column of the token map: a source token, or a group."""
        return column_name(self.token_map, self._names, column)

    @public
    def explain(self, token: int | str) -> Explanation:
        """Say which source tokens, weights, rule and evidence made a row; by id or by text.

        Raises:
            VocabTransferError: the text is not one token of the new vocabulary.
        """
        return explain(self.token_map, self.vocabulary, self._names, token)

    def files(self) -> dict[str, bytes]:
        """Return what lies beside the checkpoint so that its map can be inspected later: name -> content."""
        found = self.initialization
        files = {
            **self.beside,
            MAP_FILE: self.token_map.to_bytes(),
            SOURCE_STRINGS: json.dumps(self._names, ensure_ascii=False, indent=0).encode(),
        }
        if found.output_map is not None:
            files[OUTPUT_MAP_FILE] = found.output_map.to_bytes()
        shift = found.shift
        if shift is not None:
            files[SHIFT_FILE] = save_safetensors({"amounts": shift.amounts, "direction": shift.direction})
        return files

    @public
    def save(
        self,
        target: str | Path,
        *,
        link: Any = "hard",
        overwrite: bool = False,
        pad_to_multiple_of: int = 1,
        extra_files: Mapping[str, bytes] | None = None,
        check: Callable[[Path], object] | None = None,
    ) -> WriteReport:
        """Write the checkpoint, with its token map beside it; see `vocabtransfer.checkpoint.write_checkpoint`.

        The report and the model card say for which language the tables were made, so they are not written unasked:
        give ``extra_files=report_files(result, language, evidence)``.
        """
        return write_checkpoint(
            self.source,
            Path(target),
            tokenizer=self.tokenizer,
            rows=self.rows,
            extra_files={**self.files(), **(extra_files or {})},
            link=link,
            overwrite=overwrite,
            pad_to_multiple_of=pad_to_multiple_of,
            check=check,
        )


@public
def transfer(
    source: Checkpoint,
    tokenizer: PreTrainedTokenizerFast,
    evidence: Evidence | None = None,
    *,
    method: str = "auto",
    calibrate: bool | None = None,
    norm: Norm = "none",
    measure: bool | None = None,
    known: bool = False,
    seed: int = 0,
) -> TransferResult:
    """Make new vocabulary tables for a checkpoint.

    Args:
        source: an opened checkpoint.
        tokenizer: the target tokenizer.
        evidence: what says which of the model's tokens the new ones are like; none is enough for some methods.
        method: the initialiser's name; see `vocabtransfer.initialization.METHODS`.
        calibrate: match the head to the language's token frequencies (causal models that fit into memory); what the
            method says when not given.
        norm: bring the new rows to the source's lengths: "none", "global" or "script".
        measure: let a method that has rivals (auto) read pieces with the source, be scored against them on a sample of the
            text, and take the best. When not given, pieces are read where the source has at most 1.5 billion parameters or
            does not run on a CPU, and ways are scored where there is running text too.
        known: the source knows the language: what a method that has rivals goes by where they are not scored.
        seed: for methods and calibration that draw random numbers.

    Raises:
        UsageError: the method is unknown or needs what was not given.
        VocabTransferError: the source cannot be read.
    """
    chosen, norm = find_method(method), check_norm(norm)
    evidence = evidence or Evidence()
    words = evidence.word_counts
    sample = draw_sample(words, evidence.running, seed) if Need.BODY in chosen.needs or chosen.rivals else None
    read = bool(chosen.rivals) and (_reads_unasked(source) if measure is None else measure)
    compared = read and sample is not None and (sample.running or measure is True)
    body = source_states(source, sample) if read or Need.BODY in chosen.needs else None
    with step("reading both vocabularies"):
        inputs = TransferInputs(
            source=PieceEncoder(source.tokenizer, source.vocabulary),
            target=PieceEncoder(tokenizer),
            trained=source.trained_rows(),
            table=evidence.alignment,
            words=words,
            seed=seed,
            tables=checkpoint_tables(source),
            text=evidence.running,
            source_text=evidence.source_running,
            donor=_donor(evidence.donor) if evidence.donor is not None else None,
            vectors=evidence.vectors,
            body=body,
            predicts=source.generates,
            known=known and not compared,
        )
    if not inputs.trained.any():
        raise VocabTransferError(
            f"No embedding row of {source.name} was ever trained, so there is nothing to transfer."
        )

    def made(chosen: Method, calibrate: bool | None) -> TransferResult:
        with step(f"making the token map ({chosen.name})"):
            initialization = chosen(inputs)
        result = TransferResult(source, tokenizer, chosen, inputs, initialization, norm, _notes(source, chosen))
        if calibrate is None:
            calibrate = chosen.calibrated and not _keeps_source(result)
        return calibrated(result, seed, body.model if body is not None else None) if calibrate else result

    opened = None
    try:
        opened = body.model if body is not None else None
        result = made(chosen, calibrate)
    except Exception as problem:  # whatever a model class trips over: the rows can be made without running it
        if (
            body is None
            or Need.BODY in chosen.needs
            or (opened is not None and isinstance(problem, VocabTransferError))
        ):
            raise
        inputs, body = replace(inputs, body=None), None
        result = made(chosen, calibrate)
        note = f"Pieces were not read with the source: the model did not run ({first_line(problem)})."
        return replace(result, notes=(*result.notes, note))
    if not compared or body is None or sample is None or _all_copied(result.token_map):
        return result
    try:
        scores, results = {chosen.name: score(body.model, result, sample.measuring)}, {chosen.name: result}
    except UnexpectedError as problem:  # whatever a model class trips over: the rows are good without a comparison
        said = first_line(problem.__cause__ or problem)
        note = f"Ways of making the rows were not compared: the model did not run ({said})."
        return replace(result, notes=(*result.notes, note))
    for rival in chosen.rivals:
        name, _, option = rival.partition("+")
        wanted = calibrate if calibrate is not None else bool(option) and not _keeps_source(result)
        label = f"{name}+calibrate" if wanted else name
        try:
            results[label] = made(find_method(name), wanted)
        except UsageError:
            continue  # this source or vocabulary is of a kind that the rival cannot work with
        scores[label] = score(body.model, results[label], sample.measuring)
    taken = best(scores)
    away = draw_sample({}, evidence.source_running, seed)
    if calibrate is None and away is not None and _keeps_source(result):
        apart = calibrated(results[taken], seed, body.model, (sample.fitting, away.fitting))
        label = taken + APART
        results[label], scores[label] = apart, score(body.model, apart, sample.measuring)
        if scores[label] < scores[taken] * (1 - APART_MARGIN):
            taken = label
    with products_in_bfloat16():
        untouched = bits_per_byte(body.model, source.tokenizer, sample.measuring).bits_per_byte
    note = sentence(taken, scores, untouched, sample.running)
    return replace(results[taken], method=chosen, notes=(*results[taken].notes, note), scores=scores)


def _reads_unasked(source: Checkpoint) -> bool:
    return source.parameters <= MEASURED or own_device() != "cpu"


def _donor(checkpoint: Checkpoint) -> Donor:
    tables = checkpoint_tables(checkpoint)
    return Donor(checkpoint.name, checkpoint.vocabulary, tables, checkpoint.trained_rows())


def _notes(source: Checkpoint, method: Method) -> tuple[str, ...]:
    if method.separate_output and source.layout.output_name is None:
        return (
            f"{source.name} has one table for input and output, so {method.name} made it in its way for the input.",
        )
    return ()


def calibrated(
    result: TransferResult, seed: int, model: Any = None, apart: tuple[Sequence[str], Sequence[str]] | None = None
) -> TransferResult:
    """Return the result with the unigram calibration where it applies, with a note where it does not.

    ``model`` is the source, where it is open already. ``apart`` are documents in the target and in the source's language:
    rows are then moved along the direction that tells the two apart, and the source's language is expected as before.
    """
    source, inputs = result.source, result.inputs
    if not inputs.words or not source.generates or _all_copied(result.token_map):
        return result
    if reason := cannot_run(source.config):
        return _uncalibrated(result, reason)
    if source.layout.further:
        return _uncalibrated(result, f"{source.layout.further[0].name!r} is a second table of the vocabulary")
    with step("calibrating token frequencies"):
        movable = np.array([_has_letter(result.vocabulary, i) for i in range(inputs.shape[0])])
        movable &= result.vocabulary.kinds == Kind.TEXT
        groups = [_chunks(result, texts) for texts in apart or (draw_words(inputs.words, seed),)]
        if not all(groups) or not movable.any():
            return result
        try:
            if model is None:
                model = open_runnable(source, tokens=sum(len(chunk) for chunks in groups for chunk in chunks))
            states = [_states(result, model, chunks) for chunks in groups]
        except Exception as problem:  # whatever a model class trips over: the rows are good without it
            said = first_line(problem)
            return _uncalibrated(result, said)
        config, bias = _writer(source.config), result.table("bias")
        shift = unigram_shift(
            states[0],
            (rows.numpy() for _, rows in result.blocks("output")),
            token_frequencies(inputs.words, inputs.target),
            movable,
            bias.numpy() if bias is not None else None,
            softcap=config.get("final_logit_softcapping"),
            logit_scale=float(config.get("logit_scale") or 1 / float(config.get("logits_scaling") or 1)),
            direction=telling_direction(*states) if apart else None,
        )
    return replace(result, initialization=replace(result.initialization, shift=shift))


def _chunks(result: TransferResult, texts: Sequence[str]) -> list[list[int]]:
    ids: list[list[int]] = result.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [chunk for chunk in ids if len(chunk) > 1]


def _states(result: TransferResult, model: Any, chunks: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Return the states before the head over token sequences of the new vocabulary, float32 ``(positions, hidden)``."""
    used = np.unique(np.concatenate([np.array(chunk) for chunk in chunks]))
    # No whole table is made for this: it may take more memory than the model runs in.
    entered = np.concatenate(
        [
            rows[used[(used >= start) & (used < start + len(rows))] - start].numpy()
            for start, rows in result.blocks("input")
        ]
    )
    return hidden_states(model, chunks, used, entered)


def _uncalibrated(result: TransferResult, reason: str) -> TransferResult:
    return replace(result, notes=(*result.notes, f"Frequencies were not calibrated: {reason}."))


def _writer(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of config.json that speaks of what writes text: of the text model, the decoder, or all of it."""
    inner = (config.get(name) for name in (*TEXT_CONFIGS, "decoder"))
    return next((part for part in inner if isinstance(part, Mapping)), config)


def _all_copied(token_map: TokenMap) -> bool:
    """Tell whether every row is the source's own, as after trimming: then its frequencies are too."""
    return set(token_map.counts_by_rule()) <= {SPECIAL, COPIED}


def _keeps_source(result: TransferResult) -> bool:
    """Tell whether nearly all of the source's tokens are copied, as after extending: the head has their frequencies.

    Calibrating them to one language's would take from all others (Gemma 3, extended by 6,000 tokens: 5 % worse).
    """
    copied = result.token_map.rule_names.index(COPIED) if COPIED in result.token_map.rule_names else -1
    return bool((result.token_map.rule == copied).sum() >= KEPT * len(result.inputs.source_vocabulary))


def _has_letter(vocabulary: Vocabulary, token: int) -> bool:
    text = vocabulary.text(token)
    return text is not None and any(character.isalpha() for character in text)
