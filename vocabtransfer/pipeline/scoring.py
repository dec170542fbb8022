"""New tables scored beside their source before anything is written, or a sentence on why they were not."""

from __future__ import annotations

from vocabtransfer.errors import UnexpectedError, VocabTransferError, first_line
from vocabtransfer.evaluation.against_source import AgainstSource, cannot_score_tables, score_new_tables
from vocabtransfer.pipeline.held_out import HeldOut
from vocabtransfer.surgery.transfer import TransferResult


def score_result(
    result: TransferResult, held_out: HeldOut, max_bytes: int
) -> tuple[AgainstSource | None, tuple[str, ...]]:
    """Score the new tables and the untouched source on held-out text; without a score, notes say why."""
    if max_bytes == 0:
        return None, ()
    if not held_out.lines:
        return None, ("There was too little text to set some aside, so the result was not scored: give `held_out`.",)
    refusal = cannot_score_tables(result.source)
    if refusal:
        return None, (refusal,)
    table = result.table("input")
    assert table is not None, "every model has an input table"
    tables = (table, result.table("output"), result.table("bias"))
    try:
        return score_new_tables(result.source, result.tokenizer, tables, held_out.lines, max_bytes=max_bytes), ()
    except Exception as problem:  # whatever a model class trips over: the rows are good without a score
        if isinstance(problem, VocabTransferError) and not isinstance(problem, UnexpectedError):
            raise
        said = first_line(problem.__cause__ or problem)
        return None, (f"The result was not scored: the model did not run ({said}).",)
