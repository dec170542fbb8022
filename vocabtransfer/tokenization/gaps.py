"""Ids without a token: some are usual (reserved, padding, holes after trimming), millions are a mistake."""

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError

#: Ids without a token that any tokenizer may have; a larger one may have as many as it has tokens.
USUAL_GAPS = 4096


def check_gaps(tokenizer: PreTrainedTokenizerFast, file: Path) -> None:
    """Refuse a tokenizer most of whose ids have no token: every id below the highest would need a row.

    Raises `VocabTransferError` naming the first token behind the widest gap.
    """
    by_id = sorted((i, token) for token, i in tokenizer.get_vocab().items())
    if not by_id or by_id[-1][0] + 1 - len(by_id) <= max(USUAL_GAPS, len(by_id)):
        return
    before = [-1, *(i for i, _ in by_id[:-1])]
    gap, (i, token) = max((pair[0] - last, pair) for last, pair in zip(before, by_id, strict=True))
    raise VocabTransferError(
        f"{file} gives the token {token!r} the id {i:,}, but has only {len(by_id):,} tokens: the {gap - 1:,} ids before it "
        "have no token, and a model would need a row for each, so number the tokens without such a gap."
    )
